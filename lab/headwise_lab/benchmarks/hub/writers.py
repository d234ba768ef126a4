"""One function per benchmark: it reads the rows of a dataset and writes the files that the benchmark's loader reads.

Rows keep their order; pictures keep their bytes and their official names. Columns that a dataset lacks are left out.
ScienceQA's dataset has no ids, so the number of a row is its id.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import Any

from headwise.errors import DataError
from headwise_lab.benchmarks.files import members
from headwise_lab.benchmarks.hub.official import picture_bytes, plain, save_picture, suffix_of, suffixed
from headwise_lab.benchmarks.hub.source import HubDataset, Row
from headwise_lab.benchmarks.official import mmvet as mmvet_files
from headwise_lab.benchmarks.official import scienceqa as science_files
from headwise_lab.benchmarks.official import textvqa as textvqa_files
from headwise_lab.benchmarks.official import vqav2 as vqav2_files
from headwise_lab.benchmarks.shapes_gqa import FILE as GQA_FILE
from headwise_lab.benchmarks.shapes_pope import FILE as POPE_FILE
from headwise_lab.benchmarks.shapes_pope import SUBSETS

ASKED = ("question_id", "image_id", "question")
MISSING = "nan"
NEEDED = ("index", "question", "A", "B", "image")
TABLE = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source"),
    *("L2-category", "l2-category", "comment", "split"),
)
"""MMBench's columns in the order of its files."""


def vqav2(source: HubDataset, folder: Path, limit: int | None) -> None:
    """Validation: questions, ten people's answers, pictures."""
    extra = ("question_type", "multiple_choice_answer")
    with (
        members(folder / vqav2_files.QUESTIONS.format("val2014"), '{"questions": [', "]}") as questions,
        members(folder / vqav2_files.ANNOTATIONS, '{"annotations": [', "]}") as annotations,
    ):
        wanted = (*ASKED, "answer_type", "answers", "image")
        for row in islice(source.rows(wanted, optional=extra), limit):
            questions.add(_some(row, ASKED))
            annotations.add(_some(row, ("question_id", "image_id", "answer_type", "answers", *extra)))
            save_picture(_coco(folder, "val2014", row["image_id"]), row["image"])


def vqav2_test_dev(source: HubDataset, folder: Path, limit: int | None) -> None:
    """Test-dev: questions and pictures. Without a limit also the ids of the whole test split, where there is one."""
    with members(folder / vqav2_files.QUESTIONS.format("test-dev2015"), '{"questions": [', "]}") as questions:
        for row in islice(source.rows((*ASKED, "image")), limit):
            questions.add(_some(row, ASKED))
            save_picture(_coco(folder, "test2015", row["image_id"]), row["image"])
    if limit is None and "test" in source.files(source.config):
        with members(folder / vqav2_files.QUESTIONS.format("test2015"), '{"questions": [', "]}") as questions:
            for row in source.rows(ASKED, split="test"):
                questions.add(row)


def gqa(source: HubDataset, folder: Path, limit: int | None) -> None:
    """The questions of a config ..._instructions, and the pictures that they need from the config ..._images."""
    wanted: set[str] = set()
    with members(folder / GQA_FILE, "{", "}") as questions:
        for row in islice(source.rows(("id", "imageId", "question", "answer", "types")), limit):
            questions.add(_some(row, ("imageId", "question", "answer", "types")), str(row["id"]))
            wanted.add(str(row["imageId"]))
    pictures = re.sub("_instructions$", "_images", source.config or "")
    for row in source.rows(("id", "image"), config=pictures) if wanted else ():
        if str(row["id"]) in wanted:
            save_picture(folder / "images" / f"{plain(row['id'])}.jpg", row["image"])
            wanted.remove(str(row["id"]))
        if not wanted:
            break


def vizwiz(source: HubDataset, folder: Path, limit: int | None, *, split: str) -> None:
    """Questions with the names of their pictures, and ten people's answers, which the test split lacks."""
    extra = () if split == "test" else ("answers", "category")
    with members(folder / f"{split}.json", "[", "]") as questions:
        for row in islice(source.rows(("question_id", "question", "image", *extra)), limit):
            name = suffixed(row["question_id"])
            asked: Row = {"image": name, "question": row["question"]}
            if extra:
                answers = [{"answer": answer} for answer in row["answers"] or ()]
                asked |= {"answers": answers, "answer_type": row["category"]}
            questions.add(asked)
            save_picture(folder / split / name, row["image"])


def scienceqa(source: HubDataset, folder: Path, limit: int | None) -> None:
    """Problems that have a picture; the number of a row is the problem's id."""
    fields = ("question", "choices", "answer", "hint", "subject")
    numbers = []
    with members(folder / science_files.PROBLEMS, "{", "}") as problems:
        for number, row in zip(count(), source.rows((*fields, "image")), strict=False):
            if row["image"] is None:
                continue
            problems.add(_some(row, fields) | {"hint": row["hint"] or "", "image": "image.png"}, str(number))
            save_picture(folder / "images" / "test" / str(number) / "image.png", row["image"])
            numbers.append(str(number))
            if len(numbers) == limit:
                break
    with members(folder / science_files.SPLITS, '{"test": [', "]}") as split:
        for name in numbers:
            split.add(name)


