"""The answers side by side as cells of a table, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.asking.answering import Answered
from headwise_lab.asking.outcome import Outcome

ABSENT = "-"


def header(found: Outcome) -> list[str]:
    """Names of the columns; the answer is the second."""
    counts = ["Processed", "Kept"] if found.visual else ["Entries", "At the end"]
    return ["Recipe" if found.visual else "Strategy", "Answer", *counts, "Prefill", "KV bytes"]


def rows(found: Outcome) -> list[list[str]]:
    """The cells of each answer; instead of an answer, the reason of a recipe that could not run."""
    return [_row(one) for one in found.answers]


def _row(one: Answered) -> list[str]:
    if one.refused is not None:
        return [one.name, f"could not run: {one.refused}", *[ABSENT] * 4]
    counts = [one.entries, one.entries_end] if one.kept is None else [one.average, len(one.kept)]
    return [one.name, one.answer or "(nothing)", *map(_figure, counts), f"{one.prefill_ms:.1f} ms", f"{one.kv_bytes:,}"]


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}".removesuffix(".0")


def legend(found: Outcome) -> list[str]:
    """What the columns mean, and what else there is to know."""
    if not found.visual:
        what = "Entries: in the KV cache after the prefill, per layer and KV head, and at the end of the answer"
        return [f"{what}; the prompt has {found.length} tokens.", *found.notes]
    what = (
        "Processed: visual tokens in a decoder layer, averaged over the layers. Kept: those left after the last stage."
    )
    return [f"{what} The picture has {found.visual}.", *found.notes]


def heading(found: Outcome) -> str:
    """Model, and what it was asked."""
    about: Sequence[str] = [] if found.asked.image is None else [f"{found.asked.image.name}:"]
    return " ".join([f"{found.loaded.name},", *about, found.asked.text])
