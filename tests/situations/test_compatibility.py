"""docs/compatibility.md says what is so: every cell is run again."""

from __future__ import annotations

import pytest
from tests.situations.compatibility import DOCUMENT, FEATURES, HALVES, NEVER, cell, read
from tests.situations.families import FAMILIES


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_is_up_to_date(family: str, half: str):
    written = read(DOCUMENT.read_text(encoding="utf-8"))
    found = {feature: cell(family, half, feature) for feature in FEATURES}
    assert {feature: written.get((family, half, feature), NEVER) for feature in FEATURES} == found
