"""Damaged files at every door: a value or one sentence, no traceback, no hang, nothing wrong taken, nothing beside."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.doors import DOORS, LONGEST, attempt

FEW, MANY = 100, 100_000
SLOW = {"report", "kv report", "import"}  # whole pages are set
FEW_PAGES = 25


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore")
def test_a_few_damaged_files(door, tmp_path):
    few = FEW_PAGES if door in SLOW else FEW
    assert [wrong for seed in range(few) if (wrong := attempt(door, seed, tmp_path)) is not None] == []


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files(door, tmp_path):
    first = random.SystemRandom().randrange(10**9)
    print(f"{MANY} files from seed {first}")
    wrong = [attempt(door, seed, tmp_path, seconds=LONGEST) for seed in range(first, first + MANY)]
    assert [one for one in wrong if one is not None] == []
