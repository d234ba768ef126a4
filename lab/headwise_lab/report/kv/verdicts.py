"""What a study of KV eviction shows, in plain sentences, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headwise_lab.report.kv.baseline import same_budget
from headwise_lab.report.kv.judgement import (
    BETTER,
    WORSE,
    Judged,
    Judgement,
    at_equal_budget,
    mean_over,
    per_cent,
    per_cent_error,
)
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, SCORED, TWIN, UNIFORM, WINDOW, Run
from headwise_lab.stats.differences import CLEAR, Difference, mean_and_error, paired

MOST_NAMED = 4
"""Runs a sentence names before it counts the rest."""


def sentences(judged: Judged) -> list[str]:
    """The verdict, most important first."""
    told = [
        *_head_aware(judged),
        *_chance(judged),
        *_sinks(judged),
        *_inverse(judged),
        *_thresholds(judged),
        *_scored(judged),
        *_eviction(judged),
        *_interpolation(judged),
        *refusals(judged),
    ]
    return told or ["There is nothing to compare."]


def change(difference: Difference, digits: int = 2) -> str:
    """A difference of losses as per cent of perplexity with its paired standard error: ``+1.20 ± 0.35 %``."""
    return f"{per_cent(difference.value):+.{digits}f} ± {per_cent_error(difference):.{digits}f} %"


def _head_aware(judged: Judged) -> list[str]:
    """Against the uniform budget at each run's own context."""
    runs = [one for one in judged.of(HEAD_AWARE) if one.verdict]
    if not runs:
        return []
    return [_against_uniform("Head-aware windows", "head-aware run", runs)]


def _scored(judged: Judged) -> list[str]:
    runs = [one for one in judged.of(SCORED) if one.verdict]
    return [_against_uniform("Score-based eviction", "score-based run", runs)] if runs else []


def _against_uniform(what: str, one: str, runs: Sequence[Judgement]) -> str:
    better, worse = _with(runs, BETTER), _with(runs, WORSE)
    count = f"of {len(runs)} {one}{'s' if len(runs) != 1 else ''}"
    if not better:
        head = f"{what}: no {one} beats StreamingLLM at an equal effective context"
        tail = f"{count}, {_are(worse)} worse and {len(runs) - len(worse)} indistinguishable"
    else:
        beat = "beats" if len(better) == 1 else "beat"
        head = f"{what}: {count}, {len(better)} {beat} StreamingLLM at an equal effective context ({_named(better)})"
        tail = f"{_are(worse)} worse and {len(runs) - len(better) - len(worse)} indistinguishable"
    harm = f"; worst: {_named(worse[::-1], 2)}" if worse else ""
    return f"{head}; {tail}, beyond the interpolation error and after Holm's correction{harm}."


def _are(runs: Sequence[Judgement]) -> str:
    return f"{len(runs)} {'is' if len(runs) == 1 else 'are'}"


def _with(runs: Sequence[Judgement], verdict: str) -> list[Judgement]:
    """Runs with a verdict, the lowest difference first."""
    return sorted((one for one in runs if one.verdict == verdict), key=_value)


def _value(one: Judgement) -> float:
    return one.delta.value if one.delta else math.inf


def _named(runs: Sequence[Judgement], most: int = MOST_NAMED) -> str:
    told = [f"{one.run.name} {change(one.delta)}" for one in runs if one.delta]
    return "; ".join(told[:most]) + (f"; and {len(told) - most} more" if len(told) > most else "")


def _chance(judged: Judged) -> list[str]:
    """Against the same windows dealt at random to the heads."""
    runs = [one for one in judged.of(HEAD_AWARE) if one.chance]
    if not runs:
        missing = [one for one in judged.of(HEAD_AWARE) if one.verdict]
        return [_NO_CONTROL] if missing else []
    better = [one for one in runs if one.against_chance == BETTER]
    worse = [one for one in runs if one.against_chance == WORSE]
    both = [one for one in better if one.verdict == BETTER]
    told = (
        f"Knowing the heads: of {len(runs)} head-aware run{'s' if len(runs) > 1 else ''}, {_are(better)} better than"
        f" the same windows dealt at random, {_are(worse)} worse and {len(runs) - len(better) - len(worse)}"
        f" indistinguishable"
    )
    mean = _mean_chance(runs)
    told += f" (informed minus permuted {change(mean)} on average)." if mean else "."
    if both:
        told += f" Better than the uniform budget and than chance: {_named(both)}."
    elif better:
        told += (
            " None of these is better than the uniform budget as well: the windows are better placed than by chance,"
        )
        told += " and still no better than equal ones."
    return [told]


