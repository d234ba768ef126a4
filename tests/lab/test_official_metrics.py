"""Official figures on examples worked by hand, and the readings of answers they rest on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab import official_files as files

from headwise.errors import DataError
from headwise_lab.benchmarks import Question, benchmark
from headwise_lab.benchmarks.official.common import MultipleChoice
from headwise_lab.benchmarks.submission import Submits
from headwise_lab.metrics.choices import option_letter, science_letter
from headwise_lab.metrics.string_match import string_match_proxy


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))


def figures(name: str, folder: Path, said: Sequence[str]) -> dict[str, float]:
    found = benchmark(name)
    questions = found.load(files.WRITERS[name](folder), None)
    metrics = found.metrics(questions, said)
    scores = [found.score(q, p) for q, p in zip(questions, said, strict=True)]
    units = found.units(questions, scores)
    headline = found.scale * sum(units.values()) / len(units)
    assert pytest.approx(headline) == metrics[found.metric]  # what a record's standard error belongs to
    return metrics


def test_vqav2_counts_agreeing_people_leaving_each_out(tmp_path: Path) -> None:
    """Nine nets, ten noes, three twos: 1, 1, and (7 x 3/3 + 3 x 2/3) / 10."""
    found = figures("vqav2", tmp_path, ["Net.", "No", "Two"])
    expected = {"accuracy": 290 / 3, "accuracy/other": 100, "accuracy/yes/no": 100, "accuracy/number": 90}
    assert pytest.approx(expected) == found


def test_vizwiz_is_scored_per_kind_of_answer(tmp_path: Path) -> None:
    found = figures("vizwiz", tmp_path, ["the night-time", "on"])
    assert pytest.approx({"accuracy": 50, "accuracy/other": 100, "accuracy/unanswerable": 0}) == found


def test_textvqa_is_scored_softly(tmp_path: Path) -> None:
    found = figures("textvqa", tmp_path, ["Dakota", "kopenhagen"])
    assert pytest.approx({"accuracy": 50, "accuracy/text": 50}) == found


def test_gqa_wants_the_same_words_up_to_case_and_a_full_stop(tmp_path: Path) -> None:
    assert figures("gqa", tmp_path, ["No.", "Woman"]) == {
        "accuracy": 100,
        "accuracy/query": 100,
        "accuracy/verify": 100,
    }
    assert figures("gqa", tmp_path, ["no!", "the woman"]) == {"accuracy": 0, "accuracy/query": 0, "accuracy/verify": 0}


def test_pope_gives_every_subset_its_figures_and_the_mean_f1(tmp_path: Path) -> None:
    """Labels are yes, no, yes, no in each subset, and subsets take turns."""
    said = {"random": ["Yes", "No", "Yes", "No"], "popular": ["Yes", "Yes", "No", "No"], "adversarial": ["Yes"] * 4}
    turns = [said[subset][i] for i in range(4) for subset in ("random", "popular", "adversarial")]
    found = figures("pope", tmp_path, turns)
    f1 = {"random": 100, "popular": 50, "adversarial": 200 / 3}
    assert pytest.approx(f1) == {subset: found[f"f1/{subset}"] for subset in f1}
    assert pytest.approx(650 / 9) == found["f1"]
    assert pytest.approx(200 / 3) == found["accuracy"]
    assert [found[f"yes_ratio/{subset}"] for subset in f1] == [50, 50, 100]


def test_mme_sums_ten_categories_of_perception_and_four_of_cognition(tmp_path: Path) -> None:
    found = benchmark("mme")
    questions = found.load(files.mme(tmp_path), None)
    said = ["Yes" if q.kind == "OCR" else q.answers[0] for q in questions]  # of OCR, one of two is right
    told = found.metrics(questions, said)
    assert {name: told[name] for name in ("perception", "cognition")} == {"perception": 1850, "cognition": 800}
    assert {name: told[name] for name in ("acc/OCR", "acc_plus/OCR")} == {"acc/OCR": 50, "acc_plus/OCR": 0}


def test_mme_tells_no_total_where_a_category_was_not_asked(tmp_path: Path) -> None:
    found = benchmark("mme")
    questions = found.load(files.mme(tmp_path, files.COGNITION), None)
    told = found.metrics(questions, ["Yes"] * len(questions))
    assert "perception" not in told
    assert told["cognition"] == 200


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"), (" B \n", "B"), ("B. sturgeon", "B"), ("The answer is B.", "B"), ("I think. The answer is C!", "C"),
        ("B.", ""), ("b", ""), ("F", ""), ("sturgeon", ""), ("", ""), ("The answer is B. The answer is C.", ""),
        ("AB", ""), ("B) sturgeon", ""),
    ],
)  # fmt: skip
def test_scienceqa_reads_letters_as_llava_does(prediction: str, letter: str) -> None:
    assert letter == science_letter(prediction)


def test_scienceqa_wants_the_right_letter(tmp_path: Path) -> None:
    found = figures("scienceqa", tmp_path, ["B", "The answer is B."])
    assert found == {"accuracy": 50, "accuracy/natural science": 100, "accuracy/social science": 0}


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"), ("B.", "B"), ("(B)", "B"), ("B) people", "B"), ("The answer is (B).", "B"), ("Answer: B", "B"),
        ("A", "A"), ("Option A fits", "A"), ("A man with an umbrella", ""), ("A dog and people", "B"),
        ("people", "B"), ("There are PEOPLE here", "B"), ("food and people", ""), ("A or B", ""), ("E", "E"),
        ("b", ""), ("", ""), ("nothing of that", ""),
    ],
)  # fmt: skip
def test_mmbench_reads_a_letter_then_an_options_text(prediction: str, letter: str) -> None:
    assert letter == option_letter(prediction, ("food", "people", "cars", "sky"))


def test_mmbench_counts_a_question_when_every_pass_is_right(tmp_path: Path) -> None:
    """Right letters are B A D C and A B: the first question fails in its third pass, which cannot even be read."""
    found = figures("mmbench", tmp_path, ["B", "(A)", "who knows", "C", "Ann", "B. Ann"])
    assert (
        pytest.approx(
            {
                "accuracy": 50,
                "accuracy/coarse_perception": 0,
                "accuracy/x": 100,
                "first_pass": 100,
                "unread": 100 / 6,
            }
        )
        == found
    )


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("ABCD")), min_size=1, max_size=12))
def test_circular_accuracy_never_exceeds_that_of_the_first_pass(passes: list[tuple[str, str]]) -> None:
    questions = [
        MultipleChoice(str(i), str(i // 4), Path(), "?", (right,), "kind", options=("p", "q", "r", "s"))
        for i, (right, _) in enumerate(passes)
    ]
    told = benchmark("mmbench").metrics(questions, [said for _, said in passes])
    assert told["accuracy"] <= told["first_pass"]
    assert (told["accuracy"] == 100) == all(right == said for right, said in passes)


@pytest.mark.parametrize(
    ("answer", "prediction", "score"),
    [
        ("-1<AND>-5", "x = -1 or x = -5", 1.0),
        ("-1<AND>-5", "x = -1", 0.5),
        ("-1<AND>-5", "x = 3", 0.0),
        ("christmas<OR>x-mas", "It is Christmas.", 1.0),
        ("christmas<OR>x-mas", "It is Easter.", 0.0),
        ("cat<OR>kitten<AND>two", "2 kittens", 0.5),
        ("cat<OR>kitten<AND>two", "Two of them: a kitten and ...", 1.0),
        ("art", "a cartoon", 0.0),
        ("cat", "", 0.0),
    ],
)
def test_the_proxy_looks_for_whole_words(answer: str, prediction: str, score: float) -> None:
    assert score == string_match_proxy("?", answer, prediction)


def test_mm_vet_is_called_a_proxy_wherever_it_is_scored(tmp_path: Path) -> None:
    found = figures("mm-vet", tmp_path, ["x = -1", "Christmas"])
    assert found == {
        "string_match_proxy": 75,
        "string_match_proxy/rec": 100,
        "string_match_proxy/ocr": 50,
        "string_match_proxy/math": 50,
    }


@pytest.mark.parametrize("name", ["vqav2-test-dev", "vizwiz-test", "mmbench-test"])
def test_what_only_a_server_knows_is_not_scored(name: str, tmp_path: Path) -> None:
    found = benchmark(name)
    question = found.load(files.WRITERS[name](tmp_path), None)[0]
    with pytest.raises(DataError, match=f"^question {question.id} has no answer in its file.*submission file"):
        found.score(question, "A")


def submitted(name: str, folder: Path, said: Sequence[str], limit: int | None = None) -> tuple[str, bytes]:
    found = benchmark(name)
    questions: list[Question] = found.load(files.WRITERS[name](folder), limit)
    assert isinstance(found, Submits)
    made = found.submission(questions, said)
    return made.suffix, made.content


def test_vqav2_submits_an_answer_to_every_question_of_the_test_split(tmp_path: Path) -> None:
    suffix, content = submitted("vqav2-test-dev", tmp_path, ["The Dog."], limit=1)
    assert suffix == ".json"
    assert sorted(json.loads(content), key=lambda row: row["question_id"]) == [
        {"question_id": 70, "answer": ""},
        {"question_id": 71, "answer": "dog"},
        {"question_id": 72, "answer": ""},
    ]


def test_vqav2_submits_what_it_asked_where_the_test_splits_file_is_missing(tmp_path: Path) -> None:
    files.vqav2_test_dev(tmp_path)
    (tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json").unlink()
    found = benchmark("vqav2-test-dev")
    questions = found.load(tmp_path, None)
    assert isinstance(found, Submits)
    assert [row["question_id"] for row in json.loads(found.submission(questions, ["a", "b"]).content)] == [71, 72]


def test_vizwiz_submits_names_of_pictures(tmp_path: Path) -> None:
    _, content = submitted("vizwiz-test", tmp_path, ["A red Sock!"])
    assert json.loads(content) == [{"image": "VizWiz_test_00000000.jpg", "answer": "red sock"}]


def test_mm_vet_submits_what_a_judge_reads(tmp_path: Path) -> None:
    _, content = submitted("mm-vet", tmp_path, ["x = -1", "Christmas, “surely”"])
    assert json.loads(content) == {"v1_0": "x = -1", "v1_1": "Christmas, “surely”"}


def test_mmbench_submits_a_sheet_with_its_columns_and_the_predictions(tmp_path: Path) -> None:
    from openpyxl import load_workbook

    suffix, content = submitted("mmbench", tmp_path, ["B", "A\x07", "", "=1+1", "A", "B"])
    assert suffix == ".xlsx"
    head, *rows = load_workbook(BytesIO(content), data_only=True).active.values
    assert head == ("index", "question", "A", "B", "C", "D", "prediction", "answer")
    assert rows[0] == (241, "Which is the main topic?", "food", "people", "cars", "sky", "B", "B")
    assert [row[-2] for row in rows] == ["B", "A", None, "=1+1", "A", "B"]
    assert rows[4] == (252, "Who is older?", "Ann", "Bob", None, None, "A", "A")


def test_a_submission_can_be_tried_before_anything_is_asked() -> None:
    for name in ("vqav2-test-dev", "vizwiz-test", "mmbench-test", "mm-vet"):
        found = benchmark(name)
        assert isinstance(found, Submits)
        assert found.submission((), ()).content


def test_without_its_library_no_sheet_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    found = benchmark("mmbench-test")
    assert isinstance(found, Submits)
    with pytest.raises(DataError, match=r"wants an Excel file; install openpyxl: pip install 'headwise\[excel\]'$"):
        found.submission((), ())
