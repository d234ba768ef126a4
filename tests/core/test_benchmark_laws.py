"""The laws of benchmarks: what ships keeps them, and each of them is broken by what it is there to find."""

from __future__ import annotations

import pytest

import headwise.testing
from headwise.cli import main
from headwise_lab.benchmarks.laws import LAWS

SHIPPED = ("shapes-pope", "shapes-gqa", "shapes-textvqa", "shapes-mme")


@headwise.testing.parametrize("benchmark", SHIPPED)
def test_conformance(check):
    check()


BROKEN = """
import pickle
import socket
from random import random

import attrs
from headwise_lab.benchmarks.shapes_gqa import ShapesGqa


class Mine(ShapesGqa):
    name = "mine"


class Misnamed(Mine):
    name = "yours"


class Boxed(Mine):
    def load(self, folder, limit):
        return [attrs.evolve(one, boxes=((0, 0, 5000, 9),)) for one in super().load(folder, limit)]


class Restless(Mine):
    def load(self, folder, limit):
        return [attrs.evolve(one, id=f"{one.id}-{random()}") for one in super().load(folder, limit)]


class Backwards(Mine):
    def load(self, folder, limit):
        return super().load(folder, None)[::-1][:limit] if limit else super().load(folder, None)


class Seedless(Mine):
    def prepare(self, folder, count, seed):
        super().prepare(folder, count, int(random() * 1e9))


class Scribbler(Mine):
    def load(self, folder, limit):
        (folder / "seen.txt").write_text(str(random()))
        return super().load(folder, limit)


class Caller(Mine):
    def load(self, folder, limit):
        try:
            socket.getaddrinfo("example.org", 80)
        except OSError:
            pass
        return super().load(folder, limit)


class Pickler(Mine):
    def load(self, folder, limit):
        pickle.loads(pickle.dumps(3))
        return super().load(folder, limit)


class Generous(Mine):
    def score(self, question, prediction):
        return 3.0


class Contrary(Mine):
    def score(self, question, prediction):
        return 1.0 - super().score(question, prediction)


class Headless(Mine):
    metric = "beauty"

    def metrics(self, questions, predictions):
        return {"accuracy": 1.0}


class Partial(Mine):
    def metrics(self, questions, predictions):
        return {"accuracy": 100.0 * self.score(questions[0], predictions[0])}


class Failing(Mine):
    def load(self, folder, limit):
        return 1 / 0
"""

FINDS = {
    "contract_is_whole": "Misnamed",
    "questions_are_whole": "Boxed",
    "ids_are_stable": "Restless",
    "a_limit_is_a_beginning": "Backwards",
    "preparing_repeats": "Seedless",
    "reading_changes_nothing": "Scribbler",
    "nothing_is_fetched": "Caller",
    "nothing_is_unpickled": "Pickler",
    "scores_are_shares": "Generous",
    "right_answers_are_right": "Contrary",
    "figures_follow_from_scores": "Headless",
    "order_means_nothing": "Partial",
}


@pytest.fixture
def mine(install):
    def made(kind):
        install(f"mine-{kind.lower()}", "1", {"benchmark": {"mine": f"mine_{kind.lower()}:{kind}"}},
                **{f"mine_{kind.lower()}": BROKEN})  # fmt: skip

    return made


@pytest.mark.parametrize(("law", "kind"), FINDS.items())
def test_every_law_finds_what_it_is_for(mine, law, kind):
    mine(kind)
    assert [known.__name__ for known in LAWS] == list(FINDS)
    with pytest.raises(headwise.testing.ConformanceError, match=f"breaks the law '{law}'"):
        headwise.testing.reproduce("benchmark", "mine", law)


def test_a_benchmark_that_fails_is_one_mistake_with_its_own_line(mine, capsys):
    mine("Failing")
    assert main(["check", "mine"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "  BROKEN  questions_are_whole: " in out
    assert "ZeroDivisionError" in out
    assert "mine_failing.py:" in out
    assert "return 1 / 0" in out
    assert "headwise_lab" not in out  # no frame of the kit
    assert "  10 other laws are not tried: they would tell of the same mistake\n" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vqav2"], "vqav2 prepares no questions of its own; give --data DIR, a folder with its files"),
        (["benchmark=shapes-gqq"], "unknown benchmark 'shapes-gqq'; did you mean shapes-gqa"),
        (["sum", "--data", "x"], "--data is for benchmarks, and sum is a head_scoring strategy; leave it out"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence(capsys, words, said):
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"headwise: {said}")
