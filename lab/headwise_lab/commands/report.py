"""``headwise report``: tables and figures from the records alone, or a recount of somebody's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headwise.errors import DataError


def report(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Output folder of run, ppl, ablate or demo.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Recount the Markdown tables of this file instead.")
    ] = None,
    n: Annotated[
        str | None,
        typer.Option(
            "--n",
            metavar="NAME=N,...",
            help="With --table: questions per benchmark, or the tokens of KV tables, for noise.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title of the report.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rebuild tables and figures of an output folder from its records, or recount a table.

    Tables are either scores by token budget and head count, or perplexity against effective context. Runs of different
    effective contexts are never compared with each other, but each with StreamingLLM interpolated at its own context.
    """
    if (folder is None) == (table is None):
        raise DataError("report needs either the output folder of a run or --table FILE, one of the two")
    if table is not None:
        _recount(table, n, as_json)
    elif folder is not None:
        if n is not None:
            raise DataError("--n belongs to --table; records know their own number of questions")
        _build(folder, title, as_json)


def _build(folder: Path, title: str | None, as_json: bool) -> None:
    from headwise_lab.report import build

    paths = build(folder, title)
    if as_json:
        told = {
            "markdown": str(paths.markdown),
            "html": str(paths.html),
            "tables": [str(path) for path in paths.tables],
            "figures": [str(path) for path in paths.figures],
            "findings": list(paths.findings),
            "warnings": list(paths.warnings),
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for warning in paths.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for finding in paths.findings:
        typer.echo(finding)
    typer.echo(f"Wrote {paths.markdown}, {paths.html}, {len(paths.tables)} tables and {len(paths.figures)} figures.")


def _recount(table: Path, n: str | None, as_json: bool) -> None:
    """Score tables (seed 000's layout), tables of perplexity against context (seed 004's), or both in one document."""
    from headwise_lab.report.context_page import context_lines
    from headwise_lab.report.context_recount import recount_contexts
    from headwise_lab.report.score_tables import has_score_tables, read_text

    tokens = int(n) if n and n.isascii() and n.isdigit() and int(n) > 0 else None
    contexts = recount_contexts(table, tokens)
    told: dict[str, Any] = {}
    lines: list[str] = []
    if contexts is None or has_score_tables(read_text(table)):
        told, lines = _score_recount(table, {} if tokens else _question_counts(n))
    if contexts is not None:
        told, lines = (
            {**told, "contexts": contexts.as_dict()},
            [*lines, *([""] if lines else []), *context_lines(contexts)],
        )
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else "\n".join(lines))


def _score_recount(table: Path, counts: dict[str, int]) -> tuple[dict[str, Any], list[str]]:
    from headwise_lab.report.recount import recount
    from headwise_lab.report.recount_page import recount_lines

    counted = recount(table, counts)
    unknown = sorted(set(counts) - set(counted.tables))
    if unknown:
        raise DataError(f"--n names {', '.join(unknown)}, but the tables are {', '.join(counted.tables)}")
    return counted.as_dict(), recount_lines(counted)


def _question_counts(text: str | None) -> dict[str, int]:
    """``TextVQA=5000,GQA=12578`` as a mapping."""
    counts: dict[str, int] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        if not (name and number.isascii() and number.isdigit() and int(number) > 0):
            raise DataError(f"--n {part!r} is not of the form NAME=N with N questions, such as TextVQA=5000")
        counts[name] = int(number)
    return counts
