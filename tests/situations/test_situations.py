"""Whole situations, drawn at random: what comes out is what the stock model with masked keys says, or a refusal.

``HEADWISE_SITUATIONS=20000 HEADWISE_SEED=1 pytest -m slow tests/situations`` draws as many, from that seed.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from tests.situations.situation import Situation, situations
from tests.situations.verdict import judge

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
SEED = int(os.environ.get("HEADWISE_SEED", "0"))
MANY = int(os.environ.get("HEADWISE_SITUATIONS", "20000"))

CACHE_OF_A_COPY = Situation(
    family="qwen3", attention="eager", dtype=torch.float32, pruning="", keep=1, eviction="window:window=1",
    positions="keep", rows=((1,),), side="left", chunks=(), second=(4,), cache="headwise", mode="forward", steps=3,
    nested=True, touch="deepcopy", seed=568221,
)  # fmt: skip
"""A copy of an attached model is stock, but for a cache that evicts: that one is the copy's own."""


@settings(max_examples=300, derandomize=True, **COMMON)
@given(situations())
@example(CACHE_OF_A_COPY)
def test_a_situation_is_right_or_refused(situation: Situation):
    judge(situation)


@pytest.mark.slow
def test_very_many_situations_are_right_or_refused(capsys):
    verdicts = Counter()

    @seed(SEED)
    @settings(max_examples=MANY, phases=[Phase.generate, Phase.shrink], **COMMON)
    @given(situations())
    def draw(situation: Situation):
        verdicts[judge(situation)] += 1

    try:
        draw()
    finally:
        with capsys.disabled():
            print(f"\n{sum(verdicts.values())} situations from seed {SEED}: {dict(verdicts)}")
