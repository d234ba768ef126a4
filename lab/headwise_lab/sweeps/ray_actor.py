"""What runs inside a Ray actor: it runs trials one after the other, keeps its model, and counts answered questions.

Headwise uses actors instead of Ray's tasks or its ActorPool: a task cannot keep a model and reports nothing before it
ends, and an ActorPool fails when one actor dies, which here uses up one attempt of one trial.
"""

from __future__ import annotations

import json
import threading

import attrs

from headwise_lab.sweeps.executor import LateRunner, attempt
from headwise_lab.sweeps.trials import trial_from, work_from

PAUSE = 5.0
"""Seconds for which ``answered`` waits for a new count."""


class Actor:
    """A worker with two threads: one runs trials, the other returns their progress. Arguments and results are JSON."""

    def __init__(self, work: str) -> None:
        self._runner = LateRunner(work_from(json.loads(work)))  # imports torch later, where Ray has chosen the GPU
        self._answered, self._news = 0, threading.Condition()

    def ready(self) -> None:
        """Returns once Ray has given the actor a machine and started it."""

    def run(self, trial: str) -> str:
        """Run a trial; returns how it ended, and how many questions this actor has answered in all its trials."""
        outcome = attempt(self._runner, trial_from(json.loads(trial)), self._advance)
        return json.dumps({"ended": attrs.asdict(outcome, recurse=False), "answered": self._answered})

    def answered(self, known: int) -> int:
        """The questions that this actor has answered in all; waits until they exceed ``known``, for PAUSE at most."""
        with self._news:
            self._news.wait_for(lambda: self._answered > known, PAUSE)
            return self._answered

    def _advance(self, questions: int) -> None:
        with self._news:
            self._answered += questions
            self._news.notify_all()
