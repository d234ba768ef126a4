"""``classify-heads`` as a user meets it: profile, picture, summary, and whether its confidences hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.lab.language_models import write_model, write_text

from headwise.cli import main
from headwise.heads import HeadLabels, HeadProfile
from headwise_lab.heads import agreement as agreement_module
from headwise_lab.heads.agreement import calibration_error, compare
from headwise_lab.heads.picture import colours
from headwise_lab.heads.summary import summary
from headwise_lab.models.load import load_language_model
from headwise_lab.texts.tokens import tokens_of

CLASSES = ["positional", "mixed", "gathering", "idle"]
laws = settings(deadline=None, max_examples=50, derandomize=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny", begins=True)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def classify(folder, words, tmp_path):
    def classify(*more, tokens=300, out="profile.json"):
        where = ["--model", str(folder), "--text", str(words), "--tokens", str(tokens), "--out", str(tmp_path / out)]
        return main(["classify-heads", *where, *more])

    return classify


@pytest.mark.parametrize(
    ("strategy", "classes", "statistic"),
    [
        ("locality", CLASSES, "w95"),
        ("entropy", ["positional", "mixed", "gathering"], "entropy"),
        ("retrieval", ["retrieval", "other"], "copying"),
        ("sensitivity:window=16", ["sensitive", "insensitive"], "rise"),
    ],
)
def test_every_strategy_leaves_a_profile_that_fits_the_model_and_a_picture(
    classify, folder, tmp_path, capsys, strategy, classes, statistic
):
    assert classify("--strategy", strategy, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    profile = HeadProfile.load(tmp_path / "profile.json")
    profile.check(load_language_model(str(folder)).geometry)
    assert list(profile.labels.names) == classes == list(told["classes"])
    assert {name: row["heads"] for name, row in told["classes"].items()} == profile.labels.counts()
    assert sum(row["share"] for row in told["classes"].values()) == pytest.approx(1)
    assert statistic in profile.labels.statistics
    assert (profile.model, told["model"], told["layers"], told["heads"]) == ("tiny", "tiny", 2, 4)
    assert profile.strategy == told["strategy"]
    assert profile.strategy.startswith(strategy.split(":")[0])
    assert profile.text.startswith("words.txt (")
    assert profile.text.endswith("), 300 tokens")
    assert told["agreement"] is None  # halves of 150 tokens say little
    with Image.open(tmp_path / "profile.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100


@torch.no_grad()
def test_profile_holds_the_attention_mass_of_every_window_that_fits_the_text(classify, folder, words, tmp_path):
    """Summed over full eager maps: rows of the last three quarters, all but the first four keys."""
    assert classify() == 0
    profile = HeadProfile.load(tmp_path / "profile.json")
    eager = load_language_model(str(folder), attention="eager")
    ids = tokens_of(eager.tokenizer, words, 300).ids
    full = torch.stack(eager.model(input_ids=ids[None], output_attentions=True).attentions)[:, 0].double()
    behind = torch.arange(300)[:, None] - torch.arange(300)
    assert profile.windows[-3:] == (128, 192, 256)
    for window, found in zip(profile.windows, np.moveaxis(profile.mass, -1, 0), strict=True):
        seen = (full * ((behind < window) & (torch.arange(300) >= 4)))[:, :, 76:].sum(dim=-1)  # 8 segments of 28 rows
        np.testing.assert_allclose(seen.mean(dim=-1), found, atol=1e-5)


def test_table_names_classes_confidences_and_files(classify, tmp_path, capsys):
    assert classify(tokens=600) == 0
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    lines = told.out.splitlines()
    assert lines[0].startswith("tiny, 2 layers x 4 heads, by locality:window=64,sinks=4,")
    header = next(line for line in lines if line.startswith("Class"))
    for column in ("Heads", "Share", "Confidence min", "median", "mean", "far (mean)", "within 64 (mean)"):
        assert column in header
    assert sum(int(line.split()[1]) for line in lines if line.split()[:1] and line.split()[0] in CLASSES) == 8
    assert any(line.startswith("Two halves of the text (300 tokens each) agree on the class of ") for line in lines)
    assert lines[-1] == f"Profile: {tmp_path / 'profile.json'} (picture: {tmp_path / 'profile.png'})"


def test_the_same_command_leaves_the_same_files(classify, tmp_path):
    assert classify(out="one.json") == classify(out="two.json") == 0
    for suffix in ("json", "png"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_halves_are_disjoint_and_each_begins_as_the_text_does(classify, capsys, monkeypatch):
    read = []
    own = agreement_module.classify

    def classify_and_tell(loaded, text, strategy, **more):
        read.append(text.ids)
        return own(loaded, text, strategy, **more)

    monkeypatch.setattr(agreement_module, "classify", classify_and_tell)
    assert classify("--json", tokens=602) == 0
    told = json.loads(capsys.readouterr().out)["agreement"]
    one, other = (ids.tolist() for ids in read)
    assert one[0] == other[0] == 0  # the token that begins every text
    assert len(one) == len(other) == 301 == told["tokens"]
    assert told["heads"] == 8
    assert 0 <= told["agree"] <= 1
    assert 0 <= told["calibration_error"] <= 1


@pytest.mark.parametrize("strategy", ["retrieval", "sensitivity:window=16"])
def test_strategies_that_ask_for_more_than_attention_are_not_run_on_halves(classify, capsys, strategy, monkeypatch):
    monkeypatch.setattr(agreement_module, "SHORTEST", 100)
    assert classify("--json", "--strategy", strategy) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--strategy", "localty"], "unknown head_classification strategy 'localty'; did you mean locality?"),
        (["--strategy", "head_scoring=sum"], "what is wanted here is head_classification"),
        (["--strategy", "locality:low=1,high=0.5"], "high=0.5 is below low=1; give low <= high"),
        (["--out", "profile.png"], "so --out cannot be profile.png"),
        (["--tokens", "9"], "a text of 9 tokens is too short for 8 segments of attention rows; give a longer one"),
        (["--tokens", "99999"], "99999 are wanted; give fewer or a longer text"),
        (["--strategy", "sensitivity:window=500"], "a text of 300 tokens never outgrows 4 sinks and a window of 500"),
        (["--text", "/nowhere.txt"], "text /nowhere.txt is missing"),
        (["--model", "/nowhere/at/all"], "there is no model folder /nowhere/at/all"),
    ],
)
def test_refusals_are_one_sentence_and_leave_no_file(classify, capsys, tmp_path, more, told):
    assert classify(*more) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines()[-1].startswith("headwise: ")
    assert told in found.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(classify, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert classify(out="file/profile.json", tokens=99999) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"headwise: profile {tmp_path / 'file' / 'profile.json'} cannot be written (")


def labels(numbers, confidence, names=("a", "b")):
    return HeadLabels(names=names, labels=np.array([numbers]), confidence=np.array([confidence], dtype=float))


def test_summary_counts_heads_and_leaves_empty_classes_empty():
    some = HeadLabels(
        names=("a", "b", "c"), labels=np.array([[0, 0], [2, 0]]), confidence=np.array([[0.5, 0.9], [0.7, 0.6]]),
        statistics={"far": np.array([[0.0, 0.3], [1.0, 0.6]])},
    )  # fmt: skip
    found = summary(HeadProfile(model="m", labels=some))
    assert found["a"] == {
        "heads": 3, "share": 0.75, "statistics": {"far": pytest.approx(0.3)},
        "confidence": {"min": 0.5, "median": 0.6, "mean": pytest.approx(2 / 3)},
    }  # fmt: skip
    assert found["b"] == {"heads": 0, "share": 0.0, "confidence": None, "statistics": None}
    assert found["c"]["confidence"] == {"min": 0.7, "median": 0.7, "mean": 0.7}


def test_agreement_counts_equal_labels():
    found = compare(labels([0, 1, 1, 0], [1, 1, 0.5, 0.5]), labels([0, 1, 0, 1], [1, 1, 0.5, 0.5]), tokens=9)
    assert (found.heads, found.tokens, found.agree, found.stated) == (4, 9, 0.5, 0.75)
    assert found.calibration_error == pytest.approx((2 * 0 + 2 * 0.5) / 4)


@laws
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_is_the_gap_in_each_bin_weighted_by_its_heads(heads):
    confidence, right = (np.array(part, dtype=float) for part in zip(*heads, strict=True))
    expected = 0.0
    for low in range(10):
        own = [(c, r) for c, r in heads if low / 10 <= c < (low + 1) / 10 or (low == 9 and c == 1)]
        expected += abs(sum(r for _, r in own) - sum(c for c, _ in own))
    assert calibration_error(confidence, right) == pytest.approx(expected / len(heads), abs=1e-9)


def test_calibrated_confidences_have_no_error_and_boasts_have_all_of_it():
    assert calibration_error(np.full(10, 0.7), np.array([1.0] * 7 + [0.0] * 3)) == pytest.approx(0)
    assert calibration_error(np.ones(10), np.zeros(10)) == 1


def test_colours_are_white_without_confidence_and_tell_classes_apart():
    profile = HeadProfile(model="m", labels=labels([0, 1, 1], [0.0, 1.0, 0.5]))
    white, full, half = colours(profile)[0]
    assert white.tolist() == [1, 1, 1]
    np.testing.assert_allclose((1 + full) / 2, half)
    assert not np.allclose(full, colours(HeadProfile(model="m", labels=labels([0], [1.0])))[0, 0])