_NO_CONTROL = (
    "Knowing the heads: no windows permuted at random over heads were run at the same budget, so nothing says that a"
    " head-aware run owes anything to its head classes."
)


def _mean_chance(runs: Sequence[Judgement]) -> Difference | None:
    """Mean over the runs; the errors of runs on one text are not independent, so the largest stands for all."""
    found = [one.chance.difference for one in runs if one.chance]
    if not found:
        return None
    mean, _ = mean_and_error([difference.value for difference in found])
    return Difference(mean, max(difference.se for difference in found), found[0].n)


def _sinks(judged: Judged) -> list[str]:
    """Window-only against StreamingLLM at the same budget."""
    pairs = [
        (one.run, uniform)
        for one in judged.of(WINDOW)
        for uniform in judged.curve.runs
        if one.run.nll and same_budget(one.run, uniform)
    ]
    told = [_sink_pair(window, uniform) for window, uniform in pairs]
    return [f"Sinks: windows without them against StreamingLLM of the same budget: {'; '.join(told)}."] if told else []


def _sink_pair(window: Run, uniform: Run) -> str:
    found = at_equal_budget(window, uniform)
    doubt = "" if found.clear else ", no difference"
    return f"{window.context:.0f} entries {change(found, 1)} ({window.ppl:.2f} against {uniform.ppl:.2f}{doubt})"


def orientation(run: Run) -> str:
    """``inverse`` where positional heads see further than gathering ones, ``conventional`` the other way round."""
    positional, gathering = run.windows.get("positional"), run.windows.get("gathering")
    if positional is None or gathering is None or positional == gathering:
        return ""
    return "inverse" if positional > gathering else "conventional"


def _clearly(one: Judgement, judged: Judged) -> str:
    """The orientation of a run, unless it goes under a second name of the other one: then a class has no heads."""
    names = {orientation(other.run) for other in judged.repeats if other.same_as is one.run} | {orientation(one.run)}
    return names.pop() if len(names) == 1 else ""


def _inverse(judged: Judged) -> list[str]:
    groups = {
        kind: [one for one in judged.of(HEAD_AWARE) if _clearly(one, judged) == kind and one.deltas]
        for kind in ("inverse", "conventional")
    }
    if not all(groups.values()):
        return []
    means = {kind: mean_over([one.deltas for one in runs]) for kind, runs in groups.items()}
    told = [
        f"{kind} {_mean_of(means[kind])} ({len(runs)} run{'s' if len(runs) > 1 else ''})"
        for kind, runs in groups.items()
    ]
    apart = paired(means["inverse"], means["conventional"])
    if apart is None:
        return []
    word = "a tie" if not apart.clear else ("inverse is better" if apart.value < 0 else "conventional is better")
    best = min(groups["inverse"], key=_value)
    return [
        f"Inverse windows (positional heads see further): against the uniform budget at each run's own context,"
        f" {' and '.join(told)}; inverse minus conventional {change(apart)}: {word}. The best inverse run,"
        f" {best.run.name}, is {best.verdict} ({_named([best])})."
    ]


def _mean_of(deltas: dict[str, float]) -> str:
    mean, error = mean_and_error(list(deltas.values()))
    return change(Difference(mean, 0.0 if math.isnan(error) else error, len(deltas)))


def thresholds(judged: Judged) -> dict[int, list[tuple[float, Judgement]]]:
    """Base window -> (confidence threshold, run), ascending, of the runs that give sure heads a window of their own."""
    found: dict[int, list[tuple[float, Judgement]]] = {}
    for one in judged.every(HEAD_AWARE):
        options = one.run.strategy.options
        if one.run.strategy.name == "confidence_windows" and "base" in options and "threshold" in options:
            found.setdefault(int(options["base"]), []).append((float(options["threshold"]), one))
    return {base: sorted(runs, key=lambda pair: pair[0]) for base, runs in sorted(found.items())}


