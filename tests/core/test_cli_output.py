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


@pytest.mark.parametrize(("closing", "words", "status"), [(">&-", "--version", 0), ("2>&-", "show nothing", 2)])
def test_a_stream_that_the_shell_closed_takes_everything(closing, words, status):
    line = f'"{sys.executable}" -m headwise {words} {closing}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_completion_that_cannot_be_installed_is_one_sentence(tmp_path):
    home = tmp_path / "file"
    home.write_text("no folder")
    done = subprocess.run(
        [sys.executable, "-m", "headwise", "--install-completion", "bash"],
        env=os.environ | {"HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("headwise: completion cannot be installed: ")
    assert done.stderr.endswith("; `headwise --show-completion` prints what to put elsewhere\n")
