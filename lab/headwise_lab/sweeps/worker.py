"""A worker process: it receives trials as JSON, runs them one after the other, and ends when its parent ends."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

import attrs

from headwise_lab.sweeps.executor import LateRunner, attempt
from headwise_lab.sweeps.trials import trial_from, work_from


def serve(pipe: Connection, work: str, environment: Mapping[str, str]) -> None:
    """Run the trials that come through the pipe until it is closed. ``environment`` is set before torch is imported."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent handles it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runner = LateRunner(work_from(json.loads(work)))

    def advance(questions: int) -> None:
        pipe.send_bytes(json.dumps({"advanced": questions}).encode())

    while True:
        try:
            trial = trial_from(json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):  # the parent has closed the pipe
            return
        outcome = attempt(runner, trial, advance)
        pipe.send_bytes(json.dumps({"ended": attrs.asdict(outcome, recurse=False)}).encode())


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended: a parent that was killed cannot stop its workers."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
