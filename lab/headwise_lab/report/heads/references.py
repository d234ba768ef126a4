"""What belongs to no study of heads: the unpruned model, rules that read no attention, results of other harnesses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from headwise_lab.report.matching import ReferenceCurve
from headwise_lab.report.page import facts
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.report.pooling import Questions
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import Difference, paired
from headwise_lab.stats.rule import corrected, stated

_LOWER = ("perplexity", "bits_per_byte", "loss", "nll", "ppl", "error", "wer", "cer", "ter")
"""Words in the names of metrics that are better where they are lower."""


@attrs.frozen(eq=False)
class RuleResult:
    """One row: all trials of one rule at one budget, which differ in their seeds alone, and what they are worth."""

    trial: Trial
    trials: tuple[Trial, ...]
    to_heads: Difference | None = None
    to_unpruned: Difference | None = None


def references(trials: Sequence[Trial]) -> Grid | None:
    """Everything that reads no attention, held against all heads at the same budget and against the unpruned model."""
    found = judged(trials)
    if not found:
        return None
    several = len({one.trial.model for one in found}) > 1
    rows: list[list[str | Mark]] = []
    for one in found:
        digits = 4 if lower_is_better(one.trial) else 2
        rows.append([
            one.trial.benchmark,
            *([one.trial.model] * several),
            rule(one.trial),
            one.trial.budget,
            _score(one, digits),
            *_difference(one.to_heads, digits),
            *_difference(one.to_unpruned, digits),
        ])  # fmt: skip
    shown = ("± SE", "95 % interval", "p", "adjusted p")
    header = ["Benchmark", *(["Model"] * several), "Rule", "Budget", "Score ± SE"]
    header += [f"{what}, {name}" for what in ("To all heads", "To unpruned") for name in shown]
    pairs = [pair for one in found for pair in (one.to_heads, one.to_unpruned)]
    lower = {one.trial.record.metric.name for one in found if lower_is_better(one.trial)}
    told = f"Lower is better: {', '.join(sorted(map(str, lower)))}." if lower else ""
    caption = " ".join(filter(None, (told, stated(pairs))))
    return Grid.of("Without head selection", "references", header, rows, caption)


def judged(trials: Sequence[Trial]) -> list[RuleResult]:
    """Every rule at every budget, its seeds as one, with its paired differences corrected over all of them."""
    questions = Questions.of(trials)
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        if not trial.selects_heads:
            key = (*_table(trial, questions), trial.strategies, trial.budget, trial.setting)
            groups.setdefault(key, []).append(trial)
    found = [RuleResult(questions.pooled(group), tuple(group)) for group in groups.values()]
    found.sort(key=lambda one: (one.trial.benchmark, -one.trial.processed, one.trial.text("token_pruning")))
    pairs = [pair for one in found for pair in (_to_heads(one, trials, questions), _to_unpruned(one, found, questions))]
    adjusted = iter(corrected(pairs))
    return [attrs.evolve(one, to_heads=next(adjusted), to_unpruned=next(adjusted)) for one in found]


def _table(trial: Trial, questions: Questions) -> tuple[str, str, int]:
    return trial.benchmark, trial.model, questions.number(trial)


def _to_heads(one: RuleResult, trials: Sequence[Trial], questions: Questions) -> Difference | None:
    """Against plain FastV at the same budget; nothing for the unpruned model, whose budget is another."""
    if unpruned(one.trial) or not one.trial.units:
        return None
    baselines: dict[str, list[Trial]] = {}
    for other in trials:
        fits = other.selects_heads and other.is_baseline and other.name("query_selection") == "last_token"
        same = _table(other, questions) == _table(one.trial, questions) and other.setting == one.trial.setting
        if fits and same:
            baselines.setdefault(f"{other.text('token_pruning')} {other.budget}", []).append(other)
    prunings = {group[0].text("token_pruning") for group in baselines.values()}
    if len(prunings) != 1:
        return None
    full = [other for other in trials if unpruned(other) and _table(other, questions) == _table(one.trial, questions)]
    curve = ReferenceCurve.of(list(map(questions.pooled, baselines.values())), questions.pooled(full) if full else None)
    found = curve.at(one.trial)
    if found is None:
        return None
    return paired(one.trial.units, found.units, allowance=found.allowance, between=found.between)


def _to_unpruned(one: RuleResult, found: Sequence[RuleResult], questions: Questions) -> Difference | None:
    """Against the whole model with its whole cache, asked the same."""
    full = [
        other.trial
        for other in found
        if unpruned(other.trial) and _table(other.trial, questions) == _table(one.trial, questions)
    ]
    if unpruned(one.trial) or len(full) != 1 or not (one.trial.units and full[0].units):
        return None
    return paired(one.trial.units, full[0].units, lower_is_better=lower_is_better(one.trial))


def unpruned(trial: Trial) -> bool:
    """Whether nothing was thrown away, neither visual tokens nor cache entries."""
    return trial.name("token_pruning") == trial.name("kv_eviction") == "none"


def lower_is_better(trial: Trial) -> bool:
    """Whether the headline is a loss, by its name."""
    words = (trial.record.metric.name or "").lower().replace("/", "_").split("_")
    name = "_".join(words)
    return any(word in words or (len(word) > 4 and word in name) for word in _LOWER)


def rule(trial: Trial) -> str:
    """What threw away, in words: ``unpruned``, ``uniform:layer=2``; of a harness with its name and the task's."""
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
    verdict = "same" if found is not None and found.verdict == "no difference" else found.verdict if found else ""
    return [
        Mark(facts.signed(found, digits), verdict=verdict),
        *facts.certainty(found, digits),
    ]