def _thresholds(judged: Judged) -> list[str]:
    told = []
    for base, runs in thresholds(judged).items():
        known = [(threshold, one) for threshold, one in runs if one.delta]
        if len(known) < 2:
            continue
        (low, first), (high, last) = known[0], known[-1]
        better = [f"{threshold:g}" for threshold, one in known if one.verdict == BETTER]
        word = f"better at {', '.join(better)}" if better else "at no threshold better"
        told.append(
            f"base {base}: {_percent(first)} at {low:g} to {_percent(last)} at {high:g}, {word} than the uniform budget"
        )
    return [f"Confidence threshold: {'; '.join(told)}."] if told else []


def _percent(one: Judgement) -> str:
    return change(one.delta) if one.delta else "-"


def _eviction(judged: Judged) -> list[str]:
    """What eviction costs at all: the largest uniform run against the full cache."""
    full = judged.first(FULL)
    if full is None:
        return ["The full cache was not run, so nothing says what eviction costs at all."] if judged.curve.runs else []
    costs = [one for one in judged.of(UNIFORM) if one.full]
    told = [f"{one.run.context:.0f} entries {change(one.full, 1)}" for one in costs if one.full]
    return (
        [f"Eviction as such: against the full cache (perplexity {full.run.ppl:.2f}), {'; '.join(told)}."]
        if told
        else []
    )


def _interpolation(judged: Judged) -> list[str]:
    """How far the baseline can be trusted."""
    missed = judged.curve.left_out()
    twins = [one for one in judged.of(TWIN) if one.delta]
    told = []
    if missed:
        errors = "; ".join(f"{name} {value:+.2f} %" for name, value in missed.items())
        told.append(
            f"Interpolation: left out and interpolated from its neighbours, a uniform run is missed by {errors} (above"
            " 0: the baseline is too easy to beat); at a run's own context the error is smaller by its distance to the"
            " nearest uniform runs."
        )
    if twins:
        told.append(
            f"{_named(twins)}: these are StreamingLLM with {_listed([f'{one.run.context:.0f}' for one in twins])}"
            " entries, so their differences are interpolation error and nothing else."
        )
    return told


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


def refusals(judged: Judged) -> list[str]:
    """Comparisons that are not made or not counted, and why."""
    refused = [one for one in judged.of(HEAD_AWARE, SCORED, TWIN) if one.refused]
    repeats = [one for one in judged.repeats if one.same_as is not None]
    told = []
    if repeats:
        named = "; ".join(f"{one.run.name} = {one.same_as.name}" for one in repeats[:MOST_NAMED] if one.same_as)
        more = f"; and {len(repeats) - MOST_NAMED} more" if len(repeats) > MOST_NAMED else ""
        told.append(f"Under two names, because some classes have no heads here, and counted once: {named}{more}.")
    told += [f"{one.run.name} is not compared: {one.refused}." for one in refused[:MOST_NAMED]]
    if len(refused) > MOST_NAMED:
        told.append(f"{len(refused) - MOST_NAMED} more runs are not compared, for the same reasons.")
    return told


METHOD = (
    "KV runs: effective context is the number of entries that the last token sees, its own included, averaged over"
    " layers and KV heads. Runs of different contexts are never compared with each other. Each is held against the"
    " uniform budget at its own context: the losses of the two neighbouring StreamingLLM runs, interpolated token by"
    " token in log2(context), none outside their range. Differences are paired over tokens and given as per cent of"
    f" perplexity with their standard error (below 0 is better); better or worse means {CLEAR:g} standard errors beyond"
    " the interpolation error, after Holm's correction over all judged runs. The interpolation error is that of a"
    " curve as bent as leaving out the neighbouring uniform runs shows it, or what a uniform twin between the same two"
    " runs scores, whichever is larger. Permuted: the same windows dealt at random to the heads, mean over"
    " permutations, the spread over them included in the standard error. A run that sees the same mean number of"
    " entries by unequal windows fills them later than a uniform one; on texts only a few windows long that counts"
    " against it."
)
"""How to read the KV part of a report, in one paragraph."""
