"""Damaged benchmark files give questions or one sentence: no traceback, no hang, nothing written beside the folder."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.benchmark_files import attempt

FEW, MANY = 250, 20_000


def failures(seeds, root, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(root.with_name("cache")))
    root.mkdir()
    return [wrong for seed in seeds if (wrong := attempt(seed, root)) is not None]


def test_a_few_damaged_folders(tmp_path, monkeypatch):
    assert failures(range(FEW), tmp_path / "data", monkeypatch) == []


@pytest.mark.slow
def test_many_damaged_folders(tmp_path, monkeypatch):
    first = random.SystemRandom().randrange(10**9)
    print(f"{MANY} folders from seed {first}")
    assert failures(range(first, first + MANY), tmp_path / "data", monkeypatch) == []
