"""mm-vet: questions that need several skills at once, answered freely (Yu et al. 2023, arXiv:2308.02490).

``mm-vet.json`` and ``images/``. In published figures GPT-4 is the judge. The submission is the file that MM-Vet's
script reads, and ``headwise judge`` gives its answers to any judge that is installed. What a run scores by itself is a
string-match proxy: it is called so wherever it appears, and cannot be compared with published figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise_lab.benchmarks.base import PERCENT, Question, mean
from headwise_lab.benchmarks.files import Entry, QuestionRow, distinct, json_members
from headwise_lab.benchmarks.official.common import LONG, Official, answers_of
from headwise_lab.benchmarks.official.reading import first_existing, in_file_order
from headwise_lab.benchmarks.submission import Submission, json_submission
from headwise_lab.metrics.string_match import string_match_proxy

FILE = "mm-vet.json"
SKILLS = ("rec", "ocr", "know", "gen", "spat", "math")


class MmVet(Official):
    """MM-Vet, by a string-match proxy; its answers are for a judge."""

    name = "mm-vet"
    metric = "string_match_proxy"
    new_tokens = LONG
    judged = True
    files = f"{FILE} and images/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        path, images = first_existing(folder, FILE, f"mm-vet/{FILE}"), first_existing(folder, "images", "mm-vet/images")
        entries = distinct(path, [(entry.key, entry) for entry in json_members(path)])
        return in_file_order([_row(name, entry, images) for name, entry in entries.items()], limit)

    def score(self, question: Question, prediction: str) -> float:
        """The share of the wanted elements that occur in the prediction."""
        return string_match_proxy(question.text, answers_of(question)[0], prediction)

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The proxy over all questions, and per skill over the questions that need it."""
        scores = self.scores(questions, predictions)
        return {self.metric: PERCENT * mean(scores)} | {
            f"{self.metric}/{skill}": PERCENT * score for skill, score in by_skill(questions, scores).items()
        }

    def submission(self, questions: Sequence[Question], predictions: Sequence[str]) -> Submission:
        """What MM-Vet's evaluation reads: question id -> answer."""
        return json_submission({q.id: p for q, p in zip(questions, predictions, strict=True)})


def by_skill(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """Skill -> mean over the questions that need it, alone or with others. Skills without a question are left out."""
    pairs = list(zip(questions, scores, strict=True))
    found = {skill: [score for q, score in pairs if skill in q.kind.split("_")] for skill in SKILLS}
    return {skill: mean(of) for skill, of in found.items() if of}


def _row(name: str, entry: Entry, images: Path) -> QuestionRow:
    skills = entry.field("capability")
    if not isinstance(skills, list) or not skills or not set(map(str, skills)) <= set(SKILLS):
        raise entry.wrong(f"'capability' should list some of {', '.join(SKILLS)}, found {skills!r}")
    kind = "_".join(skill for skill in SKILLS if skill in skills)
    image, text = images / entry.text("imagename"), entry.text("question")
    return QuestionRow(Question(name, name, image, text, (entry.text("answer"),), kind), entry)
