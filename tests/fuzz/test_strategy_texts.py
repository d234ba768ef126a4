"""Damaged strategy texts give a strategy that can be written down again, or one sentence: no traceback, no hang."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.strategy_texts import attempt

FEW, MANY = 400, 100_000


def failures(seeds):
    return [wrong for seed in seeds if (wrong := attempt(seed)) is not None]


def test_a_few_damaged_texts():
    assert failures(range(FEW)) == []


@pytest.mark.slow
def test_many_damaged_texts():
    first = random.SystemRandom().randrange(10**9)
    print(f"{MANY} texts from seed {first}")
    assert failures(range(first, first + MANY)) == []


@pytest.mark.parametrize(
    "text",
    [
        "window:window=9223372036854775807",
        f"window:window={'9' * 5000}",
        "window:window=inf",
        "allocated:budget=1e400",
        "quality_threshold:sd=nan",
        "adakv:of=" + "[" * 3000,
        "random:seed=\ud800",
        "calibrated:weights=/dev/zero",
        "calibrated:weights=/",
        "calibrated:weights=~nosuch/x",
        "fastv:layer=True",
        "fastv:layer=2.0",
    ],
)
def test_what_once_was_a_traceback_or_an_answer_is_refused(text):
    from headwise.errors import HeadwiseError
    from headwise.registry import resolve

    with pytest.raises(HeadwiseError):
        resolve(text)
