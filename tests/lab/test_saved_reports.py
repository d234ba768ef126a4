"""Reports of saved output folders say word for word what they said when the folders were saved."""

from __future__ import annotations

import pytest
from tests.lab.saved import KINDS, expected, rebuilt


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_of_a_saved_folder_is_rebuilt_word_for_word(kind, tmp_path):
    found, wanted = rebuilt(kind, tmp_path), expected(kind)
    assert sorted(found) == sorted(wanted)
    for name, text in wanted.items():
        assert found[name] == text, name
