"""The outcome of a search: its points, their front, the confirmation, and sentences about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from headwise_lab.stats.rule import rule
from headwise_lab.tuning.confirming import Found, best
from headwise_lab.tuning.judging import JudgedPoint, optimism
from headwise_lab.tuning.measuring import PointEvaluator
from headwise_lab.tuning.searching import REASON, label

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

AXES = {"processed": "visual tokens processed per layer, average", "flops": "G multiply-adds of a prefill, counted"}
METHOD = (
    "Accuracy is the headline metric in per cent of the unpruned model's on the same questions, averaged over"
    " benchmarks. A search prefers points that were lucky on its own questions; only the held-out figures, from"
    " questions and pictures that it did not use, show how good a point is. FastV (last token, all heads, before layer"
    f" 2, or 1 where 2 cannot meet the average) and random tokens are run at each point's processed average. {rule()}"
)


@attrs.frozen(eq=False, kw_only=True)
class SearchOutcome:
    """A finished search, and its confirmation on the held-out questions; ``held`` is None without confirmation."""

    title: str
    command: str
    cost: str
    trials: Sequence[FrozenTrial]
    found: Sequence[Found]
    searched: PointEvaluator
    held: PointEvaluator | None = None
    judged: Sequence[JudgedPoint] = ()

    @property
    def front(self) -> list[Found]:
        """The points that no other point beats on the questions of the search."""
        return best(self.found)

    @property
    def axis(self) -> str:
        """The name of the cost."""
        return AXES[self.cost]

    def shown(self, cost: float) -> float:
        """A cost in the unit of the axis."""
        return cost / 1e9 if self.cost == "flops" else cost

    @property
    def failures(self) -> list[tuple[int, str, str]]:
        """Number, point and reason of every trial that has no value."""
        return [
            (trial.number, label(trial), str(trial.user_attrs.get(REASON, "-")))
            for trial in self.trials
            if trial.values is None
        ]

    def sentences(self) -> list[str]:
        """Sentences about the search, the most important one first."""
        if self.held is None:
            return [self._search(), "Nothing was confirmed on held-out questions, so no point can be recommended."]
        return [self._verdict(), self._staying(), *self._optimism(), self._search()]

    def _verdict(self) -> str:
        """Whether any point beats FastV."""
        compared = [one for one in self.judged if one.to_fastv is not None]
        better = [one for one in compared if one.verdict == "better"]
        if not compared:
            return "No point of the front could be compared with FastV at an equal processed average."
        if not better:
            worse = sum(one.verdict == "worse" for one in compared)
            return (
                f"No point beats FastV at an equal processed average on the held-out questions ({len(compared)}"
                f" compared, {worse} worse, {len(compared) - worse} without a difference after Holm's correction)."
            )
        listed = "; ".join(
            f"{one.confirmed.found.point.label}, by {one.to_fastv.value:.1f} ({one.to_fastv.low:.1f} to"
            f" {one.to_fastv.high:.1f})"
            for one in better
            if one.to_fastv is not None
        )
        return f"{len(better)} of {len(compared)} points beat FastV at an equal processed average: {listed}."

    def _staying(self) -> str:
        """How many points stay on the front when they are measured on the held-out questions."""
        again = [one for one in self.judged if one.held_out is not None]
        stay = [one for one in again if one.beaten_by is None]
        return (
            f"{len(stay)} of {len(again)} confirmed points stay on the front when FastV and random tokens are included."
            if again
            else "No point of the front could be measured on the held-out questions."
        )

    def _optimism(self) -> list[str]:
        mean = optimism(self.judged)
        direction = "higher" if (mean or 0) >= 0 else "lower"
        return (
            [] if mean is None else [f"On average, accuracies were {abs(mean):.1f} points {direction} in the search."]
        )

    def _search(self) -> str:
        """What the search did."""
        states = Counter(trial.state.name for trial in self.trials)
        rest = [(states["PRUNED"], "could not be run"), (states["FAIL"], "failed")]
        others = "".join(f", {count} {what}" for count, what in rest if count)
        return (
            f"{sum(trial.state.is_finished() for trial in self.trials)} trials, {len(self.found)} different points"
            f" measured, {len(self.front)} of them on the search's front{others}."
        )
