"""Trials without head selection: the unpruned model, rules that read no attention, results of other harnesses."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from headwise_lab.report.correcting import with_corrected
from headwise_lab.report.grouping import grouped
from headwise_lab.report.matching import ReferenceCurve, against
from headwise_lab.report.page import facts
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.report.pooling import Questions
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import Difference, paired
from headwise_lab.stats.rule import stated

_LOWER = ("perplexity", "bits_per_byte", "loss", "nll", "ppl", "error", "wer", "cer", "ter")
"""Words in the names of metrics of which lower values are better."""


@attrs.frozen(eq=False)
class RuleResult:
    """One rule at one budget: its trials, which differ only in their seeds, pooled into ``trial``; and differences."""

    trial: Trial
    trials: tuple[Trial, ...]
    to_heads: Difference | None = None
    to_unpruned: Difference | None = None


def references(trials: Sequence[Trial]) -> Grid | None:
    """The table of all rules without head selection, compared with all heads at the same budget and with no pruning."""
    found = judged(trials)
    if not found:
        return None
    several = len({one.trial.model for one in found}) > 1
    rows = [_row(one, show_model=several) for one in found]
    shown = ("± SE", "95 % interval", "p", "adjusted p")
    header = ["Benchmark", *(["Model"] * several), "Rule", "Budget", "Score ± SE"]
    header += [f"{what}, {name}" for what in ("To all heads", "To unpruned") for name in shown]
    pairs = [pair for one in found for pair in (one.to_heads, one.to_unpruned)]
    lower = {one.trial.record.metric.name for one in found if lower_is_better(one.trial)}
    which = f"Lower is better: {', '.join(sorted(map(str, lower)))}." if lower else ""
    caption = " ".join(filter(None, (which, stated(pairs))))
    return Grid.of("Without head selection", "references", header, rows, caption)


def _row(one: RuleResult, *, show_model: bool) -> list[str | Mark]:
    trial, digits = one.trial, 4 if lower_is_better(one.trial) else 2
    return [
        trial.benchmark,
        *([trial.model] * show_model),
        rule(trial),
        trial.budget,
        _score(one, digits),
        *_difference(one.to_heads, digits),
        *_difference(one.to_unpruned, digits),
    ]


def judged(trials: Sequence[Trial]) -> list[RuleResult]:
    """Every rule at every budget, its seeds pooled, with paired differences that are corrected over all of them."""
    questions = Questions.of(trials)
    groups = grouped(
        (trial for trial in trials if not trial.selects_heads),
        lambda trial: (questions.table(trial), trial.strategies, trial.budget, trial.setting),
    )
    found = [RuleResult(questions.pooled(group), tuple(group)) for group in groups.values()]
    found.sort(key=lambda one: (one.trial.benchmark, -one.trial.processed, one.trial.text("token_pruning")))
    compared = [
        attrs.evolve(
            one,
            to_heads=_to_heads(one.trial, trials, questions),
            to_unpruned=_to_unpruned(one.trial, [other.trial for other in found], questions),
        )
        for one in found
    ]
    return with_corrected(compared, "to_heads", "to_unpruned")


def _to_heads(trial: Trial, trials: Sequence[Trial], questions: Questions) -> Difference | None:
    """Difference to plain FastV at the same budget; None for the unpruned model, whose budget is another."""
    if trial.keeps_everything:
        return None
    same = [other for other in trials if questions.table(other) == questions.table(trial)]
    baselines = [
        other
        for other in same
        if other.is_baseline
        and other.selects_heads
        and other.name("query_selection") == "last_token"
        and other.setting == trial.setting
    ]
    if len({other.text("token_pruning") for other in baselines}) != 1:
        return None
    full = [other for other in same if other.keeps_everything]
    by_budget = grouped(baselines, lambda other: other.budget).values()
    curve = ReferenceCurve.of(list(map(questions.pooled, by_budget)), questions.pooled(full) if full else None)
    return against(trial, curve.at(trial))


def _to_unpruned(trial: Trial, found: Sequence[Trial], questions: Questions) -> Difference | None:
    """Difference to the whole model with its whole cache on the same questions."""
    full = [other for other in found if other.keeps_everything and questions.table(other) == questions.table(trial)]
    if trial.keeps_everything or len(full) != 1 or not (trial.units and full[0].units):
        return None
    return paired(trial.units, full[0].units, lower_is_better=lower_is_better(trial))


def lower_is_better(trial: Trial) -> bool:
    """Whether lower scores are better, judged by the name of the metric."""
    words = (trial.record.metric.name or "").lower().replace("/", "_").split("_")
    name = "_".join(words)
    return any(word in words or (len(word) > 4 and word in name) for word in _LOWER)


def rule(trial: Trial) -> str:
    """The rule that dropped tokens or entries: ``unpruned``, ``uniform:layer=2``; with harness and task if any."""
    record = trial.record
    source = record.source
    texts = [trial.text(hook) for hook in ("token_pruning", "kv_eviction") if trial.text(hook) != "none"]
    whole = "full cache" if "kv_eviction" in record.strategies else "unpruned"
    what = record.recipe or " ".join(texts) or whole
    if source is None or not source.harness:
        return " ".join(texts) or whole
    return f"{source.harness} {source.task}: {what}"


def _score(one: RuleResult, digits: int) -> Mark:
    trial = one.trial
    error = "-" if trial.se is None else f"{trial.se:.{digits}f}"
    lines = [
        f"n={trial.record.n}",
        *facts.sentences(one.to_heads, "all heads", digits),
        *facts.sentences(one.to_unpruned, "the unpruned model", digits),
        *dict.fromkeys(other.strategies for other in one.trials),
        *dict.fromkeys(other.record.command or "" for other in one.trials),
    ]
    return Mark(
        f"{trial.value:.{digits}f} ± {error}",
        hint="\n".join(filter(None, lines)),
        anchor=trial.id,
        records=tuple(other.id for other in one.trials),
        data=facts.figure(one.trials, trial, method=rule(trial))
        | facts.difference(one.to_heads, "all heads")
        | facts.difference(one.to_unpruned, "unpruned", "to_unpruned_"),
    )


def _difference(found: Difference | None, digits: int) -> list[str | Mark]:
    return [Mark(facts.signed(found, digits), verdict=facts.sign_of(found)), *facts.certainty(found, digits)]
