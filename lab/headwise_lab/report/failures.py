"""Trials that ended without a result: what failed and what was refused, with the reason and the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwise.errors import DataError
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.store.records import RECORDS, has_result, read_lines

MISSING = "-"


def failures(records: Sequence[Mapping[str, Any]], attempts: Mapping[str, int]) -> Grid | None:
    """Every trial that failed or was refused; None where all have a result. ``attempts``: record -> how many."""
    rows: list[list[str | Mark]] = [
        [
            Mark(str(record["id"]), anchor=str(record["id"])),
            label(record),
            "failed" if record.get("error") else "refused",
            str(record.get("attempt") or attempts.get(str(record["id"]), 1)) if record.get("error") else MISSING,
            last_line(record.get("error") or record.get("refused")),
            str(record.get("command") or MISSING),
        ]
        for record in records
        if not has_result(record)
    ]
    if not rows:
        return None
    caption = (
        "Failed: the last line of the error of the last attempt; the sweep runs it again when it is started again."
        " Refused: it cannot be run as asked, and why."
    )
    header = ["Record", "Trial", "What", "Attempts", "Reason", "Command"]
    return Grid.of("Failures", "failures", header, rows, caption)


def label(record: Mapping[str, Any]) -> str:
    """What a trial was to do: benchmark or text, budget, and its recipe or strategies."""
    strategies = record.get("strategies")
    texts = [f"{hook}={text}" for hook, text in strategies.items()] if isinstance(strategies, Mapping) else []
    given = (record.get("budget") or {}).get("given")
    text = (record.get("text") or {}).get("name")
    told = [record.get("name"), record.get("benchmark") or text, given, record.get("recipe") or " ".join(texts)]
    return ", ".join(str(part) for part in told if part) or MISSING


def last_line(error: object) -> str:
    """The last line of an error that says something."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), MISSING)


def count_attempts(folder: Path) -> dict[str, int]:
    """Record -> lines it has in ``results.jsonl``, one per attempt."""
    try:
        lines, _ = read_lines(folder / RECORDS)
    except DataError:
        return {}
    return dict(Counter(str(record.get("id")) for _, record in lines))
