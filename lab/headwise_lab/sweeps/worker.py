"""A worker process: gets trials as lines of JSON, runs them one after the other, and never outlives its parent."""

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
    """Run what comes in until the pipe is closed. ``environment`` is set before anything imports torch."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runner = LateRunner(work_from(json.loads(work)))

    def advance(questions: int) -> None:
        pipe.send_bytes(json.dumps({"advanced": questions}).encode())

    while True:
        try:
            trial = trial_from(json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):  # nothing more to do
            return
        outcome = attempt(runner, trial, advance)
        pipe.send_bytes(json.dumps({"ended": attrs.asdict(outcome, recurse=False)}).encode())


def _end_with_parent() -> None:
    """A parent that was killed could not say so; a trial that runs for hours need not be the last to know."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
