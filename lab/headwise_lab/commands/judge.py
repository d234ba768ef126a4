"""``headwise judge``: scores free answers by a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headwise.hints import number_of
from headwise.output import answer
from headwise.reading import given_path
from headwise_lab.commands.options import AsJson, Data


def judge(
    answers: Annotated[
        Path,
        typer.Argument(callback=given_path, help="The answers that `headwise run --benchmark mm-vet --out` wrote."),
    ],
    *,
    data: Data = None,
    judge: Annotated[str, typer.Option(help="A judge of the group headwise.judge.")] = "string_match_proxy",
    out: Annotated[Path | None, typer.Option(callback=given_path, help="Also write all scores to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score free answers by a judge.

    The judge that ships only matches strings: its scores can be compared with each other, but not with published ones.
    Other packages can add judges, such as a language model, by an entry point of the group headwise.judge.
    """
    from headwise_lab.benchmarks import benchmark
    from headwise_lab.benchmarks.judge import Judge, answers_in, judged, write_judged
    from headwise_lab.benchmarks.questions import questions_of

    chosen = Judge.called(judge)
    record = judged(questions_of(benchmark("mm-vet"), data=data), answers_in(answers), chosen)
    if out is not None:
        write_judged(record, out)
    answer(json.dumps(record, indent=1, ensure_ascii=False) if as_json else describe(record))


def describe(verdict: dict[str, Any]) -> str:
    """The scores as lines of text."""
    who = f"{verdict['judge']} ({verdict['judge_owner']})"
    lines = [f"{who}: {verdict['total']:.2f} over {verdict['n']} of {number_of(verdict['of'], 'question')}"]
    return "\n".join([*lines, *(f"  {skill} {score:.2f}" for skill, score in verdict["skills"].items())])
