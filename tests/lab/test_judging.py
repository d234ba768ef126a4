"""Free answers before a judge: the proxy that ships, judges of others, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.lab import official_files as files

from headwise.cli import main
from headwise.errors import DataError, StrategyError
from headwise_lab.benchmarks import benchmark
from headwise_lab.benchmarks.judge import Judge, answers_in, judged

SAID = {"v1_0": "x = -1", "v1_1": "Christmas"}


@pytest.fixture
def strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up distribution with judges, good and bad."""
    info = tmp_path / "site" / "other_judge-2.0.dist-info"
    files.save(info / "METADATA", "Metadata-Version: 2.1\nName: other-judge\nVersion: 2.0\n")
    names = ("half", "lavish", "weary", "nothing")
    files.save(info / "entry_points.txt", "[headwise.judge]\n" + "".join(f"{n} = court:{n}\n" for n in names))
    files.save(
        tmp_path / "site" / "court.py",
        "def half(question, answer, prediction):\n    return 0.5 * (question[0] == 'W') * ('<' in answer)\n"
        "def lavish(question, answer, prediction):\n    return 1.5\n"
        "def weary(question, answer, prediction):\n    raise TimeoutError('no reply')\n"
        "nothing = 3\n",
    )
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_the_judge_that_ships_is_a_proxy_by_name(tmp_path: Path) -> None:
    questions = benchmark("mm-vet").load(files.mmvet(tmp_path), None)
    told = judged(questions, SAID, Judge.called("string_match_proxy"))
    assert told["judge"] == "string_match_proxy"
    assert told["judge_owner"].startswith("headwise ")
    assert (told["n"], told["of"], told["total"]) == (2, 2, 75)
    assert told["skills"] == {"rec": 100, "ocr": 50, "math": 50}
    assert told["scores"] == {"v1_0": 0.5, "v1_1": 1}


@pytest.mark.usefixtures("strict")
def test_a_judge_of_another_package_hears_question_answer_and_prediction(tmp_path: Path) -> None:
    questions = benchmark("mm-vet").load(files.mmvet(tmp_path / "data"), None)
    told = judged(questions, SAID, Judge.called("half"))
    assert (told["judge_owner"], told["total"]) == ("other-judge 2.0", 50)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("lavish", "'lavish' .other-judge 2.0. gave question v1_0 a score of 1.5, wanted 0 to 1"),
        ("weary", "'weary' .other-judge 2.0. failed on question v1_0: no reply"),
    ],
)
def test_a_failing_judge_is_reported_with_its_owner(name: str, complaint: str, tmp_path: Path) -> None:
    questions = benchmark("mm-vet").load(files.mmvet(tmp_path / "data"), None)
    with pytest.raises(StrategyError, match=f"^judge {complaint}$"):
        judged(questions, SAID, Judge.called(name))


@pytest.mark.usefixtures("strict")
def test_unknown_and_uncallable_judges_are_one_sentence() -> None:
    with pytest.raises(StrategyError, match=r"^judge 'nothing' \(other-judge 2\.0\): court:nothing is not a function$"):
        Judge.called("nothing")
    with pytest.raises(StrategyError, match=r"^unknown judge 'string_match'; did you mean string_match_proxy"):
        Judge.called("string_match")


def test_answers_that_are_no_texts_or_no_questions_are_refused(tmp_path: Path) -> None:
    path = files.save(tmp_path / "said.json", '{"v1_0": "x",\n"v1_1": 3}')
    with pytest.raises(DataError, match=rf"^{path}, line 2: expected a text as the answer to question 'v1_1'$"):
        answers_in(path)
    questions = benchmark("mm-vet").load(files.mmvet(tmp_path), None)
    with pytest.raises(DataError, match=r"^no answer belongs to a question of the benchmark$"):
        judged(questions, {"v2_0": "x"}, Judge.called("string_match_proxy"))


def test_the_command_prints_figures_and_writes_every_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = files.save(tmp_path / "said.json", {"v1_0": "x = -1"})
    words = ["judge", str(said), "--data", str(files.mmvet(tmp_path / "data")), "--out", str(tmp_path / "told.json")]
    assert main(words) == 0
    first, *skills = capsys.readouterr().out.splitlines()
    assert first.startswith("string_match_proxy (headwise ")
    assert first.endswith("): 50.00 over 1 of 2 questions")
    assert skills == ["  ocr 50.00", "  math 50.00"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "told.json").read_text())


def test_the_command_refuses_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = files.save(tmp_path / "said.json", {"v1_0": "x"})
    assert main(["judge", str(said), "--data", str(tmp_path)]) == 2
    assert "mm-vet.json is missing" in capsys.readouterr().err
    data = str(files.mmvet(tmp_path / "data"))
    assert main(["judge", str(said), "--data", data, "--out", str(tmp_path / "no" / "where")]) == 2
    assert "cannot be written to" in capsys.readouterr().err
