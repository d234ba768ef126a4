"""Strategies that kept tokens in the same setting, and the questions on which they kept different ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from headwise_lab.report.trials import Trial
from headwise_lab.store.outcome_types import QuestionOutcome as Outcome
from headwise_lab.store.records import read_outcomes

_COMPARED = 6  # strategies that are compared to find questions on which they disagree


@attrs.frozen(eq=False)
class KeptSetting:
    """One budget (and head count): strategy -> its trial. ``references``: strategies that others are compared with.

    ``folders``: strategy -> the folder of its outcomes, where they are not all in one folder.
    """

    budget: str
    heads: str
    label: str
    trials: Mapping[str, Trial]
    references: tuple[str, ...]
    folders: Mapping[str, Path] = attrs.field(factory=dict)

    @property
    def processed(self) -> float:
        """Visual tokens processed per layer on average, in the first trial."""
        return next((trial.processed for trial in self.trials.values()), 0.0)

    def leading(self, most: int = _COMPARED) -> list[str]:
        """The references, then the strategies with the best and the worst scores, ``most`` in all."""
        ranked = sorted((name for name in self.trials if name not in self.references),
                        key=lambda name: -self.trials[name].value)  # fmt: skip
        room = most - len(self.references)
        if len(ranked) > room:
            ranked = [*ranked[: room - room // 2], *ranked[len(ranked) - room // 2 :]]
        return [*self.references, *ranked]


def main_setting(choices: Sequence[KeptSetting]) -> KeptSetting | None:
    """The setting with most strategies; of several, the one that keeps least, where the choice matters most."""
    return min(choices, key=lambda choice: (-len(choice.trials), choice.processed), default=None)


def grid_side(choice: KeptSetting) -> int | None:
    """How many visual tokens lie along one edge of the image; None where they form no square."""
    visual = next(iter(choice.trials.values())).record.budget.visual
    if not isinstance(visual, int) or visual < 1 or math.isqrt(visual) ** 2 != visual:
        return None
    return math.isqrt(visual)


def placed(choice: KeptSetting) -> str | None:
    """How images become the square that the tokens cover: ``cropped`` or ``padded``.

    None where the record names neither: then the place of a token in the image is unknown.
    """
    found = next(iter(choice.trials.values())).record.pictures
    return found if found in ("cropped", "padded") else None


def fits(outcomes: Iterable[Outcome], side: int) -> bool:
    """Whether any tokens were kept, and all of them lie on the grid."""
    kept = [index for outcome in outcomes for index in outcome.kept]
    return bool(kept) and min(kept) >= 0 and max(kept) < side * side


def by_question(trial: Trial, source: Path) -> dict[str, Outcome]:
    """Question -> outcome of a trial; raises DataError where its outcomes are missing from the folder."""
    return {outcome.id: outcome for outcome in read_outcomes(source, trial.id)}


def telling(outcomes: Mapping[str, Mapping[str, Outcome]]) -> list[dict[str, Outcome]]:
    """For each question strategy -> outcome; first the questions on which the strategies disagree most.

    ``outcomes``: strategy -> question -> outcome.
    """
    shared = set.intersection(*(set(group) for group in outcomes.values()))
    found = [{name: group[key] for name, group in outcomes.items()} for key in sorted(shared)]
    found = [given for given in found if all(outcome.kept for outcome in given.values())]
    found = [given for given in found if all(same_question(_first(given), outcome) for outcome in given.values())]
    return sorted(found, key=lambda given: _disagreement(list(given.values())), reverse=True)


def same_question(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are about the same question; the id does not say, since seeds and folders may reuse it."""
    asked = [(outcome.question, Path(outcome.image or "").name) for outcome in (one, other)]
    return asked[0] == asked[1]


def _disagreement(given: Sequence[Outcome]) -> tuple[bool, bool, float]:
    """A sort key: are some right and some wrong, are there boxes, and how little do the kept tokens overlap."""
    pairs = itertools.combinations([set(outcome.kept) for outcome in given], 2)
    distances = [1 - len(left & right) / len(left | right) for left, right in pairs]
    mixed = len({float(outcome.score) for outcome in given}) > 1
    return mixed, bool(given[0].boxes), sum(distances) / max(len(distances), 1)


def with_images(found: Sequence[Mapping[str, Outcome]], source: Path, most: int) -> list[tuple[Path, str]]:
    """(image, question id) of the first questions whose image file exists; each image once before any image twice."""
    placed = [(find(first.image, source), first.id) for first in map(_first, found)]
    shown = [(image, identity) for image, identity in placed if image is not None]
    seen: set[Path] = set()
    fresh: list[tuple[Path, str]] = []
    again: list[tuple[Path, str]] = []
    for image, identity in shown:
        (again if image in seen else fresh).append((image, identity))
        seen.add(image)
    return [*fresh, *again][:most]


def _first(given: Mapping[str, Outcome]) -> Outcome:
    return next(iter(given.values()))


def find(name: str | None, source: Path) -> Path | None:
    """The image file of an outcome, at its own path or in the output folder; None where it is at neither."""
    if not name:
        return None
    return next((path for path in (Path(name), source / name) if path.is_file()), None)
