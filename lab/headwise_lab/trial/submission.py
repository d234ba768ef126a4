"""Predictions that somebody else scores: the files that servers and judges take, in a run's output folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.benchmarks import Benchmark, Question
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.submission import Submits
from headwise_lab.store.atomic import put
from headwise_lab.store.locations import is_local, send
from headwise_lab.store.unfinished import forget
from headwise_lab.trial.answering import answered
from headwise_lab.trial.answers import Answers
from headwise_lab.trial.record import Setting, head_of_record, identity
from headwise_lab.trial.run import observer

FOLDER = "submissions"


def unanswered(questions: Sequence[Question]) -> bool:
    """Whether only a server can score these questions, because none has an answer."""
    return not any(question.answers for question in questions)


def submit(
    setting: Setting, inputs: Inputs, out: Path | None = None, advance: Callable[[int], None] = lambda _: None
) -> Path:
    """Have the model answer; write the submission, and the settings it was made with, into ``out``. Returns its path.

    Where there is no ``out``, or no submission can be made, DataError is raised before the model is asked.
    """
    benchmark = inputs.benchmark
    if out is None or not isinstance(benchmark, Submits):
        what = "give --out a folder for the submission" if isinstance(benchmark, Submits) else "it has no submission"
        raise DataError(f"only a server knows the answers of {benchmark.name}; {what}")
    benchmark.submission((), ())
    name = identity(setting, inputs)
    answers, _ = answered(setting.recipe, inputs, Answers(out, name), observer("recorder"), advance=advance)
    path = keep(benchmark, inputs.questions, [answer.prediction for answer in answers], out, name)
    head = json.dumps(head_of_record(setting, inputs).to_json(), indent=1, ensure_ascii=False)
    _write(out, path.with_suffix(".made.json").name, f"{head}\n".encode())
    forget(out, name)
    return path


def keep(benchmark: Benchmark, questions: Sequence[Question], predictions: Sequence[str], out: Path, name: str) -> Path:
    """Write the submission of these predictions into ``out``; raises DataError where it cannot be written."""
    if not isinstance(benchmark, Submits):
        raise DataError(f"{benchmark.name} has no submission; its answers are in its files")
    made = benchmark.submission(questions, predictions)
    return _write(out, f"{benchmark.name}-{name}{made.suffix}", made.content)


def _write(out: Path, name: str, content: bytes) -> Path:
    """Write a file, completely or not at all; returns its path."""
    path = out / FOLDER / name
    if not is_local(out):
        send(out, {f"{FOLDER}/{name}": content})
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, content)
    except OSError as error:
        raise DataError(f"{path} cannot be written to ({error.strerror}); give --out another folder") from error
    return path
