"""What runs inside a Ray actor: trials one after the other, with a model that stays, and a count of answers.

Actors and not Ray's tasks or its ActorPool: a task has no model that stays and tells nothing before it ends, and the
pool does not survive the death of an actor, which here costs one attempt of one trial.
"""

from __future__ import annotations

import json
import threading

import attrs

from headwise_lab.sweeps.executor import LateRunner, attempt
from headwise_lab.sweeps.trials import trial_from, work_from

PAUSE = 5.0
"""Seconds that a question about progress waits for news."""


class Actor:
    """A worker with two threads: one runs trials, the other tells how far they are. Only JSON goes in and out."""

    def __init__(self, work: str) -> None:
        self._runner = LateRunner(work_from(json.loads(work)))  # imports torch later, where Ray has chosen the GPU
        self._answered, self._news = 0, threading.Condition()

    def ready(self) -> None:
        """Answers once the actor has a place and is there."""

    def run(self, trial: str) -> str:
        """Run a trial; how it ended, and the number of questions that this actor has answered in all."""
        outcome = attempt(self._runner, trial_from(json.loads(trial)), self._advance)
        return json.dumps({"ended": attrs.asdict(outcome, recurse=False), "answered": self._answered})

    def answered(self, known: int) -> int:
        """Questions that this actor has answered in all, once they are more than ``known``, or after a while."""
        with self._news:
            self._news.wait_for(lambda: self._answered > known, PAUSE)
            return self._answered

    def _advance(self, questions: int) -> None:
        with self._news:
            self._answered += questions
            self._news.notify_all()
