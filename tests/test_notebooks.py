"""The notebooks run, and print what is saved in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import read
from tests.notebooks import FOLDER, printed


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.ipynb"))])
def test_a_notebook_prints_what_is_saved_in_it(path, tmp_path):
    command = [sys.executable, "-m", "tests.notebooks", path.stem, tmp_path]  # its sockets are no business of pytest
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed(read(tmp_path / path.name, as_version=4)) == printed(read(path, as_version=4))
