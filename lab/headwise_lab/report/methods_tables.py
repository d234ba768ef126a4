"""Tables of a comparison of methods: scores, costs, kept tokens, refusals, and the mean over benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from headwise_lab.report.grid import Grid, Mark
from headwise_lab.report.methods import CONTROLS, REFERENCE, Methods, Result
from headwise_lab.report.tables import MISSING, number
from headwise_lab.report.trials import Trial
from headwise_lab.report.verdicts import signed

UNPRUNED = "unpruned"


def scores(methods: Methods) -> Grid:
    """Methods down, budgets across, with the paired difference to the reference under each figure."""
    rows: list[list[str | Mark]] = []
    if methods.unpruned is not None:
        trial = methods.unpruned
        score = Mark(_score(trial, methods.digits), hint=_hint(trial), anchor=trial.id)
        rows.append([UNPRUNED, MISSING, *[score] * len(methods.budgets)])
    for name in methods.names:
        marks = [_mark(methods.results.get((name, budget)), methods.digits) for budget in methods.budgets]
        rows.append([name, _stages(methods.of(name)[0].trial), *marks])
    caption = (
        f"{methods.metric} ± SE, in the benchmark's scale; small print: paired difference to fastv at the same budget."
        " Budgets are visual tokens processed per layer on average, or kept. Bold: best of its column."
    )
    header = ["Method", "Before layer", *methods.budgets]
    return Grid.of(f"{methods.title}: scores", methods.slug, header, rows, caption)


def _mark(result: Result | None, digits: int) -> Mark:
    if result is None:
        return Mark(MISSING)
    note = signed(result.to_reference, digits) if result.to_reference else ""
    return Mark(
        _score(result.trial, digits),
        bold=result.best,
        verdict=result.verdict,
        note=note,
        hint=_hint(result.trial),
        anchor=result.trial.id,
    )


def _score(trial: Trial, digits: int) -> str:
    return f"{number(trial.value, digits)} ± {number(trial.se, digits)}"


def _hint(trial: Trial) -> str:
    return "\n".join(filter(None, [f"n={trial.record['n']}", trial.strategies, str(trial.record.get("command") or "")]))


def _stages(trial: Trial) -> str:
    """The layers a method prunes before: ``2`` or ``1, 3, 6``."""
    return ", ".join(str(stage.get("layer")) for stage in trial.record.get("stages") or ()) or MISSING


def differences(methods: Methods) -> Grid:
    """Paired differences of every result to the reference and to the unpruned model."""
    rows: list[list[str | Mark]] = [
        [
            result.budget,
            name,
            Mark(signed(result.to_reference), verdict=result.verdict),
            number(result.adjusted, 4),
            signed(result.to_unpruned),
        ]
        for budget in methods.budgets
        for name in methods.names
        for result in [methods.results.get((name, budget))]
        if result is not None
    ]
    header = ["Budget", "Method", "To fastv ± SE", "Holm-adjusted p", "To unpruned ± SE"]
    return Grid.of(f"{methods.title}: paired differences", f"{methods.slug}-differences", header, rows)


def costs(methods: Methods) -> Grid:
    """What every method made of every budget, and what that took."""
    unpruned = [] if methods.unpruned is None else [_cost(MISSING, UNPRUNED, methods.unpruned, methods.unpruned)]
    rows = [
        _cost(result.budget, result.name, result.trial, methods.unpruned)
        for budget in methods.budgets
        for result in methods.at(budget)
    ]
    header = ["Budget", "Method", "Stages", "Processed", "As reported", "FLOPs share", "KV bytes", "Prefill ms"]
    header += ["Prefill share", "Decode tokens/s"]
    caption = (
        "Stages: layer:tokens left before it. Processed: visual tokens per layer on average; as reported: by the"
        " method's own way of counting, where it differs. FLOPs share: prefill of visual and text tokens against the"
        " unpruned model. Prefill ms: one question, vision tower included. Prefill share: against the unpruned model,"
        " timed in turns on the same batches; times are medians."
    )
    return Grid.of(f"{methods.title}: costs", f"{methods.slug}-costs", header, unpruned + rows, caption)


def _cost(budget: str, name: str, trial: Trial, unpruned: Trial | None) -> list[str | Mark]:
    flops = trial.number("cost", "flops_total")
    whole = unpruned.number("cost", "flops_total") if unpruned else None
    stages = [f"{stage.get('layer')}:{stage.get('keep')}" for stage in trial.record.get("stages") or ()]
    return [
        budget,
        name,
        " ".join(stages) or MISSING,
        number(trial.processed, 1),
        number(trial.number("budget", "reported"), 1),
        number(flops / whole, 3) if flops and whole else MISSING,
        number(trial.number("cost", "kv_bytes"), 0),
        number(trial.number("cost", "prefill_ms")),
        number(trial.number("cost", "prefill_share"), 3),
        number(trial.number("cost", "decode_tokens_per_s"), 1),
    ]


def kept_tokens(methods: Methods) -> Grid | None:
    """How well the tokens that stay cover what is asked about, and how different they are; None without figures."""
    rows = []
    for budget in methods.budgets:
        for result in methods.at(budget):
            figures = [result.trial.number("overlap", key) for key in ("recall", "precision", "lift")]
            diversity = result.trial.record.get("diversity")
            figures.append(float(diversity) if isinstance(diversity, int | float) else None)
            if any(figure is not None for figure in figures):
                rows.append([budget, result.name, *map(number, figures)])
    if not rows:
        return None
    caption = (
        "Places that are kept after the last stage, merged tokens at the place where they stand, against the tokens of"
        " the boxes a question is about. Lift: recall over that of random keeping. Diversity: 1 - mean pairwise cosine."
    )
    header = ["Budget", "Method", "Recall", "Precision", "Lift", "Diversity"]
    return Grid.of(f"{methods.title}: kept tokens", f"{methods.slug}-kept", header, rows, caption)


def refusals(compared: Sequence[Methods]) -> Grid | None:
    """Which method could not be run at which budget, and why; the same on several benchmarks is told once."""
    told = {(name, budget, reason): None for one in compared for (name, budget), reason in one.refused.items()}
    if not told:
        return None
    rows = [list(key) for key in told]
    return Grid.of("Methods that were not run", "methods-not-run", ["Method", "Budget", "Why"], rows)


@attrs.frozen
class Share:
    """Mean over benchmarks of a method's score as a share of the unpruned model's, in per cent, with its error.

    ``prefill``: prefill time as a share of the unpruned model's, the median over benchmarks.
    """

    name: str
    budget: str
    value: float
    se: float
    prefill: float | None


def shares(compared: Sequence[Methods]) -> list[Share]:
    """The mean share of every method and budget that was run on all benchmarks; nothing without an unpruned model.

    The error is that of the paired differences to the unpruned model, whose own score counts as known.
    """
    if not compared or any(one.unpruned is None or not one.unpruned.value for one in compared):
        return []
    found = []
    for key in dict.fromkeys(key for one in compared for key in one.results):
        if all(key in one.results and one.results[key].to_unpruned for one in compared):
            found.append(_share(*key, compared))
    return found


def _share(name: str, budget: str, compared: Sequence[Methods]) -> Share:
    values, variances, times = [], [], []
    for one in compared:
        result, whole = one.results[name, budget], one.unpruned
        assert whole is not None
        assert result.to_unpruned is not None
        values.append(100 * result.trial.value / whole.value)
        variances.append((100 * result.to_unpruned.se / whole.value) ** 2)
        times.append(result.trial.number("cost", "prefill_share"))
    known = sorted(time for time in times if time is not None)
    middle = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2 if known else None
    return Share(name, budget, sum(values) / len(values), math.sqrt(sum(variances)) / len(values), middle)


def overview(compared: Sequence[Methods]) -> Grid | None:
    """The mean share of the unpruned model's scores, methods down and budgets across; None for fewer than 2 tables."""
    found = {(share.name, share.budget): share for share in shares(compared)}
    if len(compared) < 2 or not found:
        return None
    budgets = [budget for budget in compared[0].budgets if any(key[1] == budget for key in found)]
    tops = {budget: max(share.value for share in found.values() if share.budget == budget) for budget in budgets}
    rows = []
    for name in order(list(found.values())):
        row: list[str | Mark] = [name, _stages(compared[0].of(name)[0].trial)]
        for budget in budgets:
            share = found.get((name, budget))
            if share is None:
                row += [MISSING, MISSING]
            else:
                top = round(share.value, 1) == round(tops[budget], 1)
                row += [Mark(f"{share.value:.1f} ± {share.se:.1f}", bold=top), number(share.prefill, 2)]
        rows.append(row)
    header = ["Method", "Before layer", *(text for budget in budgets for text in (budget, "prefill"))]
    names = ", ".join(one.benchmark for one in compared)
    caption = (
        f"Score in per cent of the unpruned model's, mean over {names}, ± SE of the paired differences; prefill time as"
        " a share of the unpruned model's, vision tower included. Bold: best of its column."
    )
    return Grid.of("Methods over all benchmarks", "methods-overview", header, rows, caption)


def order(found: Sequence[Share]) -> list[str]:
    """Names as in the tables: the reference, the best on average, controls."""
    values: dict[str, list[float]] = {}
    for share in found:
        values.setdefault(share.name, []).append(share.value)

    def rank(name: str) -> tuple[bool, bool, int, float]:
        return name != REFERENCE, name in CONTROLS, -len(values[name]), -sum(values[name]) / len(values[name])

    return sorted(values, key=rank)
