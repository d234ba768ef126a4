"""Outputs that cannot take what is written: full, closed, or without the letters."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORDS = [sys.executable, "-m", "headwise.cli", "show", "sum"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_an_encoding_lacks_are_spelled_out(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-m", "headwise.cli", "show", "größer→"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"headwise: ")


def test_a_full_output_is_one_sentence():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(WORDS, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"headwise: the output cannot be written to (No space left on device)\n"


def test_a_closed_pipe_is_quiet():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(WORDS, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode == 1
