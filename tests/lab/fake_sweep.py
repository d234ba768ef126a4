"""A sweep whose trials are quick and need no model; run as a program, it can be killed from outside.

What a trial does is in its recipe's name: nothing special, ``dies`` once, ``raises`` once, and so on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from rich.console import Console

from headwise import HeadwiseError, ModelError
from headwise_lab.schema.json_schema import structured
from headwise_lab.store.outcome_types import Outcome as Row
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_schema import record_of
from headwise_lab.sweeps.display import Display
from headwise_lab.sweeps.folder import locked
from headwise_lab.sweeps.local import Local
from headwise_lab.sweeps.plan import Plan
from headwise_lab.sweeps.running import Order, run
from headwise_lab.sweeps.tally import Tally
from headwise_lab.sweeps.trials import Terms, Trial, Work

QUESTIONS = 3


def alive(pid: int) -> bool:
    """Whether this process still runs; it may end, and be waited for, while we ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class FakeRunner:
    """Answers at once, or does what the trial's recipe says; ``terms.data`` is a folder for notes."""

    def __init__(self, terms: Terms) -> None:
        self._notes = Path(terms.data or ".")
        (self._notes / f"pid-{os.getpid()}").touch()
        self._seconds = terms.timed_batches / 1000

    def run(self, trial, advance):
        for _ in range(QUESTIONS):
            time.sleep(self._seconds)
            advance(1)
        self._misbehave(trial)
        record, rows = result(trial)
        return record_of(record), [structured(row, Row) for row in rows]

    def _misbehave(self, trial: Trial) -> None:
        first = self._notes / f"first-{trial.id}"
        again = first.exists()
        first.touch()
        if trial.recipe == "waits":
            (self._notes / f"waits-{os.getpid()}").touch()
            while not (self._notes / "go").exists():
                time.sleep(0.01)
        if trial.recipe == "dies" and not again:
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.recipe == "always-dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.recipe == "exits" and not again:
            os._exit(3)
        if trial.recipe == "raises" and not again:
            raise RuntimeError("out of\nmemory")
        if trial.recipe == "refuses":
            raise HeadwiseError("heads=9 is too many")
        if trial.recipe == "lacks":
            raise ModelError("the model has no CLIP tower")


def value(trial: Trial) -> float:
    """A figure that only this trial has."""
    return int(trial.id, 16) % 97 + trial.seed / 8


def result(trial: Trial):
    """Record and outcomes."""
    figure = float("nan") if trial.recipe == "nan" else value(trial)
    record = {
        **head(trial).to_json(),
        "id": "ff" if trial.recipe == "changed" else trial.id,
        "n": QUESTIONS,
        "metric": {"name": "points", "value": figure, "se": None},
    }
    return record, [{"id": str(number), "score": value(trial)} for number in range(QUESTIONS)]


def head(trial: Trial):
    return record_of({"id": trial.id, "benchmark": trial.benchmark, "model": trial.model})


def trials(count: int = 12, **recipes: str) -> list[Trial]:
    """Trials of two models and two benchmarks; ``t3="dies"`` says what the third does."""
    return [
        Trial(
            id=f"{number:04x}",
            label=f"trial {number}",
            model="ab"[number * 2 // count],
            benchmark="xy"[number % 2],
            recipe=recipes.get(f"t{number}"),
            keep=4,
            questions=QUESTIONS,
        )
        for number in range(count)
    ]


def plan(folder: Path, listed: list[Trial], pause: int = 1) -> Plan:
    """A plan whose runner leaves notes in ``folder``; ``pause``: milliseconds per question."""
    work = Work(terms=Terms(data=str(folder), timed_batches=pause), runner=f"{FakeRunner.__module__}:FakeRunner")
    return Plan("Fake", work, tuple(listed), {trial.id: partial(head, trial) for trial in listed})


def swept(
    folder: Path, listed: list[Trial], workers: int = 0, retries: int = 1, pause: int = 1, executor=None, **where
) -> Tally:
    """Run a sweep in ``folder/out`` with notes in ``folder``; ``pause``: milliseconds per question.

    ``where``: another ``out``, or a ``part`` of the trials.
    """
    out, part = where.get("out", folder / "out"), where.get("part")
    with locked(out, part):
        order = Order(
            title="Fake",
            plans=[plan(folder, listed, pause)],
            store=Store.open(out, "sweep"),
            executor=executor or Local(workers),
            retries=retries,
            part=part,
        )
        return run(order, Display(Console(file=sys.stderr), listed))


if __name__ == "__main__":
    # a shell's background jobs ignore Ctrl-C, and so does what they start: these tests, for example
    signal.signal(signal.SIGINT, signal.default_int_handler)
    swept(Path(sys.argv[1]), trials(), workers=int(sys.argv[2]), pause=10)
