"""Figures of a yes/no question set: accuracy, precision, recall, F1 and how often the model says yes."""

from __future__ import annotations

from collections.abc import Sequence

FIGURES = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def yes_no_figures(said: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """POPE's five figures, 0 to 1, with "yes" as the positive class; a figure over nothing is 0.

    ``said`` and ``truth`` hold "yes" or "no" (anything else counts as a no) and must not be empty.
    """
    pairs = [(s == "yes", t == "yes") for s, t in zip(said, truth, strict=True)]
    hits = pairs.count((True, True))
    yes = sum(s for s, _ in pairs)
    precision, recall = _share(hits, yes), _share(hits, sum(t for _, t in pairs))
    return {
        "accuracy": sum(s == t for s, t in pairs) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_ratio": yes / len(pairs),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
