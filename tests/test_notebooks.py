"""The notebooks run, and print what is saved in them."""

from __future__ import annotations

import pytest
from nbformat import read
from tests.notebooks import FOLDER, printed, ran


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.ipynb"))])
def test_a_notebook_prints_what_is_saved_in_it(path, tmp_path):
    assert printed(ran(path, tmp_path)) == printed(read(path, as_version=4))
