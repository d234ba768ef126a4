"""Head classes for a study, measured on a part of the text that no run scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from headwise.errors import DataError
from headwise.heads import HeadProfile
from headwise.registry import resolve
from headwise_lab.heads.profile import classify, of_ids
from headwise_lab.texts.tokens import Text, beginning, tokens_of

if TYPE_CHECKING:
    from headwise_adapters.heads.statistics import Progress
    from headwise_lab.models.load import LoadedLm

CLASSIFICATION = "locality"
MOST = 1024
"""Heads are classified on so many tokens, or on fewer where the model was trained on shorter texts."""


def trained_context(model: Any) -> int | None:
    """The context length that a model was trained on, as its configuration says."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(found) if found else None


def split(loaded: LoadedLm, source: str, tokens: int, most: int = MOST) -> tuple[Text, Text]:
    """The first ``tokens`` tokens of a text, to be scored, and at most ``most`` after them, to classify heads on.

    Raises DataError where the text is too short for both.
    """
    wanted = min(most, trained_context(loaded.model) or most)
    try:
        whole = tokens_of(loaded.tokenizer, source, tokens + wanted)
    except DataError as error:
        raise DataError(
            f"{error} ({tokens} to score and {wanted} after them to classify heads on, unless --profile gives their"
            " classes)"
        ) from error
    opening = torch.tensor(beginning(loaded.tokenizer), dtype=torch.int64)
    return of_ids(whole, whole.ids[:tokens]), of_ids(whole, torch.cat([opening, whole.ids[tokens:]])[:wanted])


def classified(loaded: LoadedLm, text: Text, scored: int, progress: Progress | None = None) -> HeadProfile:
    """The profile of a model's heads on ``text``, which follows the ``scored`` tokens that runs are scored on."""
    profile = classify(loaded, text, resolve(CLASSIFICATION, ("head_classification",)), progress=progress).profile
    return attrs.evolve(profile, text=f"{profile.text} after the first {scored}")
