"""The official benchmarks read small files in their official layouts, and name file and line of every fault."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.lab import official_files as files

from headwise.errors import DataError
from headwise_lab.benchmarks import SUFFIX, Benchmark, Question, benchmark, names, synthetic
from headwise_lab.benchmarks.questions import questions_of
from headwise_lab.benchmarks.submission import Submits

LETTER = "\nAnswer with the option's letter from the given choices directly."
SERVED = ("vqav2-test-dev", "vizwiz-test", "mmbench-test", "mmbench-cn-test")
COUNTS = {"vqav2": 3, "vqav2-test-dev": 2, "vizwiz": 2, "vizwiz-test": 1, "textvqa": 2, "textvqa-ocr": 2, "gqa": 2}
COUNTS |= {"pope": 12, "mme": 56, "scienceqa": 2, "mm-vet": 2}
COUNTS |= dict.fromkeys(("mmbench", "mmbench-test", "mmbench-cn", "mmbench-cn-test"), 6)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loaded(name: str, folder: Path, limit: int | None = None) -> list[Question]:
    return benchmark(name).load(files.WRITERS[name](folder), limit)


@pytest.mark.parametrize("name", files.WRITERS)
def test_every_question_is_read_with_a_picture_that_opens(name: str, tmp_path: Path) -> None:
    found = benchmark(name)
    assert isinstance(found, Benchmark)
    assert (found.name, found.scale) == (name, 100.0)
    questions = loaded(name, tmp_path / name)
    assert COUNTS[name] == len(questions) == len({question.id for question in questions})
    for question in questions:
        with Image.open(question.image) as picture:
            assert picture.size == (9, 7)
    assert {name in SERVED} == {not question.answers for question in questions}


def test_without_data_the_files_are_named_and_no_study_takes_them_by_default() -> None:
    assert {*files.WRITERS, *synthetic()} <= set(names())
    assert not set(files.WRITERS) & set(synthetic())
    for name in files.WRITERS:
        with pytest.raises(DataError, match=rf"^{name} is read from its official files.*--data a folder with .+$"):
            questions_of(benchmark(name))


def test_only_what_others_score_has_a_submission() -> None:
    assert {*SERVED, "mm-vet", "mmbench", "mmbench-cn"} == {
        name for name in files.WRITERS if isinstance(benchmark(name), Submits)
    }


def test_vqav2_is_asked_with_the_suffix_and_knows_what_ten_people_said(tmp_path: Path) -> None:
    first = loaded("vqav2", tmp_path)[0]
    assert first.text == "What is this photo taken looking through?" + SUFFIX
    assert first.answers == (*["net"] * 9, "mesh")
    assert (first.id, first.kind, first.image.name) == ("458752000", "other", "COCO_val2014_000000458752.jpg")


def test_vizwiz_is_offered_a_way_out(tmp_path: Path) -> None:
    first, second = loaded("vizwiz", tmp_path)
    way_out = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    assert first.text == "Can you tell me what this medicine is please?" + way_out + SUFFIX
    assert (first.kind, second.kind) == ("other", "unanswerable")


def test_textvqa_begins_questions_with_a_capital_and_tells_ocr_tokens_only_when_asked(tmp_path: Path) -> None:
    assert loaded("textvqa", tmp_path)[0].text == "What is the brand of this camera?" + SUFFIX
    hinted = benchmark("textvqa-ocr").load(tmp_path, None)
    assert hinted[0].text == "What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL" + SUFFIX
    assert hinted[1].text == "What does the small white text spell?\nReference OCR token: " + SUFFIX


def test_gqa_and_pope_are_asked_with_the_suffix(tmp_path: Path) -> None:
    assert loaded("gqa", tmp_path / "gqa")[1].text == "Who is wearing the dress?" + SUFFIX
    assert {"verify", "query"} == {question.kind for question in loaded("gqa", tmp_path / "gqa")}
    first = loaded("pope", tmp_path / "pope")[0]
    assert (first.text, first.answers, first.kind) == ("Is there a cat?" + SUFFIX, ("yes",), "random")


def test_mme_gives_up_its_own_suffix_for_llavas(tmp_path: Path) -> None:
    first = loaded("mme", tmp_path)[0]
    assert (first.text, first.unit, first.answers) == ("Is it existence?" + SUFFIX, "existence/0000", ("Yes",))


def test_scienceqa_asks_what_has_a_picture_in_the_splits_order(tmp_path: Path) -> None:
    fish, states = loaded("scienceqa", tmp_path)
    assert fish.text == "Context: Figure: sturgeon.\nSelect the fish.\nA. sturgeon\nB. cat" + LETTER
    options = "\nA. West Virginia\nB. Louisiana\nC. Arizona\nD. Oklahoma"
    assert states.text == "Which of these states is farthest north?" + options + LETTER
    assert [(q.id, q.answers, q.kind) for q in (fish, states)] == [
        ("11", ("B",), "natural science"),
        ("4", ("A",), "social science"),
    ]


def test_mmbench_keeps_the_passes_of_a_question_together_and_finds_their_pictures(tmp_path: Path) -> None:
    questions = loaded("mmbench", tmp_path)
    assert [question.unit for question in questions] == ["241"] * 4 + ["252"] * 2
    assert [question.answers for question in questions] == [("B",), ("A",), ("D",), ("C",), ("A",), ("B",)]
    assert questions[0].text == "Which is the main topic?\nA. food\nB. people\nC. cars\nD. sky" + LETTER
    assert questions[5].text == "Read:\n\tAnn is 5,\nBob is 4.\nWho is older?\nA. Bob\nB. Ann" + LETTER
    assert [question.kind for question in questions] == ["coarse_perception"] * 4 + ["x"] * 2
    assert [question.image for question in questions] == [questions[0].image] * 4 + [questions[4].image] * 2
    assert questions[4].image.read_bytes() == files.picture(1)


def test_mmbench_cn_asks_for_the_letter_in_chinese(tmp_path: Path) -> None:
    assert loaded("mmbench-cn", tmp_path)[0].text.endswith("\nD. sky\n请直接回答选项字母。")


def test_mm_vet_asks_the_bare_question(tmp_path: Path) -> None:
    first = loaded("mm-vet", tmp_path)[0]
    assert (first.text, first.answers, first.kind) == ("What is x in the equation?", ("-1<AND>-5",), "ocr_math")


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("pope", [("coco_pope_random.json", "coco"), ("coco_pope_popular.json", "coco"),
                  ("coco_pope_adversarial.json", "coco")]),
        ("vizwiz", [("val.json", "Annotations")]),
        ("gqa", [("testdev_balanced_questions.json", "data/questions"), ("images", "data")]),
        ("mm-vet", [("mm-vet.json", "mm-vet"), ("images", "mm-vet")]),
        ("textvqa", [("train_images", "train_val_images")]),
        ("scienceqa", [("images/test", ".")]),
    ],
)  # fmt: skip
def test_files_are_found_where_the_archives_unpack_them(
    name: str, moves: list[tuple[str, str]], tmp_path: Path
) -> None:
    plain = loaded(name, tmp_path)
    for source, target in moves:
        (tmp_path / target).mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / source, tmp_path / target)
    moved = benchmark(name).load(tmp_path, None)
    assert [(q.id, q.text, q.answers) for q in plain] == [(q.id, q.text, q.answers) for q in moved]
    assert all(question.image.is_file() for question in moved)


def test_mme_is_found_inside_its_release_folder(tmp_path: Path) -> None:
    files.mme(tmp_path / "MME_Benchmark_release_version", ("existence", "OCR"))
    (tmp_path / "MME_Benchmark_release_version" / "eval_tool").mkdir()
    found = benchmark("mme").load(tmp_path, None)
    assert {"existence", "OCR"} == {question.kind for question in found}


@pytest.mark.parametrize("name", ["vqav2", "vizwiz", "textvqa", "gqa", "scienceqa", "mm-vet"])
def test_a_limit_takes_the_beginning_of_the_file(name: str, tmp_path: Path) -> None:
    whole = loaded(name, tmp_path)
    assert whole[:1] == benchmark(name).load(tmp_path, 1)
    with pytest.raises(DataError, match=r"^a limit of 0 leaves no question; the smallest limit is 1$"):
        benchmark(name).load(tmp_path, 0)


def test_subsets_and_pairs_take_turns_under_a_limit(tmp_path: Path) -> None:
    assert Counter(q.kind for q in loaded("pope", tmp_path / "p", 4)) == {"random": 2, "popular": 1, "adversarial": 1}
    taken = loaded("mme", tmp_path / "m", 9)
    assert {2} == set(Counter(question.unit for question in taken).values())
    assert list(dict.fromkeys(question.kind for question in taken)) == ["existence", "count", "position", "color"]


def test_a_limit_never_splits_a_circular_question(tmp_path: Path) -> None:
    assert [question.unit for question in loaded("mmbench", tmp_path, 5)] == ["241"] * 4
    with pytest.raises(DataError, match=r"^a limit of 3 leaves no question; the smallest limit is 4$"):
        benchmark("mmbench").load(tmp_path, 3)


def test_pictures_that_are_not_asked_about_may_be_missing(tmp_path: Path) -> None:
    loaded("gqa", tmp_path)
    (tmp_path / "images" / "n1.jpg").unlink()
    assert len(benchmark("gqa").load(tmp_path, 1)) == 1
    with pytest.raises(DataError, match=r"line \d+: the picture .*n1\.jpg is missing$"):
        benchmark("gqa").load(tmp_path, None)


def test_pictures_inside_a_file_are_unpacked_once(tmp_path: Path, cache: Path) -> None:
    loaded("mmbench", tmp_path)
    stored = sorted((cache / "pictures").iterdir())
    assert [2, {".png"}] == [len(stored), {path.suffix for path in stored}]
    stored[0].write_bytes(files.picture(5))
    assert stored[0].read_bytes() in {
        question.image.read_bytes() for question in benchmark("mmbench").load(tmp_path, None)
    }


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file/pictures cannot be written to \(.+\); set HEADWISE_CACHE$"):
        loaded("mmbench", tmp_path)


def test_one_file_of_a_split_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no file of the English dev split of MMBench; wanted one .tsv file$"):
        benchmark("mmbench").load(tmp_path, None)
    for name in ("MMBench_DEV_EN.tsv", "MMBench_DEV_CN.tsv", "MMBench_TEST_EN.tsv", "mmbench_dev_20230712.tsv"):
        files.mmbench(tmp_path, name)
    with pytest.raises(
        DataError,
        match=r"2 files of the English dev split of MMBench: MMBench_DEV_EN.tsv, mmbench_dev_20230712.tsv; leave one$",
    ):
        benchmark("mmbench").load(tmp_path, None)
    for name in ("mmbench-test", "mmbench-cn"):
        assert len(benchmark(name).load(tmp_path, None)) == 6


def test_the_csv_modules_limit_is_left_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "mmbench_dev.tsv"
    rows = files.circular(1, "?", ["a", "b"], 0, image="A" * (before + 4))
    files.table(path, rows)
    with pytest.raises(DataError, match=r"line 2: the picture in this row is in no format that can be read$"):
        benchmark("mmbench").load(tmp_path, None)
    assert before == csv.field_size_limit()


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
OCR = "TextVQA_Rosetta_OCR_v0.2_val.json"
TSV = "mmbench_dev_20230712.tsv"
FAULTS = [
    ("vqav2", QUESTIONS, swap('"questions"', '"question"'), "line 1: expected a JSON object with the key 'questions'"),
    ("vqav2", QUESTIONS, swap("458752001", "458752000"), r"line \d+: question '458752000' is already on line \d+"),
    ("vqav2", QUESTIONS, swap("458752000", '"x"'), r"line \d+: 'question_id' should be a whole number, found 'x'"),
    ("vqav2", QUESTIONS, swap("458752001", "9"), r"line \d+: question '9' has no annotation in .*annotations.json"),
    ("vqav2", ANNOTATIONS, swap('"number"', '"amount"'), r"line \d+: 'answer_type' should be one of yes/no, number, o"),
    ("vqav2", ANNOTATIONS, swap('"answer": "2"', '"answer": 2'), r"line \d+: answer 1 should be an object with a text"),
    (
        "vqav2",
        ANNOTATIONS,
        swap('"answers": [', '"answers": [{"answer": "9"},'),
        r"line \d+: 'answers' should be a list",
    ),
    ("vizwiz", "val.json", swap('"question"', '"q"'), r"line \d+: the question has no 'question'"),
    ("vizwiz", "val.json", lambda text: "[]", " holds no question"),
    ("vizwiz", "val.json", lambda text: text[:-9], r"line \d+: not JSON, "),
    ("textvqa", "TextVQA_0.5.1_val.json", swap('"dakota",', '"dakota", "x",'), r"line \d+: 'answers' should be a list"),
    ("textvqa-ocr", OCR, swap('"DAKOTA"', "7"), r"line \d+: 'ocr_tokens' should be a list of texts"),
    ("textvqa-ocr", OCR, swap("0000000000000000", "1"), None),
    ("gqa", "testdev_balanced_questions.json", swap('"structural"', '"s"'), r"line \d+: 'types' should hold the quest"),
    ("pope", "coco_pope_popular.json", swap('"yes"', '"maybe"'), "line 1: 'label' should be yes or no, found 'maybe'"),
    ("pope", "coco_pope_random.json", lambda text: text + "{", "line 5: not JSON, "),
    ("mme", "existence/0001.txt", lambda text: text + "And?\tNo\n", "line 3: expected 2 questions about the picture"),
    (
        "scienceqa",
        "problems.json",
        swap('"answer": 0', '"answer": 4'),
        r"line \d+: 'answer' should be the number of on",
    ),
    (
        "scienceqa",
        "problems.json",
        swap('"answer": 0', '"answer": true'),
        r"line \d+: 'answer' should be the number of",
    ),
    ("scienceqa", "problems.json", swap('"Louisiana"', "3"), r"line \d+: 'choices' should be a list of texts"),
    ("scienceqa", "problems.json", swap('"cat"', '"cat", "c", "d", "e", "f"'), r"line \d+: 'choices' should be 2 to 5"),
    ("scienceqa", "pid_splits.json", swap('"5"', '"6"'), r"line \d+: problem '6' is not in .*problems.json"),
    ("scienceqa", "pid_splits.json", swap('"test"', '"exam"'), "line 1: expected a JSON object with the key 'test'"),
    ("scienceqa", "pid_splits.json", swap('"5"', '"11"'), r"line \d+: question '11' is already on line \d+"),
    ("mmbench", TSV, swap("241\t", "none\t"), "line 2: 'index' should be a whole number, found 'none'"),
    ("mmbench", TSV, swap("1000241\t", "241\t"), "line 6: question '241' is already on line 2"),
    ("mmbench", TSV, swap("\tB\timage", "\tE\timage"), "line 2: 'answer' should be one of A, B, C, D, found 'E'"),
    ("mmbench", TSV, swap("people", ""), "line 2: expected at least the options A and B, found 1"),
    ("mmbench", TSV, swap("\tmade\t", "\t"), "line 2: expected 12 columns, found 11"),
    ("mmbench", TSV, swap("\t252\t", "\t253\t"), "line 9: 'image' names row '253', which holds no picture"),
    ("mmbench", TSV, swap("image_topic\tiVBOR", "image_topic\t!VBOR"), "line 2: the picture is not base64 text"),
    ("mmbench", TSV, swap("iVBORw0K", "AAAAAAAA"), "line 2: the picture in this row is in no format that can be read"),
    ("mmbench", TSV, lambda text: text.partition("\n")[0], " holds no question"),
    ("mm-vet", "mm-vet.json", swap('"math"', '"maths"'), r"line \d+: 'capability' should list some of rec, ocr, know"),
    ("mm-vet", "mm-vet.json", swap('"v1_0.png"', '"v1_9.png"'), r"line \d+: the picture .*images/v1_9.png is missing"),
]


@pytest.mark.parametrize(("name", "file", "change", "complaint"), FAULTS)
def test_malformed_files_are_reported_by_file_and_line(
    name: str, file: str, change: Callable[[str], str], complaint: str | None, tmp_path: Path
) -> None:
    path = files.WRITERS[name](tmp_path) / file
    path.write_text(change(path.read_text()))
    where, told = (
        (path, complaint) if complaint else (path.with_name("TextVQA_0.5.1_val.json"), r"line \d+: picture '0+'")
    )
    with pytest.raises(DataError, match=rf"^{where}(, )?{told}[^\n]*$"):
        benchmark(name).load(tmp_path, None)


@pytest.mark.parametrize("name", files.WRITERS)
def test_an_empty_folder_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}[^\n]*(is missing|holds no question|holds no file of)[^\n]*$"):
        benchmark(name).load(tmp_path, None)
