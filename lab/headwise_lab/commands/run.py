"""``headwise run``: runs one trial and writes its record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headwise.hints import number_of
from headwise.output import answer
from headwise.printing import say
from headwise.verbosity import remark, warn
from headwise_lab.commands.options import (
    Aggregate,
    AsJson,
    Attention,
    Batch,
    Data,
    Device,
    Dtype,
    Keep,
    Limit,
    MinMass,
    Model,
    Positions,
    Seed,
    SinkShare,
    Tokens,
)
from headwise_lab.commands.storing import opened
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_types import Cost, VisualRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from headwise_lab.benchmarks import Question
    from headwise_lab.benchmarks.inputs import Inputs
    from headwise_lab.trial.record import Setting

Found = TypeVar("Found")

Benchmark = Annotated[str, typer.Option(help="Name of a benchmark, such as shapes-gqa.")]
Strategy = Annotated[list[str] | None, typer.Option(help="[HOOK=]NAME[:option=value,...]; repeat for several hooks.")]
Recipe = Annotated[str | None, typer.Option(help="A named recipe to start from.")]
Show = Annotated[int, typer.Option(min=0, metavar="N", help="Print the first N predictions beside the right answers.")]
Out = Annotated[str | None, typer.Option(help="Also store the record and its outcomes in this folder or URL.")]


def run(
    *,
    model: Model = "demo-llava",
    benchmark: Benchmark = "shapes-gqa",
    tokens: Tokens = None,
    keep: Keep = None,
    strategy: Strategy = None,
    recipe: Recipe = None,
    limit: Limit = None,
    seed: Seed = 0,
    batch: Batch = 16,
    data: Data = None,
    positions: Positions = None,
    aggregate: Aggregate = None,
    min_mass: MinMass = None,
    sink_share: SinkShare = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
    out: Out = None,
    show: Show = 0,
    as_json: AsJson = False,
) -> None:
    """Run one model on one benchmark with one recipe.

    A pruning method needs one budget, --tokens or --keep. Without a strategy, the unpruned model runs, without budget.
    """
    from headwise.recipe import Recipe
    from headwise_lab.benchmarks import benchmark as benchmark_called
    from headwise_lab.benchmarks.inputs import Inputs
    from headwise_lab.benchmarks.questions import questions_of
    from headwise_lab.models.load import load_model
    from headwise_lab.store.locations import place
    from headwise_lab.trial.record import Setting
    from headwise_lab.trial.run import check, run_trial
    from headwise_lab.trial.submission import unanswered

    settings = {"positions": positions, "aggregate": aggregate, "min_mass": min_mass, "sink_share": sink_share}
    chosen = Recipe.of(*(strategy or ()), name=recipe, tokens=tokens, keep=keep, **settings)
    asked, folder = benchmark_called(benchmark), None if out is None else place(out)
    loaded = load_model(model, dtype=dtype, device=device, attention=attention)
    check(chosen, loaded.geometry)
    inputs = Inputs(loaded, asked, questions_of(asked, data=data, limit=limit, seed=seed), batch)
    inputs.check()
    store = opened(folder, "run")
    setting = Setting(recipe=chosen, seed=seed, limit=limit, data=data)
    if unanswered(inputs.questions):  # a split whose right answers are only on a server
        _submit(setting, inputs, folder, show)
        return
    record, outcomes = _with_progress(run_trial, setting, inputs, folder)
    for figure, reason in (record.unmeasured or {}).items():
        warn(f"{figure} could not be measured: {reason}")
    if store is not None:
        store.add(record, outcomes)
    answer(json.dumps(record.to_json(), indent=2, ensure_ascii=False) if as_json else describe(record))
    if show:
        say("\n".join(predictions(inputs.questions, outcomes[:show])), err=as_json)
    if store is not None:
        remark(f"stored in {out}")
        _keep_answers(inputs, outcomes, store.folder, record.id)


def _submit(setting: Setting, inputs: Inputs, folder: Path | None, show: int) -> None:
    """Write the answers for the server that knows the right ones; raises DataError where these are to be shown."""
    from headwise.errors import DataError
    from headwise_lab.trial.submission import submit

    if show:
        raise DataError(f"--show: the right answers of {inputs.benchmark.name} are not here; leave it out")
    say(f"submission written: {_with_progress(submit, setting, inputs, folder)}")


def _keep_answers(inputs: Inputs, outcomes: list[QuestionOutcome], folder: Path, identity: str) -> None:
    """Write the answers for ``headwise judge`` beside the record, if the benchmark needs a judge."""
    from headwise_lab.trial.submission import keep

    if getattr(inputs.benchmark, "judged", False):
        path = keep(
            inputs.benchmark, inputs.questions, [outcome.prediction or "" for outcome in outcomes], folder, identity
        )
        remark(f"answers to judge: {path}")


def _with_progress(
    ask: Callable[[Setting, Inputs, Path | None, Callable[[int], None]], Found],
    setting: Setting,
    inputs: Inputs,
    folder: Path | None,
) -> Found:
    """Run with a progress bar; answers of an unfinished run stay in ``folder``."""
    from headwise_lab.terminal.progress import counted

    with counted(inputs.benchmark.name, len(inputs)) as advance:
        return ask(setting, inputs, folder, advance)


def predictions(questions: Sequence[Question], outcomes: Sequence[QuestionOutcome]) -> list[str]:
    """What the model said to the first questions, beside what is right, as lines of text."""
    lines = []
    for question, outcome in zip(questions, outcomes, strict=False):
        lines += [
            "",
            f"{question.id}  {question.text.partition(chr(10))[0]}",
            f"  said   {' '.join((outcome.prediction or '').split()) or '(nothing)'}",
            f"  right  {' | '.join(dict.fromkeys(question.answers))}",
            f"  score  {outcome.score:g}",
        ]
    return lines


def describe(record: VisualRecord) -> str:
    """The record as lines of text."""
    metric, budget, heads, overlap = record.metric, record.budget, record.heads, record.overlap
    lines = [
        f"{record.model} on {record.benchmark}: {metric.name} {_with_error(metric.value, metric.se)}"
        f" ({number_of(record.n, 'question')})",
        *(f"  {hook}={text}" for hook, text in record.strategies.items()),
        f"budget      {budget.given}: {budget.kept} of {budget.visual} visual tokens kept,"
        f" {budget.processed:.2f} processed per layer on average",
    ]
    if heads.mean is not None:
        lines.append(f"heads       {heads.mean:.2f} of {heads.of} decided, on average")
    lines += _cost(record.cost or Cost())
    if overlap is not None:
        figures = f"recall {overlap.recall:.3f}, precision {overlap.precision:.3f}, iou {overlap.iou:.3f}"
        lines.append(f"kept tokens {figures}, lift {overlap.lift:.3f} against the boxes of {overlap.n} questions")
    lines += [f"  {name} {value:.2f}" for name, value in (record.metrics or {}).items()]
    return "\n".join(lines)


def _cost(cost: Cost) -> list[str]:
    """The cost of a question, planned and counted, and the memory of a batch."""
    return [
        f"prefill     {_shown(cost.prefill_ms)} ms per question in batches of {cost.batch},"
        f" {_percent(cost.prefill_share)} of the unpruned model's; selection {_shown(cost.selection_ms)} ms,"
        f" {_percent(cost.selection_share)} of it",
        f"computed    {_shown(cost.flops_total, 1e9)} G multiply-adds planned ({cost.flops_formula}) and"
        f" {_shown(cost.flops_counted_layers, 1e9)} G counted in the decoder layers;"
        f" {_shown(cost.flops_visual, 1e9)} G of the plan are visual",
        f"            {_shown(cost.flops_counted, 1e9)} G counted in the whole prefill,"
        f" {_shown(cost.flops_counted_selection, 1e9)} G of them for selection;"
        f" {_shown(cost.flops_counted_unpruned, 1e9)} G in the unpruned model's",
        f"decode      {_shown(cost.decode_tokens_per_s)} tokens/s; KV cache after prefill"
        f" {_shown(cost.kv_bytes, 2**20)} MiB planned, {_shown(cost.kv_bytes_stored, 2**20)} MiB stored",
        f"memory      peak {_shown(cost.peak_bytes, 2**20)} MiB ({cost.peak_source or 'not measured here'}),"
        f" {_shown(cost.peak_grown_bytes, 2**20)} MiB of it for a batch",
    ]


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.3g}%"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def _shown(value: float | None, unit: float = 1) -> str:
    return "?" if value is None else f"{value / unit:.4g}"
