"""Tables of methods: scores, costs, kept tokens, refusals, and the mean over benchmarks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import attrs

from headwise_lab.report.heads.efficiency import COST_CAPTION, COST_HEADER, by_machine, cost_marks, cost_of
from headwise_lab.report.methods.methods import REFERENCE, MethodResult, Methods, ranked
from headwise_lab.report.page import facts
from headwise_lab.report.page.facts import signed
from headwise_lab.report.page.grid import MISSING, Grid, Mark, flat, number
from headwise_lab.report.trials import Trial
from headwise_lab.stats.rule import stated
from headwise_lab.store.record_types import Overlap

UNPRUNED = "unpruned"


def scores(methods: Methods) -> Grid:
    """A row per method, a column per budget, with the paired difference to the reference under each figure."""
    rows: list[list[str | Mark]] = []
    if methods.unpruned is not None:
        trial = methods.unpruned
        score = Mark(_score(trial, methods.digits), hint=_unpruned_hint(trial), anchor=trial.id,
                     data=facts.figure([trial], method=UNPRUNED))  # fmt: skip
        rows.append([UNPRUNED, MISSING, *[score] * len(methods.budgets)])
    for name in methods.names:
        marks = [_mark(methods.results.get((name, budget)), methods.digits) for budget in methods.budgets]
        rows.append([name, _stages(methods.of(name)[0].trial), *marks])
    caption = (
        f"{methods.metric} ± SE, in the benchmark's scale; small print: paired difference to fastv at the same budget."
        f" Budgets are visual tokens processed per layer on average, or kept. Bold: best of its column."
        f" {stated(methods.family())}"
    ).strip()
    header = ["Method", "Before layer", *methods.budgets]
    grid = Grid.of(f"{methods.title}: scores", methods.slug, header, rows, caption)
    return attrs.evolve(grid, long=tuple(long_rows(methods)))


def _mark(result: MethodResult | None, digits: int) -> Mark:
    if result is None:
        return Mark(MISSING)
    note = signed(result.to_reference, digits) if result.to_reference else ""
    return Mark(
        _score(result.trial, digits),
        bold=result.best,
        verdict=result.verdict,
        note=note,
        hint=_result_hint(result),
        anchor=result.trial.id,
        records=result.records,
        data=_data(result),
    )


def _data(result: MethodResult) -> dict[str, object]:
    """All facts about a result."""
    return {
        **facts.figure(result.trials or [result.trial], result.trial, method=result.name, best=result.best),
        "budget": result.budget,
        **facts.difference(result.to_reference, REFERENCE),
        **facts.difference(result.to_unpruned, UNPRUNED, "to_unpruned_"),
    }


def long_rows(methods: Methods) -> list[dict[str, object]]:
    """A flat row per result and record: figures, differences, verdict and every field of the record."""
    whole = methods.unpruned
    rows = [(facts.figure([whole], method=UNPRUNED), whole)] if whole else []
    rows += [(_data(result), trial) for result in methods.results.values() for trial in result.trials]
    return [{**{f"shown.{key}": value for key, value in data.items() if key not in ("strategies", "command")},
             **flat(trial.record.to_json())} for data, trial in rows]  # fmt: skip


def _score(trial: Trial, digits: int) -> str:
    return f"{number(trial.value, digits)} ± {number(trial.se, digits)}"


def _unpruned_hint(trial: Trial) -> str:
    return "\n".join(filter(None, [_count(trial), trial.strategies, trial.record.command or ""]))


def _count(trial: Trial) -> str:
    seeds = trial.record.seeds or 1
    return f"n={trial.record.n}" + (f", {seeds} seeds" if seeds > 1 else "")


def _result_hint(result: MethodResult) -> str:
    """The tooltip of a result: n, SE, differences, strategy texts and commands, a line each."""
    trial = result.trial
    lines = [f"{_count(trial)}, SE {number(trial.se)}", *facts.sentences(result.to_reference, REFERENCE)]
    lines += facts.sentences(result.to_unpruned, "the unpruned model")
    lines += dict.fromkeys(one.strategies for one in result.trials)
    lines += dict.fromkeys(one.record.command or "" for one in result.trials)
    return "\n".join(filter(None, lines))


def _stages(trial: Trial) -> str:
    """The layers before which a method prunes: ``2`` or ``1, 3, 6``."""
    return ", ".join(str(stage.layer) for stage in trial.record.stages or ()) or MISSING


def differences(methods: Methods) -> Grid:
    """The paired differences of every result to the reference and to the unpruned model."""
    rows: list[list[str | Mark]] = [
        [
            result.budget,
            Mark(result.name, anchor=result.trial.id, records=result.records),
            Mark(signed(result.to_reference), verdict=result.verdict, data=_data(result)),
            *facts.certainty(result.to_reference),
            signed(result.to_unpruned),
            *facts.certainty(result.to_unpruned),
            str(next((pair.n for pair in (result.to_reference, result.to_unpruned) if pair), 0)),
        ]
        for budget in methods.budgets
        for result in methods.at(budget)
    ]
    header = ["Budget", "Method", "To fastv ± SE", "95 % interval", "p", "Adjusted p"]
    header += ["To unpruned ± SE", "95 % interval, unpruned", "p, unpruned", "Adjusted p, unpruned", "Pairs"]
    title = f"{methods.title}: paired differences"
    return Grid.of(title, f"{methods.slug}-differences", header, rows, stated(methods.family()))


def costs(methods: Methods) -> Grid:
    """Stages and costs of every method at every budget; a row for each machine on which it was measured."""
    whole = methods.unpruned
    rows = [_cost(MISSING, UNPRUNED, [whole], whole)] if whole else []
    rows += [
        _cost(result.budget, result.name, group, whole)
        for budget in methods.budgets
        for result in methods.at(budget)
        for group in by_machine(result.trials or [result.trial])
    ]
    header = ["Budget", "Method", "Stages", "Processed", "As reported", *COST_HEADER]
    return Grid.of(f"{methods.title}: costs", f"{methods.slug}-costs", header, rows, f"{_COLUMNS} {COST_CAPTION}")


_COLUMNS = (
    "Stages: layer:tokens left before it. Processed: visual tokens per layer on average; as reported: by the method's"
    " own way of counting, where it differs; only processed averages are compared. FLOPs share: planned prefill of"
    " visual and text tokens against the unpruned model."
)


def _cost(budget: str, name: str, group: Sequence[Trial], unpruned: Trial | None) -> list[str | Mark]:
    trial = group[-1]
    flops = cost_of(trial).flops_total
    whole = cost_of(unpruned).flops_total if unpruned else None
    stages = [f"{stage.layer}:{stage.keep}" for stage in trial.record.stages or ()]
    return [
        budget,
        Mark(name, anchor=trial.id, records=tuple(one.id for one in group)),
        " ".join(stages) or MISSING,
        number(trial.processed, 1),
        number(trial.record.budget.reported, 1),
        *cost_marks(group, flops / whole if flops and whole else None),
    ]


def kept_tokens(methods: Methods) -> Grid | None:
    """How well the kept tokens cover the boxes of a question, and how different they are; None without such figures."""
    rows: list[list[str | Mark]] = []
    for budget in methods.budgets:
        for result in methods.at(budget):
            found = result.trial.record.overlap or Overlap()
            figures = [found.recall, found.precision, found.lift, result.trial.record.diversity]
            if any(figure is not None for figure in figures):
                rows.append(
                    [budget, Mark(result.name, anchor=result.trial.id, records=result.records), *map(number, figures)]
                )
    if not rows:
        return None
    caption = (
        "Places that are kept after the last stage, merged tokens at the place where they stand, against the tokens of"
        " the boxes a question is about. Lift: recall over that of random keeping. Diversity: 1 - mean pairwise cosine."
    )
    header = ["Budget", "Method", "Recall", "Precision", "Lift", "Diversity"]
    return Grid.of(f"{methods.title}: kept tokens", f"{methods.slug}-kept", header, rows, caption)


def refusals(compared: Sequence[Methods]) -> Grid | None:
    """Which method could not be run at which budget, and why; a reason that several benchmarks share stands once."""
    rows = list(dict.fromkeys((*key, reason) for one in compared for key, reason in one.refused.items()))
    if not rows:
        return None
    return Grid.of("Methods that were not run", "methods-not-run", ["Method", "Budget", "Why"], rows)


@attrs.frozen
class MeanShare:
    """A method's score in per cent of the unpruned model's, the mean over benchmarks, with its error.

    ``prefill``: its prefill time as a share of the unpruned model's, the median over benchmarks.
    """

    name: str
    budget: str
    value: float
    se: float
    prefill: float | None


def shares(compared: Sequence[Methods]) -> list[MeanShare]:
    """The mean share of every method and budget that was run on all benchmarks; none without the unpruned model.

    The error is that of the paired differences to the unpruned model, whose own score is taken as exact.
    """
    if not compared or any(one.unpruned is None or not one.unpruned.value for one in compared):
        return []
    found = []
    for key in dict.fromkeys(key for one in compared for key in one.results):
        if all(key in one.results and one.results[key].to_unpruned for one in compared):
            found.append(_share(*key, compared))
    return found


def _share(name: str, budget: str, compared: Sequence[Methods]) -> MeanShare:
    values, variances, times = [], [], []
    for one in compared:
        result, whole = one.results[name, budget], one.unpruned
        assert whole is not None
        assert result.to_unpruned is not None
        values.append(100 * result.trial.value / whole.value)
        variances.append((100 * result.to_unpruned.se / whole.value) ** 2)
        times.append(cost_of(result.trial).prefill_share)
    known = [time for time in times if time is not None]
    middle = statistics.median(known) if known else None
    return MeanShare(name, budget, sum(values) / len(values), math.sqrt(sum(variances)) / len(values), middle)


def overview(compared: Sequence[Methods]) -> Grid | None:
    """Scores in per cent of the unpruned model's, the mean over benchmarks; None for fewer than two benchmarks."""
    found = {(share.name, share.budget): share for share in shares(compared)}
    if len(compared) < 2 or not found:
        return None
    budgets = [budget for budget in compared[0].budgets if any(key[1] == budget for key in found)]
    tops = {budget: max(share.value for share in found.values() if share.budget == budget) for budget in budgets}
    rows: list[list[str | Mark]] = [
        [
            name,
            _stages(compared[0].of(name)[0].trial),
            *(mark for budget in budgets for mark in _share_marks(found.get((name, budget)), tops[budget], compared)),
        ]
        for name in order(list(found.values()))
    ]
    header = ["Method", "Before layer", *(text for budget in budgets for text in (budget, "prefill"))]
    names = ", ".join(one.benchmark for one in compared)
    caption = (
        f"Score in per cent of the unpruned model's, mean over {names}, ± SE of the paired differences; prefill time as"
        " a share of the unpruned model's, vision tower included. Bold: best of its column."
    )
    return Grid.of("Methods over all benchmarks", "methods-overview", header, rows, caption)


def _share_marks(share: MeanShare | None, top: float, compared: Sequence[Methods]) -> list[Mark]:
    """Score and prefill time of one method at one budget; ``top``: the best score there."""
    if share is None:
        return [Mark(MISSING), Mark(MISSING)]
    of = tuple(record for one in compared for record in one.results[share.name, share.budget].records)
    best = round(share.value, 1) == round(top, 1)
    return [
        Mark(f"{share.value:.1f} ± {share.se:.1f}", bold=best, records=of),
        Mark(number(share.prefill, 2), records=of),
    ]


def order(found: Sequence[MeanShare]) -> list[str]:
    """The methods in the order of the tables."""
    return ranked((share.name, share.value) for share in found)
