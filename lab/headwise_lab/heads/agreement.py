"""Whether confidences are right: two halves of a text are classified separately and compared."""

from __future__ import annotations

import attrs
import numpy as np
import torch

from headwise.heads import Floats, HeadLabels
from headwise.registry import Strategy
from headwise_adapters.heads.statistics import Progress
from headwise_lab.heads.profile import Classified, classify, of_ids
from headwise_lab.models.load import LoadedLm
from headwise_lab.texts.tokens import Text, beginning

SHORTEST = 256
"""A shorter half is not classified."""

BINS = 10


@attrs.frozen(kw_only=True)
class Agreement:
    """How often two halves of a text give a head the same class, and how confident they are.

    ``agree``: share of heads with the same label in both. ``stated``: mean confidence of both. ``calibration_error``:
    the heads of both halves are put in bins of confidence; |share that agrees - mean confidence| of the bins, averaged
    over heads. ``tokens``: length of each half.
    """

    heads: int
    tokens: int
    agree: float
    stated: float
    calibration_error: float


def halves_agree(
    loaded: LoadedLm, text: Text, strategy: Strategy, whole: Classified, *, progress: Progress | None = None
) -> Agreement | None:
    """Classify both halves of the text that ``whole`` was made of; None where that is of no use.

    It is of no use where a half is shorter than SHORTEST tokens, or where classes depend on more than attention to the
    text: random tokens would be the same for both halves, and sensitivity takes a pass per head.
    """
    opening = torch.tensor(beginning(loaded.tokenizer), dtype=torch.int64)
    body = text.ids[opening.numel() :]
    size = body.numel() // 2
    if whole.statistics.asked != {"attention"} or size < SHORTEST:
        return None
    one, other = (
        classify(loaded, of_ids(text, torch.cat([opening, half])), strategy, progress=progress).profile.labels
        for half in (body[:size], body[-size:])
    )
    return compare(one, other, tokens=opening.numel() + size)


def compare(one: HeadLabels, other: HeadLabels, *, tokens: int) -> Agreement:
    """Agreement of two classifications of the same heads."""
    same = (one.labels == other.labels).astype(np.float64)
    confidence = np.stack([one.confidence, other.confidence])
    return Agreement(
        heads=same.size,
        tokens=tokens,
        agree=float(same.mean()),
        stated=float(confidence.mean()),
        calibration_error=calibration_error(confidence, np.stack([same, same])),
    )


def calibration_error(confidence: Floats, right: Floats) -> float:
    """Expected calibration error over ten bins of equal width (Guo et al. 2017), of arrays of one shape."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(right[bins == one].mean() - confidence[bins == one].mean()) * (bins == one).sum() for one in np.unique(bins)
    ]
    return float(sum(gaps) / confidence.size)
