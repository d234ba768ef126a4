"""How many trials ended how, and a record in one line. Imports nothing heavy, so that `headwise status` is quick."""

from __future__ import annotations

import attrs

from headwise_lab.store.record_types import Record, TextRecord


@attrs.define
class Tally:
    """How many trials were run, were found in the store, failed, and could not be run."""

    ran: int = 0
    found: int = 0
    failed: int = 0
    refused: int = 0


def headline(record: Record) -> str:
    """A record's headline metric with its standard error; for a text also the effective context in entries."""
    metric = record.metric
    if metric is None:
        return "no figure"
    error = "" if metric.se is None else f" ± {metric.se:.2f}"
    entries = f" at {record.context:.1f} entries" if isinstance(record, TextRecord) else ""
    return f"{metric.name} {metric.value:.2f}{error}{entries}"
