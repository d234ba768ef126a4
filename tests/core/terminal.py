"""Runs headwise on a terminal that is made for it, and returns what a person would see there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def on_terminal(*words, columns=80, **environment):
    """What ``headwise WORDS`` writes, with both streams on one terminal."""
    ours, theirs = pty.openpty()
    told = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "xterm"} | environment
    with subprocess.Popen(
        [sys.executable, "-m", "headwise", *words], stdout=theirs, stderr=theirs, env=told
    ) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    return process.returncode, seen.decode().replace("\r\n", "\n")


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""
