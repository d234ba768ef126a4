"""Official answer rules and figures, against values worked out by hand and slow references."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise_lab.metrics.answers import gqa_answer, mme_yes_no, pope_yes_no, soft_accuracy, vqa_answer
from headwise_lab.metrics.yes_no import FIGURES, yes_no_figures

LAWS = settings(deadline=None, max_examples=50, derandomize=True)


@pytest.mark.parametrize(
    ("expected", "prediction"),
    [
        ("yes", "Yes"),
        ("no", "No"),
        ("no", "no"),
        ("no", "No, there is a red circle."),
        ("no", "There is no red circle"),
        ("no", "It is not. Yes"),
        ("yes", "Yes. There is no doubt"),  # only the first sentence counts
        ("no", "  No  "),
        ("yes", "NO"),  # the official script knows No, no and not, nothing else
        ("yes", "Nope"),
        ("yes", "there is no\nbird"),  # it splits at spaces only
        ("yes", ""),
    ],
)
def test_pope_reads_as_llavas_script_does(expected: str, prediction: str) -> None:
    assert expected == pope_yes_no(prediction)


@pytest.mark.parametrize(
    ("expected", "prediction"),
    [
        ("yes", "Yes"),
        ("yes", " yes, it is"),
        ("yes", "YES."),
        ("no", "No."),
        ("no", "not sure"),
        ("no", "know"),  # four characters, wherever the word is in them
        ("yes", "oyes, no"),
        ("other", "I say yes"),
        ("other", "Yeah"),
        ("other", ""),
    ],
)
def test_mme_reads_the_first_four_characters(expected: str, prediction: str) -> None:
    assert expected == mme_yes_no(prediction)


@pytest.mark.parametrize(
    ("expected", "text"), [("red", "Red."), ("top-left", " top-left\n"), ("2", "2"), ("st. ives", "St. Ives...")]
)
def test_gqa_drops_case_and_final_full_stops_only(expected: str, text: str) -> None:
    assert expected == gqa_answer(text)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("stop", "The Stop!"),
        ("exit", "an\texit\n"),
        ("2", "two"),
        ("0", "none"),
        ("10", "Ten"),
        ("1000", "1,000"),
        ("3.5", "3.5"),
        ("ab", "a.b."),
        ("top left", "top-left"),
        ("xy", "- x-y"),  # one dash beside a space takes all dashes away
        ("don't", "dont"),
        ("couldn't've", "couldnt've"),
        ("couldn't've", "couldn'tve"),
        ("couldntve", "couldntve"),  # one apostrophe may be missing, not two
        ("'twas", "twas"),
        ("somebodyd", "somebody'd"),  # so in the official table
        ("cat 's", "cat's"),
        (".", "." * 33),  # 32 of them go
        ("", "the"),
        ("what", "what?"),
    ],
)
def test_textvqa_reads_as_the_evalai_processor_does(expected: str, text: str) -> None:
    assert expected == vqa_answer(text)


@pytest.mark.parametrize(("expected", "agreeing"), [(0.0, 0), (0.3, 1), (0.6, 2), (0.9, 3), (1.0, 4), (1.0, 10)])
def test_soft_accuracy_by_how_many_of_ten_agree(expected: float, agreeing: int) -> None:
    answers = ["The Stop"] * agreeing + ["exit"] * (10 - agreeing)
    assert expected == pytest.approx(soft_accuracy("stop.", answers))


@LAWS
@given(st.lists(st.sampled_from(["stop", "exit", "taxi"]), min_size=10, max_size=10), st.sampled_from(["stop", "exit"]))
def test_soft_accuracy_is_the_mean_over_all_nines(answers: list[str], prediction: str) -> None:
    nines = list(combinations(answers, 9))
    expected = sum(min(1, nine.count(prediction) / 3) for nine in nines) / len(nines)
    assert expected == pytest.approx(soft_accuracy(prediction, answers))


def test_yes_no_figures_of_ten_answers() -> None:
    truth = ["yes"] * 5 + ["no"] * 5
    said = ["yes", "yes", "yes", "no", "no", "yes", "no", "no", "no", "no"]  # 3 hits, 2 misses, 1 false alarm
    expected = {"accuracy": 0.7, "precision": 3 / 4, "recall": 3 / 5, "f1": 2 / 3, "yes_ratio": 0.4}
    assert expected == pytest.approx(yes_no_figures(said, truth))
    assert set(FIGURES) == set(expected)


def test_yes_no_figures_without_a_yes_are_zero_not_an_error() -> None:
    expected = {"accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes_ratio": 0.0}
    assert expected == yes_no_figures(["no", "no"], ["no", "no"])
