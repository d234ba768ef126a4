"""The findings of a KV eviction study in sentences, and what it cannot show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headwise_lab.report.kv.judgement import (
    JudgedRun,
    JudgedSetting,
    mean_over,
    oriented,
    per_cent,
    per_cent_error,
)
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, SCORED, TWIN, UNIFORM, WINDOW
from headwise_lab.stats.differences import BETTER, SAME, WORSE, Difference, paired_losses
from headwise_lab.stats.rule import rule

MOST_NAMED = 4
"""A sentence names this many runs and counts the rest."""


def sentences(judged: JudgedSetting) -> list[str]:
    """All findings, the most important first."""
    found = [
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
    return found or ["There is nothing to compare."]


def change(difference: Difference, digits: int = 2) -> str:
    """A difference of losses as a change of perplexity in per cent, with its standard error: ``+1.20 ± 0.35 %``."""
    return f"{per_cent(difference.value):+.{digits}f} ± {per_cent_error(difference):.{digits}f} %"


def _head_aware(judged: JudgedSetting) -> list[str]:
    """Head-aware runs compared with the uniform budget at the context of each."""
    return _judged_or_why_not("Head-aware windows", "head-aware run", judged.of(HEAD_AWARE))


def _scored(judged: JudgedSetting) -> list[str]:
    return _judged_or_why_not("Score-based eviction", "score-based run", judged.of(SCORED))


def _judged_or_why_not(what: str, one: str, runs: Sequence[JudgedRun]) -> list[str]:
    known = [run for run in runs if run.verdict]
    unknown = [run for run in runs if run.to_uniform and not run.verdict]
    told = [_against_uniform(what, one, known)] if known else []
    why = (
        f"{what}: {_named(unknown)}: not judged, because two uniform runs alone do not say how far off what is"
        " interpolated between them may be; a third uniform run does."
    )
    return [*told, why] if unknown else told


def _against_uniform(what: str, one: str, runs: Sequence[JudgedRun]) -> str:
    better, worse = _with(runs, BETTER), _with(runs, WORSE)
    count = f"of {len(runs)} {one}{'s' if len(runs) != 1 else ''}"
    if not better:
        head = f"{what}: no {one} beats StreamingLLM at an equal effective context"
        tail = f"{count}, {_are(worse)} worse and {len(runs) - len(worse)} without a difference"
    else:
        beat = "beats" if len(better) == 1 else "beat"
        head = f"{what}: {count}, {len(better)} {beat} StreamingLLM at an equal effective context ({_named(better)})"
        tail = f"{_are(worse)} worse and {len(runs) - len(better) - len(worse)} without a difference"
    harm = f"; worst: {_named(worse[::-1], 2)}" if worse else ""
    return f"{head}; {tail}, beyond the interpolation error and after Holm's correction{harm}."


def _are(runs: Sequence[JudgedRun]) -> str:
    return f"{len(runs)} {'is' if len(runs) == 1 else 'are'}"


def _with(runs: Sequence[JudgedRun], verdict: str) -> list[JudgedRun]:
    """The runs with a verdict, the lowest difference first."""
    return sorted((one for one in runs if one.verdict == verdict), key=_value)


def _value(one: JudgedRun) -> float:
    return one.to_uniform.value if one.to_uniform else math.inf


def _named(runs: Sequence[JudgedRun], most: int = MOST_NAMED) -> str:
    told = [f"{one.run.name} {change(one.to_uniform)}" for one in runs if one.to_uniform]
    return "; ".join(told[:most]) + (f"; and {len(told) - most} more" if len(told) > most else "")


def _chance(judged: JudgedSetting) -> list[str]:
    """Head-aware runs compared with the same windows shuffled over the heads."""
    runs = [one for one in judged.of(HEAD_AWARE) if one.against_permuted]
    if not runs:
        missing = [one for one in judged.of(HEAD_AWARE) if one.verdict]
        return [_ONE_CONTROL if any(one.controls for one in missing) else _NO_CONTROL] if missing else []
    better = [one for one in runs if one.against_permuted == BETTER]
    worse = [one for one in runs if one.against_permuted == WORSE]
    both = [one for one in better if one.verdict == BETTER]
    told = (
        f"Knowing the heads: of {len(runs)} head-aware run{'s' if len(runs) > 1 else ''}, {_are(better)} better than"
        f" the same windows shuffled over the heads, {_are(worse)} worse and {len(runs) - len(better) - len(worse)}"
        f" without a difference{_mean_to_permuted(runs)}."
    )
    if both:
        told += f" Better than the uniform budget and than chance: {_named(both)}."
    elif better:
        told += (
            " None of these is better than the uniform budget as well: the windows are better placed than by chance,"
        )
        told += " and still no better than equal ones."
    return [told + _how_far_off(runs)]


def _how_far_off(runs: Sequence[JudgedRun]) -> str:
    """How far off a mean over so few permutations may be; a large difference may be none for that reason."""
    off = [per_cent(one.to_permuted.allowance) for one in runs if one.to_permuted and one.to_permuted.allowance]
    if not off:
        return ""
    few = min(len(one.controls) for one in runs)
    return (
        f" The mean over {few} permutations may itself be off by {min(off):.1f} to {max(off):.1f} %, and the test"
        " reduces these differences by it; more --permutations make it smaller."
    )


_NO_CONTROL = (
    "Knowing the heads: no windows permuted at random over heads were run at the same budget, so nothing says that a"
    " head-aware run owes anything to its head classes."
)
_ONE_CONTROL = (
    "Knowing the heads: windows were permuted at random over heads only once, so nothing says what another"
    " permutation would do, and whether a head-aware run owes anything to its head classes."
)


def _mean_to_permuted(runs: Sequence[JudgedRun]) -> str:
    """The mean over all runs with controls of their loss minus that of the controls, token by token."""
    informed, permuted = [], []
    for one in runs:
        informed.append(one.run.nll or {})
        permuted.append(mean_over([other.nll for other in one.controls if other.nll]))
    found = paired_losses(mean_over(informed), mean_over(permuted))
    return f" (informed minus permuted {change(found)} on average)" if found else ""


def _sinks(judged: JudgedSetting) -> list[str]:
    """Windows without sinks compared with StreamingLLM at the same budget."""
    told = [_sink(one, one.to_uniform) for one in judged.of(WINDOW) if one.to_uniform]
    return [f"Sinks: windows without them against StreamingLLM of the same budget: {'; '.join(told)}."] if told else []


def _sink(one: JudgedRun, found: Difference) -> str:
    doubt = f", {SAME}" if one.verdict == SAME else ""
    uniform = one.baseline.ppl if one.baseline else math.nan
    return f"{one.run.context:.0f} entries {change(found, 1)} ({one.run.ppl:.2f} against {uniform:.2f}{doubt})"


def _inverse(judged: JudgedSetting) -> list[str]:
    groups = {kind: oriented(judged.judgements, kind) for kind in ("inverse", "conventional")}
    apart = judged.inverse
    if apart is None:
        return []
    told = [
        f"{kind} {_mean_gap(runs)} ({len(runs)} run{'s' if len(runs) > 1 else ''})" for kind, runs in groups.items()
    ]
    words = {SAME: "a tie", BETTER: "inverse is better", WORSE: "conventional is better"}
    best = min(groups["inverse"], key=_value)
    return [
        f"Inverse windows (positional heads see further): against the uniform budget at each run's own context,"
        f" {' and '.join(told)}; inverse minus conventional {change(apart)}: {words.get(apart.verdict, 'not judged')}."
        f" The best inverse run, {_named([best])}: {best.verdict or 'not judged'}."
    ]


def _mean_gap(runs: Sequence[JudgedRun]) -> str:
    """The mean difference of several runs to their baselines."""
    gaps = mean_over([one.gaps for one in runs])
    found = paired_losses(gaps, dict.fromkeys(gaps, 0.0))
    return change(found) if found else "-"


def thresholds(judged: JudgedSetting) -> dict[int, list[tuple[float, JudgedRun]]]:
    """Base window -> (confidence threshold, run), ascending, for runs whose windows depend on confidence."""
    found: dict[int, list[tuple[float, JudgedRun]]] = {}
    for one in judged.every(HEAD_AWARE):
        options = one.run.strategy.options
        if one.run.strategy.name == "confidence_windows" and "base" in options and "threshold" in options:
            found.setdefault(int(options["base"]), []).append((float(options["threshold"]), one))
    return {base: sorted(runs, key=lambda pair: pair[0]) for base, runs in sorted(found.items())}


def _thresholds(judged: JudgedSetting) -> list[str]:
    told = []
    for base, runs in thresholds(judged).items():
        known = [(threshold, one) for threshold, one in runs if one.to_uniform]
        if len(known) < 2:
            continue
        (low, first), (high, last) = known[0], known[-1]
        better = [f"{threshold:g}" for threshold, one in known if one.verdict == BETTER]
        word = f"better at {', '.join(better)}" if better else "at no threshold better"
        told.append(
            f"base {base}: {_percent(first)} at {low:g} to {_percent(last)} at {high:g}, {word} than the uniform budget"
        )
    return [f"Confidence threshold: {'; '.join(told)}."] if told else []


def _percent(one: JudgedRun) -> str:
    return change(one.to_uniform) if one.to_uniform else "-"


def _eviction(judged: JudgedSetting) -> list[str]:
    """What eviction costs: uniform runs compared with the full cache."""
    full = judged.first(FULL)
    if full is None:
        return ["The full cache was not run, so nothing says what eviction costs at all."] if judged.curve.runs else []
    told = [f"{one.run.context:.0f} entries {change(one.to_full, 1)}" for one in judged.of(UNIFORM) if one.to_full]
    return (
        [f"Eviction as such: against the full cache (perplexity {full.run.ppl:.2f}), {'; '.join(told)}."]
        if told
        else []
    )


def _interpolation(judged: JudgedSetting) -> list[str]:
    """How far off the interpolated baseline may be."""
    missed = judged.curve.left_out()
    twins = [one for one in judged.of(TWIN) if one.to_uniform]
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


def refusals(judged: JudgedSetting) -> list[str]:
    """Which comparisons are left out or counted once, and why."""
    refused = [one for one in judged.of(HEAD_AWARE, SCORED, TWIN, WINDOW) if one.refused]
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
    " token in log2(context), none outside their range. Differences are given as per cent of perplexity with their"
    f" standard error (below 0 is better). {rule('block of consecutive tokens, which depend on each other')} A block is"
    " two cube roots of the text's tokens long, 20 of 1000. The interpolation error is that of a curve as bent as"
    " leaving out the neighbouring uniform runs shows it, or what a uniform twin between the same two runs scores,"
    " whichever is larger; the interval is longer, and p larger, by it, and where nothing shows it, nothing is called"
    " better or worse. Permuted: the same windows shuffled over the heads, mean over permutations; interval and p"
    " count half the 95 % interval of that mean (Student's t) in the same way. A run that sees the same mean number of"
    " entries by unequal windows fills them later than a uniform one, which counts against it on short texts."
)
"""How to read the KV part of a report, in one paragraph."""
