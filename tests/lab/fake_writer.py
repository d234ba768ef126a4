"""A process that adds records to a store until it is killed, and notes those that were acknowledged.

Every line goes to disk in two pieces with a pause between them, so that kills fall into the middle of lines.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from headwise_lab.store.outcome_types import Outcome
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_schema import record_of

_write = os.write


def _in_two(handle: int, content: bytes) -> int:
    if len(content) < 2:
        return _write(handle, content)
    half = _write(handle, content[: len(content) // 2])
    time.sleep(0.003)
    return half


def write(folder: Path, name: str, count: int) -> None:
    """Add ``count`` records of ids ``name-0``, ``name-1``, ..."""
    store = Store.open(folder, "demo")
    acknowledged = os.open(folder.parent / f"{name}.acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write = _in_two
    for number in range(count):
        identity = f"{name}-{number}"
        outcomes = [Outcome(id="0", score=float(number))] if number % 5 == 0 else []
        record = record_of({"id": identity, "n": len(outcomes), "note": "ß" * (number * 997 % 3000)})
        store.add(record, outcomes)
        _write(acknowledged, f"{identity}\n".encode())
