"""A profile in a few lines: the classes with their numbers of heads, confidences, and means of the statistics."""

from __future__ import annotations

from statistics import median
from typing import Any

import attrs
from rich.table import Table

from headwise.heads import HeadProfile
from headwise_lab.heads.agreement import BINS, Agreement
from headwise_lab.terminal.tables import text_table

NONE = "-"


def summary(profile: HeadProfile) -> dict[str, Any]:
    """Class -> number of ``heads``, ``share``, ``confidence`` (min, median, mean), and means of the ``statistics``.

    ``confidence`` and ``statistics`` are None for a class without a head.
    """
    labels = profile.labels
    found: dict[str, Any] = {}
    for index, name in enumerate(labels.names):
        own = labels.labels == index
        count, sure = int(own.sum()), sorted(labels.confidence[own].tolist())
        confidence = {"min": sure[0], "median": median(sure), "mean": sum(sure) / count} if count else None
        means = {key: float(values[own].mean()) for key, values in labels.statistics.items()} if count else None
        found[name] = {
            "heads": count, "share": count / labels.labels.size, "confidence": confidence, "statistics": means
        }  # fmt: skip
    return found


def summary_table(profile: HeadProfile) -> Table:
    """The summary as a table for the terminal."""
    names = list(profile.labels.statistics)
    means_of = (f"{name.replace('_', ' ')} (mean)" for name in names)
    table = text_table(["Class", "Heads", "Share", "Confidence min", "median", "mean", *means_of])
    for name, row in summary(profile).items():
        sure, means = row["confidence"] or {}, row["statistics"] or {}
        table.add_row(
            name,
            str(row["heads"]),
            f"{row['share']:.1%}",
            *(_shown(sure.get(key)) for key in ("min", "median", "mean")),
            *(_shown(means.get(key)) for key in names),
        )
    return table


def agreement_line(agreement: Agreement) -> str:
    """The agreement of two halves in a sentence."""
    return (
        f"Two halves of the text ({agreement.tokens} tokens each) agree on the class of {agreement.agree:.1%} of"
        f" {agreement.heads} heads; their mean stated confidence is {agreement.stated:.3f}, the expected calibration"
        f" error {agreement.calibration_error:.3f} ({BINS} bins)."
    )


def record(profile: HeadProfile, agreement: Agreement | None) -> dict[str, Any]:
    """The summary as plain data, for ``--json``."""
    layers, heads = profile.labels.labels.shape
    return {
        "schema": 1,
        "model": profile.model,
        "strategy": profile.strategy,
        "text": profile.text,
        "layers": layers,
        "heads": heads,
        "classes": summary(profile),
        "agreement": attrs.asdict(agreement) if agreement else None,
    }


def _shown(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
