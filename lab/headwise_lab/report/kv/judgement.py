"""Every run held against the uniform budget at its own context, and against the same windows dealt at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from headwise.errors import DataError
from headwise_lab.report.kv.baseline import Baseline, Curve, same_budget
from headwise_lab.report.kv.runs import HEAD_AWARE, PERMUTED, SCORED, TWIN, UNIFORM, WINDOW, Run
from headwise_lab.stats.differences import LEVEL, Difference, holm, mean_and_error, paired

JUDGED = (HEAD_AWARE, SCORED)
"""Parts that are judged and corrected for; the others are what they are judged by."""

BETTER, WORSE, TIE = "better", "worse", "indistinguishable"


@attrs.frozen(eq=False)
class Chance:
    """A run against the mean of its permuted controls: paired difference of the loss, spread included.

    The standard error joins that of the tokens with that of drawing so few permutations (their deviation over sqrt k).
    """

    difference: Difference
    controls: tuple[Run, ...]
    spread: float


@attrs.frozen(eq=False, kw_only=True)
class Judgement:
    """One run and what is known about it; losses in nats, below 0 where the run is better.

    ``delta``: loss minus the uniform baseline at the run's own context. ``beyond``: what is left of it once the
    interpolation error is taken off. ``adjusted``: Holm's probability of ``beyond``. ``refused`` says why there is no
    baseline. ``full``: loss minus that of the full cache. ``same_as``: a run with the very same losses, such as that of
    a head-aware one whose classes have no heads; the two count once.
    """

    run: Run
    baseline: Baseline | None = None
    delta: Difference | None = None
    allowance: float = 0.0
    adjusted: float | None = None
    chance: Chance | None = None
    full: Difference | None = None
    refused: str = ""
    same_as: Run | None = None

    @property
    def deltas(self) -> dict[str, float]:
        """Token -> loss minus that of the baseline; empty without one."""
        if self.baseline is None or not self.run.nll:
            return {}
        uniform = self.baseline.nll
        return {token: loss - uniform[token] for token, loss in self.run.nll.items() if token in uniform}

    @property
    def beyond(self) -> Difference | None:
        """The difference to the baseline beyond the interpolation error, towards 0."""
        if self.delta is None:
            return None
        left = max(0.0, abs(self.delta.value) - self.allowance)
        return attrs.evolve(self.delta, value=math.copysign(left, self.delta.value))

    @property
    def verdict(self) -> str:
        """better, worse or indistinguishable against the uniform baseline; empty where nothing can be compared."""
        if self.beyond is None:
            return ""
        sure = self.beyond.clear if self.adjusted is None else self.adjusted <= LEVEL
        if not (sure and self.beyond.clear):
            return TIE
        return BETTER if self.beyond.value < 0 else WORSE

    @property
    def against_chance(self) -> str:
        """better, worse or indistinguishable against the permuted controls; empty without any."""
        if self.chance is None:
            return ""
        if not self.chance.difference.clear:
            return TIE
        return BETTER if self.chance.difference.value < 0 else WORSE


@attrs.frozen(eq=False)
class Judged:
    """All runs of one setting (model, text, tokens), the uniform curve, and a judgement of each in order of context."""

    runs: tuple[Run, ...]
    curve: Curve
    judgements: tuple[Judgement, ...]

    def of(self, *parts: str) -> list[Judgement]:
        """Judgements of the runs that play one of these parts, each set of equal losses once."""
        return [judged for judged in self.judgements if judged.run.part in parts and judged.same_as is None]

    def every(self, part: str) -> list[Judgement]:
        """Judgements of all runs that play a part, those under a second name included."""
        return [judged for judged in self.judgements if judged.run.part == part]

    @property
    def repeats(self) -> list[Judgement]:
        """Judgements of the runs that are another run under a second name."""
        return [judged for judged in self.judgements if judged.same_as is not None]

    def first(self, part: str) -> Judgement | None:
        """The first run of a part, where there is one."""
        return next(iter(self.of(part)), None)


def judge(runs: Sequence[Run]) -> Judged:
    """Judge the runs of one setting."""
    curve = Curve.of(runs)
    found = [_against_uniform(run, curve) for run in sorted(runs, key=lambda run: (run.context, run.name))]
    found = _named_once(found)
    found = [_allowed(judged, found) for judged in found]
    found = [attrs.evolve(judged, chance=_chance(judged.run, runs), full=_full(judged.run, runs)) for judged in found]
    return Judged(tuple(runs), curve, tuple(_corrected(found)))


def _against_uniform(run: Run, curve: Curve) -> Judgement:
    if run.part not in (*JUDGED, TWIN, PERMUTED, WINDOW) or not run.nll:
        return Judgement(run=run, refused="" if run.nll else "its outcomes are missing")
    try:
        baseline = curve.at(run.context)
    except DataError as error:
        return Judgement(run=run, refused=str(error))
    delta = paired(run.nll, baseline.nll)
    if delta is None:
        return Judgement(run=run, refused="it shares no tokens with the uniform runs")
    return Judgement(run=run, baseline=baseline, delta=delta)


def _named_once(found: Sequence[Judgement]) -> list[Judgement]:
    """Head-aware runs that lose exactly what a uniform run, a twin or an earlier head-aware run loses are that run."""
    first: dict[tuple[float, ...], Run] = {}
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


def _allowed(judged: Judgement, found: Sequence[Judgement]) -> Judgement:
    """The interpolation error of a run: that of the curve's curvature, or what a uniform twin beside it shows.

    A twin between the same two runs is uniform itself, so all it scores against the baseline is error.
    """
    if judged.baseline is None or len(judged.baseline.between) < 2:
        return judged
    twins = [
        abs(other.delta.value)
        for other in found
        if other.run.part == TWIN
        and judged.run.part != TWIN
        and other.delta is not None
        and other.baseline is not None
        and other.baseline.between == judged.baseline.between
    ]
    return attrs.evolve(judged, allowance=max([judged.baseline.error or 0.0, *twins]))


def _chance(run: Run, runs: Sequence[Run]) -> Chance | None:
    """The run against its permuted controls, those of another budget left out."""
    controls = [other for other in runs if other.controls == run.text and other.nll and same_budget(run, other)]
    if not controls or not run.nll:
        return None
    losses = mean_over([other.nll for other in controls if other.nll])
    found = paired(run.nll, losses)
    if found is None:
        return None
    means = [math.fsum(other.nll[token] for token in losses) / len(losses) for other in controls if other.nll]
    _, error = mean_and_error(means)
    spread = 0.0 if math.isnan(error) else error
    joined = attrs.evolve(found, se=math.hypot(found.se, spread))
    return Chance(joined, tuple(controls), spread * math.sqrt(len(controls)))


def mean_over(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Token -> mean over several runs, for the tokens that all have."""
    first, *others = losses
    shared = [token for token in first if all(token in other for other in others)]
    return {token: math.fsum(own[token] for own in losses) / len(losses) for token in shared}


