"""The verdicts on KV runs: each is compared with the uniform budget at its own context and with permuted windows.

The rule is that of the whole project (``stats.rule``). The unit is a block of consecutive tokens, because tokens of one
text depend on each other (``stats.blocks``). All comparisons of the table of runs are corrected together. Permuted runs
are controls: the same windows, shuffled over the heads. They have a table of their own, which is corrected by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
from scipy.stats import t as student

from headwise.errors import DataError
from headwise_lab.report.correcting import with_corrected
from headwise_lab.report.kv.baseline import Baseline, UniformCurve, same_context
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, PERMUTED, SCORED, TWIN, UNIFORM, WINDOW, KvRun
from headwise_lab.stats.blocks import in_blocks
from headwise_lab.stats.differences import Difference, paired_losses
from headwise_lab.stats.means import mean_and_error
from headwise_lab.stats.resampling import CONFIDENCE
from headwise_lab.stats.rule import block_unit, corrected, stated

JUDGED = (HEAD_AWARE, SCORED, WINDOW)
"""The parts that get a verdict in the table of runs; they are compared with uniform runs and with twins of those."""


@attrs.frozen(eq=False, kw_only=True)
class JudgedRun:
    """One run and its differences: losses in nats, below 0 where the run is better.

    ``to_uniform``: its loss minus that of the uniform baseline at the same context; the allowance is the interpolation
    error. ``to_permuted``: its loss minus the mean loss of its permuted ``controls``; the allowance is how far a mean
    over so few of them may be off. ``to_full``: its loss minus that of the full cache; this is what eviction costs, and
    gets no verdict. ``refused``: why there is no baseline. ``same_as``: a run with exactly the same losses; the two
    count once. That happens where no head belongs to a class, so that its window is not used.
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
        """Token -> its loss minus that of the baseline; empty without a baseline."""
        if self.baseline is None or not self.run.nll:
            return {}
        uniform = self.baseline.nll
        return {token: loss - uniform[token] for token, loss in self.run.nll.items() if token in uniform}

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference`` to the uniform baseline; empty where there is no verdict."""
        return self.to_uniform.verdict if self.to_uniform and self.run.part != TWIN else ""

    @property
    def against_permuted(self) -> str:
        """``better``, ``worse`` or ``no difference`` to the permuted controls; empty for fewer than two of them."""
        return self.to_permuted.verdict if self.to_permuted else ""


@attrs.frozen(eq=False)
class JudgedSetting:
    """All runs of one setting (model, text, tokens), the uniform curve, and each run judged, by ascending context.

    ``inverse``: the mean difference to the baseline of the inverse runs minus that of the conventional ones; see
    ``orientation``.
    """

    runs: tuple[KvRun, ...]
    curve: UniformCurve
    judgements: tuple[JudgedRun, ...]
    inverse: Difference | None = None

    def of(self, *parts: str) -> list[JudgedRun]:
        """The judged runs with one of these parts; of runs with equal losses only the first."""
        return [judged for judged in self.judgements if judged.run.part in parts and judged.same_as is None]

    def every(self, part: str) -> list[JudgedRun]:
        """All judged runs with a part, also those with the losses of another run."""
        return [judged for judged in self.judgements if judged.run.part == part]

    @property
    def repeats(self) -> list[JudgedRun]:
        """The judged runs that have exactly the losses of another run."""
        return [judged for judged in self.judgements if judged.same_as is not None]

    def first(self, part: str) -> JudgedRun | None:
        """The first judged run with a part, if any."""
        return next(iter(self.of(part)), None)

    def stated(self, *parts: str) -> str:
        """The statistical rule, stated for the table of these parts."""
        found = [pair for one in self.of(*parts) for pair in (one.to_uniform, one.to_permuted)]
        tokens = max((len(run.nll) for run in self.runs if run.nll), default=0)
        return stated([*found, self.inverse if HEAD_AWARE in parts else None], block_unit(tokens))


def judge_runs(runs: Sequence[KvRun]) -> JudgedSetting:
    """Judge the runs of one setting: find baselines, compare, and correct each of the two tables."""
    curve = UniformCurve.of(runs)
    found = [_with_baseline(run, curve) for run in sorted(runs, key=lambda run: (run.context, run.name))]
    found = _named_once(found)
    full = next((run for run in runs if run.part == FULL and run.nll), None)
    found = [_compared(judged, found, runs, full) for judged in found]
    table = [judged for judged in found if judged.run.part in JUDGED and judged.same_as is None]
    inverse, table = _corrected(table, inverse_minus_conventional(found))
    controls = with_corrected([one for one in found if one.run.part == PERMUTED], "to_uniform", "to_permuted")
    by_id = {one.run.id: one for one in (*table, *controls)}
    return JudgedSetting(tuple(runs), curve, tuple(by_id.get(one.run.id, one) for one in found), inverse)


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
    """Set ``same_as`` of head-aware runs whose losses equal those of a uniform run, a twin or an earlier such run."""
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
    """The run with all its paired differences, not yet corrected."""
    run, baseline = judged.run, judged.baseline
    if not run.nll:
        return judged
    error = _interpolation_error(judged, found)
    controls = [
        other for other in runs if other.controls == run.text and other.nll and same_context(run.context, other.context)
    ]
    return attrs.evolve(
        judged,
        to_uniform=None if baseline is None else paired_losses(run.nll, baseline.nll, allowance=error),
        to_permuted=_to_permuted(run.nll, [other.nll for other in controls if other.nll]),
        controls=tuple(controls),
        to_full=None if full is None or not full.nll or full is run else _price(run.nll, full.nll),
    )


def _interpolation_error(judged: JudgedRun, found: Sequence[JudgedRun]) -> float | None:
    """How far off the baseline of a run may be: the larger of what the curvature and what uniform twins show.

    A twin between the same two uniform runs is uniform itself, so its whole difference to the baseline is error. None
    where there is no twin and only two uniform runs, which do not show how the curve bends between them.
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
    """The difference of a run to the mean of its permuted controls.

    The allowance is half the interval of that mean (Student's t over the mean loss of each permutation). A single
    permutation says nothing about others, so the difference to it is shown without a verdict.
    """
    if not controls:
        return None
    mean = mean_over(controls)
    means = [math.fsum(own[token] for token in mean) / len(mean) for own in controls] if mean else []
    error = mean_and_error(means)[1] if len(means) > 1 else math.nan
    half = None if math.isnan(error) else float(student.ppf((1 + CONFIDENCE) / 2, len(means) - 1)) * error
    return paired_losses(losses, mean, allowance=half)


