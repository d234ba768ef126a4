"""The data from which a page draws kept tokens over images: questions, each image once, what each strategy kept."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from headwise.errors import DataError
from headwise_lab.report.kept_tokens.choices import (
    KeptSetting,
    by_question,
    fits,
    grid_side,
    main_setting,
    placed,
    same_question,
    telling,
    with_images,
)
from headwise_lab.report.kept_tokens.overlays import EXAMPLES, Example, overlay
from headwise_lab.report.kept_tokens.pictures import shown as picture_of
from headwise_lab.report.page.kept import KeptView
from headwise_lab.report.trials import Trial
from headwise_lab.store.outcome_types import QuestionOutcome as Outcome

QUESTIONS = 8
"""A page shows this many questions of one table."""

TRIALS = 160
"""A page shows the kept tokens of this many trials of one table; settings that keep least come first."""


@attrs.frozen(eq=False, kw_only=True)
class KeptRequest:
    """The settings of one table, the folder of their outcomes and images, and the trial without pruning."""

    title: str
    slug: str
    choices: Sequence[KeptSetting]
    source: Path
    unpruned: Trial | None = None

    def folder(self, choice: KeptSetting, name: str) -> Path:
        """The folder of the outcomes of a strategy."""
        return choice.folders.get(name, self.source)


def kept_view(wanted: KeptRequest, folder: Path) -> tuple[KeptView | None, str | None]:
    """The view, with its figure drawn into ``folder``; or None and a warning that says why there is none."""
    choice = main_setting(wanted.choices)
    if choice is None:
        return None, None
    why = f"{wanted.title}: no overlay of kept tokens, since "
    try:
        outcomes = {name: by_question(choice.trials[name], wanted.folder(choice, name)) for name in choice.leading()}
    except DataError:
        return None, f"{why}outcomes are missing."
    side = grid_side(choice)
    seen = placed(choice)
    if seen is None:
        return None, f"{why}the tokens of this model have no place on its pictures."
    if side is None or not fits((one for group in outcomes.values() for one in group.values()), side):
        return None, f"{why}they form no square grid."
    found = telling(outcomes)
    shown = with_images(found, wanted.source, QUESTIONS)
    if not shown:
        return None, why + ("the image files are gone." if found else "no question tells the strategies apart.")
    examples: list[Example] = [
        (image, {name: group[identity] for name, group in outcomes.items()}) for image, identity in shown
    ]
    figure = overlay(choice, examples[:EXAMPLES], side, title=wanted.title, slug=wanted.slug, folder=folder)
    settings, left = _settings(wanted, choice, [next(iter(given.values())) for _, given in examples], side)
    data = {**_questions(examples, side, padded=seen == "padded"), "grid": [side, side], "settings": settings}
    benchmark = next(iter(choice.trials.values())).benchmark
    return KeptView(wanted.title, data, figure, _note(len(shown), len(found), left, seen), benchmark), None


def _note(shown: int, found: int, left: int, seen: str) -> str:
    note = f"{shown} of {found} questions, those on which strategies disagree most: some right and some wrong, then the"
    note += " least tokens in common."
    note += f" {left} settings with more tokens are left out to keep the page small." if left else ""
    how = "all of it and the borders around it" if seen == "padded" else "the square at its centre"
    return f"{note} Of an image that is not square, the model sees {how}."


def _questions(examples: Sequence[Example], side: int, *, padded: bool) -> dict[str, object]:
    """The questions, and each of their images once."""
    pictures: dict[Path, dict[str, object]] = {}
    questions = []
    for image, outcomes in examples:
        first = next(iter(outcomes.values()))
        shown = picture_of(image, first.boxes, (side, side), padded=padded)
        if image not in pictures:
            pictures[image] = shown.as_data()
        questions.append(
            {
                "id": first.id,
                "text": (first.question or "").partition("\n")[0],
                "answers": list(dict.fromkeys(first.answers))[:3],
                "boxes": [shown.scaled(box) for box in shown.boxes],
                "picture": list(pictures).index(image),
            }
        )
    return {"questions": questions, "pictures": list(pictures.values())}


def _settings(
    wanted: KeptRequest, main: KeptSetting, asked: Sequence[Outcome], side: int
) -> tuple[list[dict[str, object]], int]:
    """For each setting, the main one first, the outcomes of every strategy; and how many settings are left out."""
    whole = [] if wanted.unpruned is None else [_strategy("unpruned", wanted.unpruned, wanted.source, asked, side)]
    settings: list[dict[str, object]] = []
    room = TRIALS
    for choice in sorted(wanted.choices, key=lambda choice: (choice is not main, choice.processed)):
        if settings and len(choice.trials) > room:
            continue
        room -= len(choice.trials)
        strategies = [
            _strategy(name, trial, wanted.folder(choice, name), asked, side) for name, trial in choice.trials.items()
        ]
        first = [*choice.references, *sorted(choice.trials, key=lambda name: -choice.trials[name].value)]
        settings.append(
            {
                "label": choice.label,
                "budget": choice.budget,
                "heads": choice.heads,
                "first": list(dict.fromkeys(first))[: len(choice.references) + 1],
                "strategies": [given for given in (*strategies, *whole) if given],
            }
        )
    return settings, len(wanted.choices) - len(settings)


def _strategy(name: str, trial: Trial, folder: Path, asked: Sequence[Outcome], side: int) -> dict[str, object] | None:
    """The record of a strategy and its outcome for each question (None where unknown); None without any outcomes."""
    try:
        outcomes = by_question(trial, folder)
    except DataError:
        return None
    found = [outcomes.get(one.id) for one in asked]
    given = [
        _as_data(outcome, side) if outcome is not None and same_question(one, outcome) else None
        for one, outcome in zip(asked, found, strict=True)
    ]
    stages = trial.record.stages or ()
    return {"name": name, "record": trial.id, "given": given, "layers": [stage.layer for stage in stages],
            "merges": any(stage.merged for stage in stages)}  # fmt: skip


def _as_data(outcome: Outcome, side: int) -> dict[str, object] | None:
    if not fits([outcome], side):
        return None
    return {
        "kept": bits(outcome.kept, side * side),
        "stages": [bits(kept, side * side) for kept in outcome.stages],
        "said": (outcome.prediction or "")[:80],
        "score": round(float(outcome.score), 3),
        "heads": outcome.heads,
        "recall": None if outcome.recall is None else round(float(outcome.recall), 3),
    }


def bits(kept: Sequence[int], tokens: int) -> str:
    """A bit per token in base 64; the first token is the highest bit of the first byte."""
    mask = np.zeros(tokens, dtype=np.uint8)
    mask[list(kept)] = 1
    return base64.b64encode(np.packbits(mask).tobytes()).decode("ascii")
