"""``headwise import-results``: adds results of lmms-eval and lm-eval to an output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.output import answer
from headwise.printing import say
from headwise.verbosity import remark, warn
from headwise_lab.commands.options import AsJson
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_types import Metric, VisualRecord

if TYPE_CHECKING:
    from headwise_lab.store.output_folder import Store

KIND = "import"  # the kind of a new folder for results of harnesses

Imported = tuple[VisualRecord, list[QuestionOutcome]]


def import_results(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Result files of lmms-eval or lm-eval, or their folders.")
    ],
    *,
    out: Annotated[
        str, typer.Option(help="Output folder or URL of a run, a sweep or an earlier import, or a new one.")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Headline of tasks that have this metric; repeat for several. [default: their first mean]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add results of lmms-eval and lm-eval to a folder that `headwise report` shows.

    Run the harness with --log_samples, so that runs can be compared document by document. A result that the folder has
    already is not added again. Results of other models than headwise are also added, as unpruned models.
    """
    from headwise_lab.engines.importing import records_of
    from headwise_lab.engines.results import read_run, result_files
    from headwise_lab.store.locations import place

    found: list[Imported] = []
    with ExitStack() as copies:
        for path in result_files([_at_hand(file, copies) for file in files]):
            records, notes = records_of(read_run(path), metric or ())
            found += records
            for note in notes:
                warn(f"{note}")
    store = _opened(place(out))
    new = [(record, outcomes) for record, outcomes in found if record.id not in store.records]
    for record, outcomes in new:
        store.add(record, outcomes)
    if as_json:
        answer(json.dumps([record.to_json() for record, _ in found], indent=2, ensure_ascii=False))
    else:
        say("\n".join(described(found)))
    remark(f"{len(new)} of {len(found)} results are new in {out}; headwise report {out} shows them")


def _at_hand(file: str, copies: ExitStack) -> Path:
    """A local file or folder; for a URL a local copy, together with the samples beside a file."""
    from headwise_lab.store.locations import is_local, place
    from headwise_lab.store.working_copy import at_hand

    given = place(file)
    if is_local(given) or given.suffix != ".json":
        return copies.enter_context(at_hand(given))
    return copies.enter_context(at_hand(given.parent)) / given.name


def _opened(out: Path) -> Store:
    """The store in a folder of any kind of run; a new store where the folder belongs to none."""
    from headwise_lab.store.output_folder import Store, kind_of

    return Store.open(out, kind_of(out) or KIND)


def described(found: Sequence[Imported]) -> list[str]:
    """One line for each result: task, score, model, strategies, and the paired difference to the task's first run."""
    lines = []
    first: dict[tuple[str | None, ...], Imported] = {}
    for record, outcomes in found:
        asked = (record.benchmark, record.metric.name, record.questions)
        other = first.setdefault(asked, (record, outcomes))
        figure = f"{record.metric.name} {_with_error(record.metric)}"
        lines.append(f"{record.benchmark}: {figure}, n={record.n}, {record.model} {_what(record)}")
        if other[0] is not record:
            lines[-1] += _difference((record, outcomes), other)
    return lines


def _what(record: VisualRecord) -> str:
    """The recipe's name, or else the strategies that are not default ones, and the budget."""
    from headwise.recipe import DEFAULTS

    budget = record.budget.given or ""
    usual = {**DEFAULTS, "kv_eviction": budget.removeprefix("cache ")}
    texts = [f"{hook}={text}" for hook, text in record.strategies.items() if usual.get(hook) != text]
    return " ".join([*([record.recipe] if record.recipe else texts), budget])


def _with_error(metric: Metric) -> str:
    return f"{metric.value:.4g}" if metric.se is None else f"{metric.value:.4g} ± {metric.se:.2g}"


def _difference(ours: Imported, theirs: Imported) -> str:
    """The paired difference in the scale of the headline metric, which is per cent where scores are in 0..1."""
    from headwise_lab.stats.differences import paired

    found = paired(*({one.unit_or_id: one.score for one in outcomes} for _, outcomes in (ours, theirs)))
    if found is None:
        return ""
    mean = sum(one.score for one in ours[1]) / len(ours[1])
    scale = 1 if isclose(mean, ours[0].metric.value, rel_tol=1e-6, abs_tol=1e-9) else 100
    return f"; to the first {scale * found.value:+.4g} ± {scale * found.se:.2g}"