def _price(losses: Mapping[str, float], full: Mapping[str, float]) -> Difference | None:
    """The loss of a run minus that of the full cache, with its standard error; it gets no verdict."""
    gaps = in_blocks({token: loss - full[token] for token, loss in losses.items() if token in full})
    return Difference(*mean_and_error([*gaps.values()]), len(gaps), allowance=None) if gaps else None


def mean_over(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Token -> its mean over several runs, for the tokens that all of them have."""
    first, *others = losses
    shared = [token for token in first if all(token in other for other in others)]
    return {token: math.fsum(own[token] for own in losses) / len(losses) for token in shared}


def orientation(run: KvRun) -> str:
    """``inverse`` where positional heads have larger windows than gathering ones, ``conventional`` where smaller."""
    positional, gathering = run.windows.get("positional"), run.windows.get("gathering")
    if positional is None or gathering is None or positional == gathering:
        return ""
    return "inverse" if positional > gathering else "conventional"


def oriented(found: Iterable[JudgedRun], kind: str) -> list[JudgedRun]:
    """The head-aware runs of one orientation, without those whose losses equal those of a run of the other one."""
    every = [one for one in found if one.run.part == HEAD_AWARE]

    def names(one: JudgedRun) -> set[str]:
        return {orientation(other.run) for other in every if other.same_as is one.run} | {orientation(one.run)}

    return [one for one in every if one.same_as is None and names(one) == {kind} and one.gaps]


def inverse_minus_conventional(found: Sequence[JudgedRun]) -> Difference | None:
    """The mean of the inverse runs minus that of the conventional ones, each compared with its own baseline first."""
    inverse, conventional = (oriented(found, kind) for kind in ("inverse", "conventional"))
    if not (inverse and conventional):
        return None
    left, right = (mean_over([one.gaps for one in runs]) for runs in (inverse, conventional))
    errors = [_mean_allowance(runs) for runs in (inverse, conventional)]
    return paired_losses(left, right, allowance=None if None in errors else sum(filter(None, errors)))


def _mean_allowance(runs: Sequence[JudgedRun]) -> float | None:
    """How far off the mean of the runs' differences may be; None where it is unknown for one of them."""
    errors = [one.to_uniform.allowance for one in runs if one.to_uniform]
    known = [error for error in errors if error is not None]
    return mean_and_error(known)[0] if known and len(known) == len(errors) else None


def _corrected(table: Sequence[JudgedRun], inverse: Difference | None) -> tuple[Difference | None, list[JudgedRun]]:
    """Holm's correction over all comparisons of the table of runs and the one between inverse and conventional runs."""
    pairs = [pair for one in table for pair in (one.to_uniform, one.to_permuted)]
    *rest, last = corrected([*pairs, inverse])
    adjusted = iter(rest)
    return last, [attrs.evolve(one, to_uniform=next(adjusted), to_permuted=next(adjusted)) for one in table]


def per_cent(nats: float) -> float:
    """A difference of losses as a change of perplexity in per cent."""
    return 100 * math.expm1(nats)


def per_cent_error(difference: Difference) -> float:
    """The standard error of that change, in per cent, by the delta method."""
    return 100 * math.exp(difference.value) * difference.se