def textvqa(source: HubDataset, folder: Path, limit: int | None) -> None:
    """Questions, ten people's answers, pictures, and what an OCR system read in each picture."""
    fields = ("question_id", "image_id", "question", "answers")
    read: set[str] = set()
    with (
        members(folder / textvqa_files.FILE, '{"data": [', "]}") as questions,
        members(folder / textvqa_files.OCR_FILE, '{"data": [', "]}") as tokens,
    ):
        for row in islice(source.rows((*fields, "image"), optional=("ocr_tokens",)), limit):
            questions.add(_some(row, fields))
            name = plain(row["image_id"])
            save_picture(folder / textvqa_files.IMAGES / f"{name}.jpg", row["image"])
            if "ocr_tokens" in row and name not in read:
                tokens.add({"image_id": name, "ocr_tokens": row["ocr_tokens"] or []})
                read.add(name)


def pope(source: HubDataset, folder: Path, limit: int | None) -> None:
    """A file per category. Categories take turns, so each split gives an equal share of a limit, rounded up.

    Where one split holds all categories, it is read whole.
    """
    share = None if limit is None or len(source.splits) < len(SUBSETS) else -(-limit // len(source.splits))
    with ExitStack() as stack:
        paths = {subset: folder / POPE_FILE.format(subset) for subset in SUBSETS}
        files = {subset: stack.enter_context(path.open("w", encoding="utf-8")) for subset, path in paths.items()}
        for row in _of_splits(
            source, ("question_id", "image_source", "question", "answer", "category", "image"), share
        ):
            if row["category"] not in files:
                raise DataError(f"'category' should be one of {', '.join(SUBSETS)}, found {row['category']!r}")
            name = suffixed(row["image_source"])
            label = str(row["answer"]).strip().lower()
            asked = {"question_id": row["question_id"], "image": name, "text": row["question"], "label": label}
            files[row["category"]].write(f"{json.dumps(asked, ensure_ascii=False)}\n")
            save_picture(folder / "val2014" / name, row["image"])


def mme(source: HubDataset, folder: Path, limit: int | None) -> None:
    """A folder per category: every picture, and a file of its two questions. All rows are read, whatever the limit."""
    for row in source.rows(("question_id", "question", "answer", "category", "image")):
        category, name = folder / plain(row["category"]), plain(str(row["question_id"]).rpartition("/")[2])
        line = f"{row['question']}\t{row['answer']}"
        if line.count("\t") != 1 or len(line.splitlines()) != 1:
            raise DataError(f"question and answer should be a line each and without tabs, found {line!r}")
        save_picture(category / name, row["image"])
        with (category / name).with_suffix(".txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")


def mmbench(source: HubDataset, folder: Path, limit: int | None, *, name: str) -> None:
    """The table. A picture stands in the first row that shows it. All rows are read, whatever the limit."""
    shown: dict[str, Any] = {}
    with (folder / name).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        header: list[str] = []
        others = [column for column in TABLE if column not in NEEDED]
        for row in source.rows(NEEDED, optional=others):
            if not header:
                header = [column for column in TABLE if column in row]
                writer.writerow([column.lower() if column == "L2-category" else column for column in header])
            content = picture_bytes(row["image"])
            first = shown.setdefault(hashlib.sha256(content).hexdigest(), row["index"])
            row["image"] = base64.b64encode(content).decode() if first == row["index"] else first
            empty = {*_left_out(row), *(column for column in header if row[column] is None)}
            writer.writerow(["" if column in empty else row[column] for column in header])


def _left_out(row: Row) -> list[str]:
    """Columns that hold nan because the question lacks them: the hint, and the last options (as lmms-eval reads it).

    A nan before another option is the text of an option. In MMBench's own files every nan is text.
    """
    found = ["hint"] if row.get("hint") == MISSING else []
    for letter in ("D", "C"):
        if row.get(letter) not in (MISSING, None):
            break
        found.append(letter)
    return [column for column in found if column in row]


def mmvet(source: HubDataset, folder: Path, limit: int | None) -> None:
    """Questions with the skills they need, which the dataset separates by commas."""
    with members(folder / mmvet_files.FILE, "{", "}") as questions:
        for row in islice(source.rows(("question_id", "question", "answer", "capability", "image")), limit):
            picture = f"{plain(row['question_id'])}{suffix_of(picture_bytes(row['image']))}"
            skills = row["capability"]
            listed = [skill.strip() for skill in skills.split(",")] if isinstance(skills, str) else skills
            asked = {"imagename": picture, "question": row["question"], "answer": row["answer"], "capability": listed}
            questions.add(asked, row["question_id"])
            save_picture(folder / "images" / picture, row["image"])


def _of_splits(source: HubDataset, columns: tuple[str, ...], share: int | None) -> Iterator[Row]:
    for split in source.splits:
        yield from islice(source.rows(columns, split=split), share)


def _coco(folder: Path, split: str, image: Any) -> Path:
    if not isinstance(image, int):
        raise DataError(f"'image_id' should be a whole number, found {image!r}")
    return folder / split / f"COCO_{split}_{image:012d}.jpg"


def _some(row: Row, fields: tuple[str, ...]) -> Row:
    return {field: row[field] for field in fields if field in row}
