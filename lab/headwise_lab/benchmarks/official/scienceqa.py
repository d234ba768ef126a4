"""scienceqa: school science with a picture, multiple choice (Lu et al. 2022, arXiv:2209.09513).

``problems.json``, ``pid_splits.json`` and ``images/test/ID/image.png``. The questions of the test split that have a
picture are asked; papers call them SQA-IMG. Prompt and reading of letters are LLaVA-1.5's.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import Question
from headwise_lab.benchmarks.files import Entry, QuestionRow, distinct, json_members
from headwise_lab.benchmarks.official.common import LONG, MultipleChoice, Official, answers_of, with_options
from headwise_lab.benchmarks.official.reading import first_existing, in_file_order
from headwise_lab.metrics.choices import LETTERS, science_letter

PROBLEMS, SPLITS = "problems.json", "pid_splits.json"


class ScienceQa(Official):
    """ScienceQA's test questions with a picture, by the letter that is chosen."""

    name = "scienceqa"
    new_tokens = LONG
    files = f"{PROBLEMS}, {SPLITS} and images/test/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in the split's order; DataError with file and line of what is wrong."""
        path, images = folder / PROBLEMS, first_existing(folder, "images/test", "test")
        problems = distinct(path, [(entry.key, entry) for entry in json_members(path)])
        rows = []
        splits = folder / SPLITS
        asked = distinct(splits, [(str(entry.value), entry) for entry in json_members(splits, "test")])
        for name, number in asked.items():
            if name not in problems:
                raise number.wrong(f"problem {name!r} is not in {path}")
            if problems[name].field("image") is not None:
                rows.append(_row(name, problems[name], images))
        return in_file_order(rows, limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where the letter of the right option is chosen."""
        return float(science_letter(prediction) == answers_of(question)[0])


def _row(name: str, entry: Entry, images: Path) -> QuestionRow:
    options, answer = _options(entry), entry.field("answer")
    if type(answer) is not int or not 0 <= answer < len(options):
        raise entry.wrong(f"'answer' should be the number of one of {len(options)} choices, found {answer!r}")
    hint = entry.text("hint")
    text = with_options((f"Context: {hint}\n" if hint else "") + entry.text("question"), options)
    image = images / name / entry.text("image")
    return QuestionRow(
        MultipleChoice(name, name, image, text, (LETTERS[answer],), entry.text("subject"), options=options), entry
    )


def _options(entry: Entry) -> tuple[str, ...]:
    options = entry.field("choices")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise entry.wrong("'choices' should be a list of texts")
    if not 1 < len(options) <= len(LETTERS):
        raise entry.wrong(f"'choices' should be 2 to {len(LETTERS)} texts, found {len(options)}")
    return tuple(options)
