"""Scores for free answers: ``headwise judge`` gives the answers that a run wrote to a judge.

A judge is a function ``(question, answer, prediction) -> score`` from 0 to 1, found by name through the entry-point
group ``headwise.judge``. A string-match proxy ships with headwise. A judge that asks a language model is a few lines in
a package of the user's own, so that headwise itself needs no keys and costs no money.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from headwise.blame import reason
from headwise.errors import DataError, StrategyError
from headwise.registry import installed, load, only, owner_of
from headwise_lab.benchmarks.base import PERCENT, Question, mean
from headwise_lab.benchmarks.files import json_members
from headwise_lab.benchmarks.official.common import answers_of
from headwise_lab.benchmarks.official.mmvet import by_skill

GROUP = "judge"

Judging = Callable[[str, str, str], float]


@attrs.frozen(eq=False)
class Judge:
    """A judge by name, with the distribution that ships it."""

    name: str
    owner: str
    judging: Judging

    @classmethod
    def called(cls, name: str) -> Judge:
        """The judge ``name`` or ``OWNER/name``; raises StrategyError where there is none, several, or no function."""
        owner, _, bare = name.rpartition("/")
        entry = only(GROUP, bare, installed(GROUP), owner or None)
        found = load(entry)
        if not callable(found):
            raise StrategyError(f"judge {bare!r} ({owner_of(entry)}): {entry.value} is not a function")
        return cls(bare, owner_of(entry), found)

    def score(self, question: Question, prediction: str) -> float:
        """The score of one prediction. StrategyError names the judge's owner where it fails or leaves 0 to 1."""
        who = f"judge {self.name!r} ({self.owner})"
        try:
            score = float(self.judging(question.text, answers_of(question)[0], prediction))
        except (DataError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit, too
            raise StrategyError(f"{who} failed on question {question.id}: {reason(error)}") from error
        if not (math.isfinite(score) and 0 <= score <= 1):
            raise StrategyError(f"{who} gave question {question.id} a score of {score}, wanted 0 to 1")
        return score


def answers_in(path: Path) -> dict[str, str]:
    """Question id -> prediction, from the submission that a run wrote; DataError with file and line of a fault."""
    entries = json_members(path)
    for entry in entries:
        if not isinstance(entry.value, str):
            raise entry.wrong(f"expected a text as the answer to question {entry.key!r}")
    return {entry.key: entry.value for entry in entries}


def judged(questions: Sequence[Question], predictions: Mapping[str, str], judge: Judge) -> dict[str, object]:
    """The judge's scores of all questions that have a prediction, with total and figures per skill in per cent."""
    asked = [question for question in questions if question.id in predictions]
    if not asked:
        raise DataError("no answer belongs to a question of the benchmark")
    scores = [judge.score(question, predictions[question.id]) for question in asked]
    return {
        "judge": judge.name,
        "judge_owner": judge.owner,
        "n": len(asked),
        "of": len(questions),
        "total": PERCENT * mean(scores),
        "skills": {skill: PERCENT * score for skill, score in by_skill(asked, scores).items()},
        "scores": {question.id: score for question, score in zip(asked, scores, strict=True)},
    }


def write_judged(record: Mapping[str, object], path: Path) -> None:
    """Write the judge's scores; raises DataError where the file cannot be written."""
    try:
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written to ({error.strerror})") from error
