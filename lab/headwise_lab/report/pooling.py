"""Pooling trials that differ only in their questions.

A synthetic benchmark makes other questions from every seed, so trials of several seeds are pooled into one with more
units. With another limit or other files, the same seed gives other questions. Those trials belong to another table,
because a question may be in both.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.report.grouping import grouped
from headwise_lab.report.trials import AskedTrial, Trial
from headwise_lab.stats.means import mean_and_error
from headwise_lab.store.merging import merged, middle
from headwise_lab.store.record_types import Attention, Cost, Heads, Overlap, VisualRecord


@attrs.frozen(eq=False)
class Questions:
    """The questions of all trials, known by the digests in their records.

    ``seeds``: (benchmark, digest) -> the lowest seed with these questions; questions from files are the same for every
    seed. ``sets``: (benchmark, limit, digest) -> the number of the set of questions that these belong to.
    """

    seeds: Mapping[tuple[str, str], int]
    sets: Mapping[tuple[str, Any, str], int]

    @classmethod
    def of(cls, trials: Sequence[AskedTrial]) -> Questions:
        """The questions of all trials that are compared with each other."""
        seeds: dict[tuple[str, str], int] = {}
        for trial in trials:
            key = trial.benchmark, _digest(trial)
            seeds[key] = min(seeds.get(key, _seed(trial)), _seed(trial))
        asked: dict[tuple[str, Any, int], dict[str, int]] = {}
        kinds: dict[str, dict[tuple[Any, int], int]] = {}
        sets = {}
        for trial in trials:
            digest, limit = _digest(trial), trial.record.limit
            same_seed = asked.setdefault((trial.benchmark, limit, seeds[trial.benchmark, digest]), {})
            kind = limit, same_seed.setdefault(digest, len(same_seed))
            known = kinds.setdefault(trial.benchmark, {})
            sets[trial.benchmark, limit, digest] = known.setdefault(kind, len(known))
        return cls(seeds, sets)

    def seed(self, trial: AskedTrial) -> int:
        """The seed that tells the units of a trial from units of the same name in other questions."""
        digest = _digest(trial)
        return self.seeds[trial.benchmark, digest] if digest else _seed(trial)

    def number(self, trial: AskedTrial) -> int:
        """The number of the set of questions that a trial belongs to, from 0 in each benchmark."""
        return self.sets[trial.benchmark, trial.record.limit, _digest(trial)]

    def table(self, trial: AskedTrial) -> tuple[str, str, int]:
        """Benchmark, model and set of questions: trials are compared only where all three are the same."""
        return trial.benchmark, trial.model, self.number(trial)

    def label(self, trial: AskedTrial) -> str:
        """How a title names the questions of a trial; empty where its benchmark has only one set."""
        several = len({number for (benchmark, _, _), number in self.sets.items() if benchmark == trial.benchmark}) > 1
        return f"questions {_digest(trial)[:8] or 'unknown'}" if several else ""

    def pooled(self, trials: Sequence[Trial]) -> Trial:
        """Several trials of one strategy as one. Its units are named (seed, unit); a unit asked twice is averaged.

        Costs are medians, other figures means. Where one of the trials has no outcomes, only the last one is used.
        """
        if len(trials) > 1 and all(trial.units for trial in trials):
            units = self._units(trials)
            return Trial(_merged(trials, units, len({self.seed(trial) for trial in trials})), units)
        last = trials[-1]
        return Trial(last.record, self._units([last]) or None)

    def _units(self, trials: Sequence[Trial]) -> dict[Any, float]:
        scored = [((self.seed(trial), unit), score) for trial in trials for unit, score in (trial.units or {}).items()]
        groups = grouped(scored, lambda pair: pair[0])
        return {unit: statistics.fmean(score for _, score in pairs) for unit, pairs in groups.items()}


def _digest(trial: AskedTrial) -> str:
    return trial.record.questions or ""


def _seed(trial: AskedTrial) -> int:
    return trial.record.seed or 0


def _merged(trials: Sequence[Trial], units: Mapping[Any, float], seeds: int) -> VisualRecord:
    """The last record, with the figures of all."""
    records = [trial.record for trial in trials]
    last = records[-1]
    value, error = mean_and_error(list(units.values()))
    asked = {(record.questions or record.seed, record.n) for record in records}
    return attrs.evolve(
        last,
        n=sum(n for _, n in asked),
        units=len(units),
        seeds=seeds,
        metric=attrs.evolve(last.metric, value=value, se=error),
        cost=merged(Cost, [record.cost for record in records], statistics.median),
        overlap=merged(Overlap, [record.overlap for record in records], statistics.fmean),
        attention=merged(Attention, [record.attention for record in records], statistics.fmean),
        heads=merged(Heads, [record.heads for record in records], statistics.fmean),
        diversity=middle([record.diversity for record in records], statistics.fmean),
    )