def _full(run: Run, runs: Sequence[Run]) -> Difference | None:
    full = next((other for other in runs if other.part == "full" and other.nll), None)
    return None if full is None or full is run else _pair(run, full)


def _pair(ours: Run, theirs: Run) -> Difference | None:
    return paired(ours.nll, theirs.nll) if ours.nll and theirs.nll else None


def at_equal_budget(ours: Run, theirs: Run) -> Difference:
    """Paired difference of two runs' losses; DataError where their mean budgets differ or they share no tokens.

    Runs of different mean budgets are compared through the interpolated baseline alone.
    """
    if not same_budget(ours, theirs):
        raise DataError(
            f"{ours.name} holds {ours.context:.1f} entries per head and {theirs.name} {theirs.context:.1f}: runs of"
            " different mean budgets are compared with the uniform budget interpolated at each one's own context, not"
            " with each other"
        )
    found = _pair(ours, theirs)
    if found is None:
        raise DataError(f"{ours.name} and {theirs.name} have scored no token in common; compare runs on the same text")
    return found


def _corrected(found: Sequence[Judgement]) -> list[Judgement]:
    """Holm's correction over all judged runs of the table."""
    open_ones = [
        (index, judged.beyond.probability)
        for index, judged in enumerate(found)
        if judged.run.part in JUDGED and judged.beyond is not None and judged.same_as is None
    ]
    adjusted: Mapping[int, float] = dict(
        zip((index for index, _ in open_ones), holm([chance for _, chance in open_ones]), strict=True)
    )
    return [attrs.evolve(judged, adjusted=adjusted.get(index)) for index, judged in enumerate(found)]


def per_cent(nats: float) -> float:
    """A difference of losses as a change of perplexity in per cent."""
    return 100 * math.expm1(nats)


def per_cent_error(difference: Difference) -> float:
    """Its standard error in per cent, by the delta method."""
    return 100 * math.exp(difference.value) * difference.se
