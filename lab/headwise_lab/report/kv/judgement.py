"""Every run held against the uniform budget at its own context, and against the same windows dealt at random.

The rule is that of the whole project (``stats.rule``); the unit is a block of consecutive tokens, because tokens of one
text depend on each other (``stats.blocks``). All comparisons with a verdict in the table of runs are corrected
together, those of the permuted controls, which have a table of their own, among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
from scipy.stats import t as student

from headwise.errors import DataError
from headwise_lab.report.kv.baseline import Baseline, UniformCurve, same_budget
from headwise_lab.report.kv.runs import HEAD_AWARE, PERMUTED, SCORED, TWIN, UNIFORM, WINDOW, KvRun
from headwise_lab.stats.blocks import in_blocks
from headwise_lab.stats.differences import Difference, paired_losses
from headwise_lab.stats.means import mean_and_error
from headwise_lab.stats.resampling import CONFIDENCE
from headwise_lab.stats.rule import block_unit, corrected, stated

JUDGED = (HEAD_AWARE, SCORED, WINDOW)
"""Parts that are judged in the table of runs; uniform runs and their twins are what they are judged by."""


@attrs.frozen(eq=False, kw_only=True)
class JudgedRun:
    """One run and what is known about it; losses in nats, below 0 where the run is better.

    ``to_uniform``: loss minus that of the uniform baseline at the run's own context; its allowance is the interpolation
    error. ``to_permuted``: loss minus the mean of its permuted ``controls``; its allowance is how far so few of them
    may be off. ``to_full``: loss minus that of the full cache, which is a price and gets no verdict. ``refused`` says
    why there is no baseline. ``same_as``: a run with the very same losses, such as that of a head-aware one whose
    classes have no heads; the two count once.
    """

    run: KvRun
    baseline: Baseline | None = None
    to_uniform: Difference | None = None
    to_permuted: Difference | None = None
    controls: tuple[KvRun, ...] = ()
    to_full: Difference | None = None
    refused: str = ""
    same_as: KvRun | None = None

    @property
    def gaps(self) -> dict[str, float]:
        """Token -> loss minus that of the baseline; empty without one."""
        if self.baseline is None or not self.run.nll:
            return {}
        uniform = self.baseline.nll
        return {token: loss - uniform[token] for token, loss in self.run.nll.items() if token in uniform}

    @property
    def verdict(self) -> str:
        """better, worse or no difference against the uniform baseline; empty where nothing is judged."""
        return self.to_uniform.verdict if self.to_uniform and self.run.part != TWIN else ""

    @property
    def against_permuted(self) -> str:
        """better, worse or no difference against the permuted controls; empty without any, or with one alone."""
        return self.to_permuted.verdict if self.to_permuted else ""


@attrs.frozen(eq=False)
class JudgedSetting:
    """All runs of one setting (model, text, tokens), the uniform curve, and a judgement of each in order of context.

    ``inverse``: mean difference to the baseline of runs whose positional heads see further, minus that of the others.
    """

    runs: tuple[KvRun, ...]
    curve: UniformCurve
    judgements: tuple[JudgedRun, ...]
    inverse: Difference | None = None

    def of(self, *parts: str) -> list[JudgedRun]:
        """Judgements of the runs that play one of these parts, each set of equal losses once."""
        return [judged for judged in self.judgements if judged.run.part in parts and judged.same_as is None]

    def every(self, part: str) -> list[JudgedRun]:
        """Judgements of all runs that play a part, those under a second name included."""
        return [judged for judged in self.judgements if judged.run.part == part]

    @property
    def repeats(self) -> list[JudgedRun]:
        """Judgements of the runs that are another run under a second name."""
        return [judged for judged in self.judgements if judged.same_as is not None]

    def first(self, part: str) -> JudgedRun | None:
        """The first run of a part, where there is one."""
        return next(iter(self.of(part)), None)

    def stated(self, *parts: str) -> str:
        """The rule as it holds for the table with these parts."""
        found = [pair for one in self.of(*parts) for pair in (one.to_uniform, one.to_permuted)]
        tokens = max((len(run.nll) for run in self.runs if run.nll), default=0)
        return stated([*found, self.inverse if HEAD_AWARE in parts else None], block_unit(tokens))


def judge_runs(runs: Sequence[KvRun]) -> JudgedSetting:
    """Judge the runs of one setting."""
    curve = UniformCurve.of(runs)
    found = [_with_baseline(run, curve) for run in sorted(runs, key=lambda run: (run.context, run.name))]
    found = _named_once(found)
    full = next((run for run in runs if run.part == "full" and run.nll), None)
    found = [_compared(judged, found, runs, full) for judged in found]
    table = [judged for judged in found if judged.run.part in JUDGED and judged.same_as is None]
    controls = [judged for judged in found if judged.run.part == PERMUTED]
    inverse, told = _corrected(table, inverse_minus_conventional(found))
    told |= _corrected(controls, None)[1]
    return JudgedSetting(tuple(runs), curve, tuple(told.get(one.run.id, one) for one in found), inverse)


def _with_baseline(run: KvRun, curve: UniformCurve) -> JudgedRun:
    if run.part not in (*JUDGED, TWIN, PERMUTED) or not run.nll:
        return JudgedRun(run=run, refused="" if run.nll else "its outcomes are missing")
    try:
        baseline = curve.at(run.context)
    except DataError as error:
        return JudgedRun(run=run, refused=str(error))
    if not any(token in baseline.nll for token in run.nll):
        return JudgedRun(run=run, refused="it shares no tokens with the uniform runs")
    return JudgedRun(run=run, baseline=baseline)


def _named_once(found: Sequence[JudgedRun]) -> list[JudgedRun]:
    """Head-aware runs that lose exactly what a uniform run, a twin or an earlier head-aware run loses are that run."""
    first: dict[tuple[float, ...], KvRun] = {}
    for part in (UNIFORM, TWIN, HEAD_AWARE):
        for judged in found:
            if judged.run.part == part and judged.run.nll:
                first.setdefault(tuple(judged.run.nll.values()), judged.run)
    named = []
    for judged in found:
        twin = first.get(tuple((judged.run.nll or {}).values()))
        repeats = judged.run.part == HEAD_AWARE and twin is not None and twin is not judged.run
        named.append(attrs.evolve(judged, same_as=twin) if repeats else judged)
    return named


def _compared(judged: JudgedRun, found: Sequence[JudgedRun], runs: Sequence[KvRun], full: KvRun | None) -> JudgedRun:
    """With all paired differences, none of them corrected yet."""
    run, baseline = judged.run, judged.baseline
    if not run.nll:
        return judged
    error = _interpolation_error(judged, found)
    controls = [other for other in runs if other.controls == run.text and other.nll and same_budget(run, other)]
    return attrs.evolve(
        judged,
        to_uniform=None if baseline is None else paired_losses(run.nll, baseline.nll, allowance=error),
        to_permuted=_to_permuted(run.nll, [other.nll for other in controls if other.nll]),
        controls=tuple(controls),
        to_full=None if full is None or not full.nll or full is run else _price(run.nll, full.nll),
    )


def _interpolation_error(judged: JudgedRun, found: Sequence[JudgedRun]) -> float | None:
    """How far off the baseline of a run may be: by the curve's curvature, or by what a uniform twin beside it shows.

    A twin between the same two runs is uniform itself, so all it scores against the baseline is error. None where there
    is no twin and two uniform runs alone say nothing about the curve between them.
    """
    baseline = judged.baseline
    if baseline is None or len(baseline.between) < 2:
        return 0.0
    twins = [
        abs(mean_and_error(list(other.gaps.values()))[0])
        for other in found
        if other.run.part == TWIN
        and judged.run.part != TWIN
        and other.baseline is not None
        and other.baseline.between == baseline.between
    ]
    known = [*twins, *([] if baseline.error is None else [baseline.error])]
    return max(known, default=None)


def _to_permuted(losses: Mapping[str, float], controls: Sequence[Mapping[str, float]]) -> Difference | None:
    """A run against the mean of its permuted controls.

    The allowance is half the interval of the mean over so many dealings (Student's t over their mean losses); one
    dealing alone says nothing about others, so what is held against it is shown and not judged.
    """
    if not controls:
        return None
    mean = mean_over(controls)
    means = [math.fsum(own[token] for token in mean) / len(mean) for own in controls] if mean else []
    error = mean_and_error(means)[1] if len(means) > 1 else math.nan
    half = None if math.isnan(error) else float(student.ppf((1 + CONFIDENCE) / 2, len(means) - 1)) * error
    return paired_losses(losses, mean, allowance=half)


def _price(losses: Mapping[str, float], full: Mapping[str, float]) -> Difference | None:
    """Loss minus that of the full cache with its standard error; it is not judged."""
    gaps = in_blocks({token: loss - full[token] for token, loss in losses.items() if token in full})
    return Difference(*mean_and_error([*gaps.values()]), len(gaps), allowance=None) if gaps else None


def mean_over(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Token -> mean over several runs, for the tokens that all have."""
    first, *others = losses
    shared = [token for token in first if all(token in other for other in others)]
    return {token: math.fsum(own[token] for own in losses) / len(losses) for token in shared}


def orientation(run: KvRun) -> str:
    """``inverse`` where positional heads see further than gathering ones, ``conventional`` the other way round."""
    positional, gathering = run.windows.get("positional"), run.windows.get("gathering")
    if positional is None or gathering is None or positional == gathering:
        return ""
    return "inverse" if positional > gathering else "conventional"


def oriented(found: Iterable[JudgedRun], kind: str) -> list[JudgedRun]:
    """Head-aware runs of one orientation, but not those that also go under a name of the other one."""
    every = [one for one in found if one.run.part == HEAD_AWARE]

    def names(one: JudgedRun) -> set[str]:
        return {orientation(other.run) for other in every if other.same_as is one.run} | {orientation(one.run)}

    return [one for one in every if one.same_as is None and names(one) == {kind} and one.gaps]


def inverse_minus_conventional(found: Sequence[JudgedRun]) -> Difference | None:
    """Mean over the inverse runs minus mean over the conventional ones, each against its own baseline."""
    inverse, conventional = (oriented(found, kind) for kind in ("inverse", "conventional"))
    if not (inverse and conventional):
        return None
    left, right = (mean_over([one.gaps for one in runs]) for runs in (inverse, conventional))
    errors = [_mean_allowance(runs) for runs in (inverse, conventional)]
    return paired_losses(left, right, allowance=None if None in errors else sum(filter(None, errors)))


def _mean_allowance(runs: Sequence[JudgedRun]) -> float | None:
    """How far off the mean of the runs' differences may be; None where nothing says so of one of them."""
    errors = [one.to_uniform.allowance for one in runs if one.to_uniform]
    known = [error for error in errors if error is not None]
    return mean_and_error(known)[0] if known and len(known) == len(errors) else None


def _corrected(table: Sequence[JudgedRun], alone: Difference | None) -> tuple[Difference | None, dict[str, JudgedRun]]:
    """Holm's correction over all comparisons of one table, and one more that belongs to no run."""
    pairs = [pair for one in table for pair in (one.to_uniform, one.to_permuted)]
    *rest, last = corrected([*pairs, alone])
    adjusted = iter(rest)
    return last, {one.run.id: attrs.evolve(one, to_uniform=next(adjusted), to_permuted=next(adjusted)) for one in table}


def per_cent(nats: float) -> float:
    """A difference of losses as a change of perplexity in per cent."""
    return 100 * math.expm1(nats)


def per_cent_error(difference: Difference) -> float:
    """Its standard error in per cent, by the delta method."""
    return 100 * math.exp(difference.value) * difference.se
