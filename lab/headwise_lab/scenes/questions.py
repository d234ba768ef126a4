"""The seven kinds of question. Each question has its answer and the cells that prove it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter
from random import Random
from types import MappingProxyType

import attrs

from headwise_lab.scenes.scene import Scene, Thing
from headwise_lab.scenes.world import COLORS, SHAPES, box, position, quadrant

HARD_NEGATIVES = 0.7  # share of the "no" questions whose shape and colour both occur, on different things
LARGEST_COUNT = 4
APART = 2  # cells between the two things of a relation, along the asked axis
TRIES = 20
SHAPE, COLOR, BOTH = attrgetter("shape"), attrgetter("color"), attrgetter("shape", "color")


@attrs.frozen
class SceneQuestion:
    """A question, its one-word answer, and the cells that prove it (none where the thing is absent)."""

    kind: str
    text: str
    answer: str
    cells: tuple[int, ...]

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """The cells as pixel boxes (x0, y0, x1, y1), ends excluded."""
        return tuple(box(cell) for cell in self.cells)


def ask(kind: str, scene: Scene, rng: Random) -> SceneQuestion | None:
    """A random question of that kind, or None where the scene allows none."""
    return ASKERS[kind](scene, rng)


def ask_exist(scene: Scene, rng: Random) -> SceneQuestion | None:
    """Is there such a thing? Yes and no come equally often."""
    if rng.random() < 0.5:
        thing = rng.choice(scene.things)
        pair: tuple[str, str] | None = (thing.shape, thing.color)
    else:
        pair = _absent(scene, rng)
    if pair is None:
        return None
    shape, color = pair
    cells = tuple(t.cell for t in scene.things if (t.shape, t.color) == pair)
    return SceneQuestion("exist", f"Is there a {color} {shape} in the image?", "yes" if cells else "no", cells)


def ask_color(scene: Scene, rng: Random) -> SceneQuestion | None:
    """The colour of a thing whose shape occurs once."""
    unique = _unique(scene, SHAPE)
    if not unique:
        return None
    thing = rng.choice(unique)
    return SceneQuestion("color", f"What color is the {thing.shape} in the image?", thing.color, (thing.cell,))


def ask_shape(scene: Scene, rng: Random) -> SceneQuestion | None:
    """The shape of a thing whose colour occurs once."""
    unique = _unique(scene, COLOR)
    if not unique:
        return None
    thing = rng.choice(unique)
    text = f"What shape is the {thing.color} object in the image?"
    return SceneQuestion("shape", text, thing.shape, (thing.cell,))


def ask_text(scene: Scene, rng: Random) -> SceneQuestion | None:
    """The word or the digit that is written."""
    if not scene.labels:
        return None
    label = rng.choice(scene.labels)
    return SceneQuestion("text", f"What {label.kind} is written in the image?", label.text, label.cells)


def ask_count(scene: Scene, rng: Random) -> SceneQuestion | None:
    """How many things have a colour or shape. First one of the numbers 0 to 4 that occur is drawn, then what has it."""
    by_color = rng.random() < 0.5
    have = Counter(t.color if by_color else t.shape for t in scene.things)
    by_number: dict[int, list[str]] = {}
    for name in COLORS if by_color else SHAPES:
        by_number.setdefault(have[name], []).append(name)
    numbers = [number for number in by_number if number <= LARGEST_COUNT]
    if not numbers:
        return None
    number = rng.choice(numbers)
    name = rng.choice(by_number[number])
    cells = tuple(t.cell for t in scene.things if name in (t.color, t.shape))
    return SceneQuestion("count", f"How many {name} objects are in the image?", str(number), cells)


def ask_where(scene: Scene, rng: Random) -> SceneQuestion | None:
    """The quarter of the picture that holds a thing of which there is only one."""
    unique = _unique(scene, BOTH)
    if not unique:
        return None
    thing = rng.choice(unique)
    text = f"Where is the {thing.color} {thing.shape} in the image?"
    return SceneQuestion("where", text, quadrant(thing.cell), (thing.cell,))


def ask_relation(scene: Scene, rng: Random) -> SceneQuestion | None:
    """Whether a thing named by its colour is left of, or above, a thing named by its shape."""
    subjects, references = _unique(scene, COLOR), _unique(scene, SHAPE)
    if not subjects or not references:
        return None
    for _ in range(TRIES):
        subject, reference = rng.choice(subjects), rng.choice(references)
        axis, words = rng.choice(((1, "left of the"), (0, "above the")))
        offset = position(subject.cell)[axis] - position(reference.cell)[axis]
        if abs(offset) >= APART:
            text = f"Is the {subject.color} object {words} {reference.shape}?"
            return SceneQuestion("relation", text, "yes" if offset < 0 else "no", (subject.cell, reference.cell))
    return None


def _absent(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """A (shape, colour) pair that no thing has."""
    have = {(t.shape, t.color) for t in scene.things}
    if rng.random() < HARD_NEGATIVES:
        shapes = sorted({t.shape for t in scene.things})
        colors = sorted({t.color for t in scene.things})
        pairs = [(s, c) for s in shapes for c in colors if (s, c) not in have]
        if pairs:
            return rng.choice(pairs)
    for _ in range(TRIES):
        pair = (rng.choice(SHAPES), rng.choice(COLORS))
        if pair not in have:
            return pair
    return None


def _unique(scene: Scene, of: Callable[[Thing], object]) -> list[Thing]:
    """The things whose shape, colour or both no other thing has."""
    have = Counter(map(of, scene.things))
    return [thing for thing in scene.things if have[of(thing)] == 1]


ASKERS: Mapping[str, Callable[[Scene, Random], SceneQuestion | None]] = MappingProxyType(
    {
        "exist": ask_exist,
        "color": ask_color,
        "shape": ask_shape,
        "text": ask_text,
        "count": ask_count,
        "where": ask_where,
        "relation": ask_relation,
    }
)
KINDS = tuple(ASKERS)
