"""The table of trials without a result: which failed or were refused, with the reason and the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwise_lab.report.page.grid import MISSING, Grid, Mark
from headwise_lab.store.record_types import Record


def failures(records: Sequence[Record], attempts: Mapping[str, int]) -> Grid | None:
    """All trials that failed or were refused; None where all have a result. ``attempts``: record -> number of them."""
    rows: list[list[str | Mark]] = [
        [
            Mark(record.id, anchor=record.id),
            label(record),
            "failed" if record.error else "refused",
            str(record.attempt or attempts.get(record.id, 1)) if record.error else MISSING,
            last_line(record.error or record.refused),
            record.command or MISSING,
        ]
        for record in records
        if not record.has_result
    ]
    if not rows:
        return None
    caption = (
        "Failed: the last line of the error of the last attempt; the sweep runs it again when it is started again."
        " Refused: it cannot be run as asked, and why."
    )
    header = ["Record", "Trial", "What", "Attempts", "Reason", "Command"]
    return Grid.of("Failures", "failures", header, rows, caption)


def label(record: Record) -> str:
    """A trial in one line: name, benchmark or text, budget, and recipe or strategies."""
    texts = " ".join(f"{hook}={text}" for hook, text in record.strategies.items())
    given, text = record.budget and record.budget.given, record.text and record.text.name
    parts = [record.name, record.benchmark or text, given, record.recipe or texts]
    return ", ".join(part for part in parts if part) or MISSING


def last_line(error: object) -> str:
    """The last line of an error that is not empty."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), MISSING)
