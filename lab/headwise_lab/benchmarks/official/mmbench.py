"""mmbench and mmbench-cn: multiple choice that counts only when it is right in every order of the options (Liu et al.
2023, arXiv:2307.06281).

One tab-separated file with the pictures inside, such as ``mmbench_dev_20230712.tsv`` or ``MMBench_DEV_EN.tsv``. A
question is asked in several passes, whose indices differ by a million. Where only the first pass has the picture, the
other passes name its index. Letters are read by MMBench's rules. Where these rules find no letter, MMBench asks a
language model; here the answer is wrong and counted as ``unread``. Only a server scores the test splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.benchmarks.base import PERCENT, Question, by_kind, by_unit, mean
from headwise_lab.benchmarks.files import Entry, distinct
from headwise_lab.benchmarks.official.common import (
    LONG,
    OPTION_SUFFIX,
    MultipleChoice,
    Official,
    answers_of,
    with_options,
)
from headwise_lab.benchmarks.official.embedded import EmbeddedRow, table
from headwise_lab.benchmarks.official.reading import whole_units
from headwise_lab.benchmarks.submission import Submission, excel_submission
from headwise_lab.metrics.choices import option_letter

LETTERS = "ABCD"
PASS = 1_000_000  # between the indices of two passes of a question
REFERENCE = 64  # a cell with at most so many characters holds no picture but the index of the row that does
UNSENT = frozenset(("image", "hint", "category", "l2-category", "source", "comment"))  # as in LLaVA-1.5's script
CHINESE_SUFFIX = "\n请直接回答选项字母。"


class MmBench(Official):
    """MMBench's English dev split, by circular accuracy."""

    name = "mmbench"
    new_tokens = LONG
    split = "dev"
    chinese = False
    suffix = OPTION_SUFFIX
    files = "mmbench_dev_*.tsv or MMBench_DEV_EN.tsv"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order, all passes of a question together; DataError with file and line."""
        path = _file(folder, self.split, chinese=self.chinese)
        entries = distinct(path, [(entry.number("index"), entry) for entry in table(path)])
        return whole_units([self._row(name, entries) for name in entries], limit)

    def _row(self, name: str, entries: dict[str, Entry]) -> EmbeddedRow:
        entry = entries[name]
        options = _options(entry)
        hint, category = _cell(entry, "hint"), _cell(entry, "l2-category") or _cell(entry, "category")
        text = with_options((f"{hint}\n" if hint else "") + entry.text("question"), options, self.suffix)
        columns = tuple((column, cell) for column, cell in entry.value.items() if column not in UNSENT)
        unit = str(int(name) % PASS)
        answers = () if self.split == "test" else (_answer(entry, len(options)),)
        question = MultipleChoice(name, unit, Path(), text, answers, category, options=options, columns=columns)
        return EmbeddedRow(question, entry, picture=_picture(entry, entries))

    def score(self, question: Question, prediction: str) -> float:
        """1 where one pass is right."""
        return float(read_by(question, prediction) == answers_of(question)[0])

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Question -> 1 where all its passes are right."""
        return {unit: min(passes) for unit, passes in by_unit(questions, scores).items()}

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """Circular accuracy over all and per kind, accuracy of first passes alone, share of unread answers."""
        scores = self.scores(questions, predictions)
        circular = self.units(questions, scores)
        first: dict[str, tuple[Question, float]] = {}
        for question, score in zip(questions, scores, strict=True):
            first.setdefault(question.unit, (question, score))
        unread = [float(not read_by(q, p)) for q, p in zip(questions, predictions, strict=True)]
        return by_kind(self.metric, [question for question, _ in first.values()], list(circular.values())) | {
            "first_pass": PERCENT * mean([score for _, score in first.values()]),
            "unread": PERCENT * mean(unread),
        }

    def submission(self, questions: Sequence[Question], predictions: Sequence[str]) -> Submission:
        """The Excel sheet that MMBench's server takes: the file's own columns, and the predictions after D."""
        pairs = zip(questions, predictions, strict=True)
        rows = [dict(_columns(q)) | {"index": int(q.id), "prediction": p} for q, p in pairs]
        known = list(dict.fromkeys(column for row in rows for column in row))
        first = ["index", "question", *LETTERS, "prediction"]
        return excel_submission(first + [column for column in known if column not in first], rows)


class MmBenchTest(MmBench):
    """MMBench's English test split, for its server."""

    name = "mmbench-test"
    split = "test"
    files = "mmbench_test_*.tsv or MMBench_TEST_EN.tsv"


class MmBenchCn(MmBench):
    """MMBench's Chinese dev split, by circular accuracy."""

    name = "mmbench-cn"
    chinese = True
    suffix = CHINESE_SUFFIX
    files = "mmbench_dev_cn_*.tsv or MMBench_DEV_CN.tsv"


class MmBenchCnTest(MmBenchCn):
    """MMBench's Chinese test split, for its server."""

    name = "mmbench-cn-test"
    split = "test"
    files = "mmbench_test_cn_*.tsv or MMBench_TEST_CN.tsv"


def read_by(question: Question, prediction: str) -> str:
    """The letter that a prediction chooses; "" where the rules find none."""
    return option_letter(prediction, question.options if isinstance(question, MultipleChoice) else ())


def _columns(question: Question) -> tuple[tuple[str, str], ...]:
    return question.columns if isinstance(question, MultipleChoice) else ()


def _file(folder: Path, split: str, *, chinese: bool) -> Path:
    """The one file of a split and a language; raises DataError where there is none or more than one."""
    found = [path for path in sorted(folder.glob("*.tsv")) if _is_of(path, split, chinese=chinese)]
    if len(found) != 1:
        which = f"of the {'Chinese' if chinese else 'English'} {split} split of MMBench"
        if not found:
            raise DataError(f"{folder} holds no file {which}; wanted one .tsv file")
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder} holds {len(found)} files {which}: {names}; leave one")
    return found[0]


def _is_of(path: Path, split: str, *, chinese: bool) -> bool:
    words = re.split(r"[^a-z0-9]+", path.name.lower())
    return {"mmbench", split} <= set(words) and ("cn" in words) == chinese


def _cell(entry: Entry, column: str) -> str:
    """The text of a cell, "" where the column is missing; None and nan are texts like any other."""
    return str(entry.value.get(column, ""))


def _options(entry: Entry) -> tuple[str, ...]:
    """The options up to the first empty one."""
    cells = [_cell(entry, letter) for letter in LETTERS]
    options = tuple(cells[: cells.index("")] if "" in cells else cells)
    if len(options) < 2:
        raise entry.wrong(f"expected at least the options A and B, found {len(options)}")
    return options


def _answer(entry: Entry, options: int) -> str:
    answer = entry.text("answer")
    if answer not in tuple(LETTERS[:options]):
        raise entry.wrong(f"'answer' should be one of {', '.join(LETTERS[:options])}, found {answer!r}")
    return answer


def _picture(entry: Entry, entries: dict[str, Entry]) -> str:
    """The picture as text, from this row or from the row that this one names."""
    cell = entry.text("image")
    if len(cell) > REFERENCE:
        return cell
    if cell not in entries or len(entries[cell].text("image")) <= REFERENCE:
        raise entry.wrong(f"'image' names row {cell!r}, which holds no picture")
    return entries[cell].text("image")
