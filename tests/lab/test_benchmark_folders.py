"""Benchmark folders: every fault is one sentence with file and line, and nothing is half written or overwritten."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headwise.errors import DataError
from headwise_lab.benchmarks import benchmark
from headwise_lab.scenes import Example
from headwise_lab.store.prepared_folder import prepared

NAMES = ("shapes-gqa", "shapes-mme", "shapes-pope", "shapes-textvqa")
COUNT = 18


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("benchmarks")
    for name in NAMES:
        benchmark(name).prepare(root / name, COUNT, seed=3)
    return {name: root / name for name in NAMES}


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(old: str, new: str) -> Callable[[str], str]:
    """Replace the first ``old`` from the third line on."""

    def apply(text: str) -> str:
        head, rest = text.split("\n")[:2], "\n".join(text.split("\n")[2:])
        assert old in rest
        return "\n".join([*head, rest.replace(old, new, 1)])

    return apply


POPE, GQA, TEXT = "coco_pope_popular.json", "testdev_balanced_questions.json", "TextVQA_0.5.1_val.json"
MME = "position/0002.txt"


@pytest.mark.parametrize(
    ("name", "file", "change", "complaint"),
    [
        ("pope", POPE, edit("{", "{{"), "line 3: not JSON, "),
        ("pope", POPE, edit('"yes"', '"maybe"'), "line 3: 'label' should be yes or no, found 'maybe'"),
        ("pope", POPE, edit('"text"', '"words"'), "line 3: the question has no 'text'"),
        (
            "pope",
            POPE,
            edit('"question_id": 3', '"question_id": 1'),
            "line 3: question 'popular/1' is already on line 1",
        ),
        ("pope", POPE, edit('"image": "S', '"image": "T'), "line 3: the picture .*images/THAPES_0+7.png is missing"),
        ("pope", POPE, lambda text: "[1]\n" + text, "line 1: expected a JSON object with a question, found .1."),
        ("pope", POPE, lambda text: "\n\n", " holds no question"),
        ("gqa", GQA, edit('"answer"', '"reply"'), "line 3: the question has no 'answer'"),
        ("gqa", GQA, edit('"answer": "', '"answer": ["", "'), "line 3: not JSON, "),
        ("gqa", GQA, edit('"detailed"', '"rough"'), "line 3: 'types' should hold the question's kind"),
        ("gqa", GQA, edit('"00000001"', '"00000000"'), "line 3: question '00000000' is already on line 2"),
        ("gqa", GQA, lambda text: "{}", " holds no question"),
        ("gqa", GQA, lambda text: "\n17", "line 2: expected questions, found 17"),
        ("textvqa", TEXT, edit('"answers": [', '"answers": ["x", '), "line 3: 'answers' should be a list of 10 texts"),
        (
            "textvqa",
            TEXT,
            edit('"question": "', '"question": 1.5, "q": "'),
            "line 3: 'question' should be text, found 1.5",
        ),
        ("textvqa", TEXT, lambda text: text.replace('"data"', '"date"'), "line 1: expected a JSON object with the key"),
        ("textvqa", TEXT, lambda text: '{"data":\n"none"}', "line 2: expected questions, found 'none'"),
        ("textvqa", TEXT, lambda text: '{"data": []}', " holds no question"),
        ("mme", MME, lambda text: text + "More?\tYes\n", "line 3: expected 2 questions about the picture, found 3"),
        ("mme", MME, lambda text: text.replace("\tNo", " No"), "line 2: expected a question, a tab, and Yes or No"),
        ("mme", MME, lambda text: text.replace("\tYes", "\tPerhaps"), "line 1: expected a question, a tab, and Yes"),
        ("gqa", "boxes.json", edit("[[", "[["[1:]), "line 3: (not JSON|question '00000001' should have a list)"),
        (
            "mme",
            "boxes.json",
            lambda text: '{"existence/0001:1":\n[[1, 2, "3", 4]]}',
            "line 2: question .* should have",
        ),
        ("mme", "boxes.json", lambda text: '{"existence/0001:1":\n[[5, 2, 3, 4]]}', "line 2: question .* an empty box"),
    ],
)
def test_malformed_files_are_reported_by_file_and_line(
    name: str, file: str, change: Callable[[str], str], complaint: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders[f"shapes-{name}"], tmp_path / name)
    path = folder / file
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=rf"^{path}(, )?{complaint}"):
        benchmark(f"shapes-{name}").load(folder, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_benchmark_is_one_sentence(name: str, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=rf"^{folder}.*(is missing|holds no question|No such file)[^\n]*$"):
            benchmark(name).load(folder, None)


def test_a_missing_subset_of_pope_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["shapes-pope"], tmp_path / "pope")
    (folder / POPE).unlink()
    with pytest.raises(DataError, match=rf"{POPE} is missing$"):
        benchmark("shapes-pope").load(folder, None)


def test_bytes_that_are_no_text_are_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["shapes-gqa"], tmp_path / "gqa")
    (folder / GQA).write_bytes(b"\xff{}")
    with pytest.raises(DataError, match=rf"{GQA} is not UTF-8 text: .* at byte 0$"):
        benchmark("shapes-gqa").load(folder, None)


@pytest.mark.parametrize(("name", "least"), list(zip(NAMES, (5, 4, 3, 1), strict=True)))
def test_a_count_that_leaves_a_part_empty_is_refused(name: str, least: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{name} needs at least {least} questions .* got a count of {least - 1}$"):
        benchmark(name).prepare(tmp_path / "small", least - 1, seed=0)
    benchmark(name).prepare(tmp_path / "small", least, seed=0)
    assert least == len(benchmark(name).load(tmp_path / "small", None))


def test_a_finished_folder_is_left_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["shapes-gqa"], tmp_path / "gqa")
    marked = folder / "images" / "n000000.png"
    marked.write_bytes(b"touched")
    benchmark("shapes-gqa").prepare(folder, COUNT, seed=3)
    assert marked.read_bytes() == b"touched"


def test_an_empty_folder_and_missing_parents_are_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "some" / "where"):
        benchmark("shapes-mme").prepare(folder, 4, seed=0)
        assert len(benchmark("shapes-mme").load(folder, None)) == 4


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(
        DataError, match=r"holds letters.txt, wanted \{.*shapes-gqa.*\}; choose another folder or delete"
    ):
        benchmark("shapes-gqa").prepare(tmp_path, 5, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(("count", "seed"), [(6, 0), (5, 1)])
def test_a_folder_with_another_count_or_seed_is_refused(count: int, seed: int, tmp_path: Path) -> None:
    benchmark("shapes-gqa").prepare(tmp_path / "gqa", 5, seed=0)
    before = contents(tmp_path / "gqa")
    with pytest.raises(DataError, match=rf'holds .*"count": 5, "seed": 0.*, wanted .*"count": {count}, "seed": {seed}'):
        benchmark("shapes-gqa").prepare(tmp_path / "gqa", count, seed)
    assert before == contents(tmp_path / "gqa")


@pytest.mark.parametrize("inner", ["", "deeper", "deeper/still"])
def test_a_place_that_cannot_be_a_folder_is_one_sentence(inner: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"^shapes-gqa cannot be written to .*file[^\n]*: (Not a directory|File exists)$"
    ):
        benchmark("shapes-gqa").prepare(tmp_path / "file" / inner, 5, seed=0)


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Example.save_picture

    def full(case: Example, path: Path) -> None:
        if path.stem.endswith("3"):
            raise OSError(28, "No space left on device")
        saved(case, path)

    monkeypatch.setattr(Example, "save_picture", full)
    with pytest.raises(DataError, match=r"cannot be written to .*gqa: No space left on device$"):
        benchmark("shapes-gqa").prepare(tmp_path / "gqa", 5, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_end_with_one_whole_folder(tmp_path: Path) -> None:
    stamp = {"benchmark": "mine", "count": 1}

    def slow(workplace: Path) -> None:
        prepared(tmp_path / "shared", stamp, lambda other: (other / "who").write_text("the faster"))
        (workplace / "who").write_text("the slower")

    prepared(tmp_path / "shared", stamp, slow)
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
    assert (tmp_path / "shared" / "who").read_text() == "the faster"
