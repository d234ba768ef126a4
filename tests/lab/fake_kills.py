"""Sweeps of quick trials that kill themselves at a chosen moment of writing, or are slow enough there to be killed.

Run as a program it starts such sweeps as it is told, each in a process of its own that is forked from here, which is
much quicker than to start Python for each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from tests.lab.fake_sweep import swept, trials

from headwise_lab.store.locations import place

NOTE_HIDDEN, NOTE_PLACED = "note hidden", "note placed"
OUTCOMES_HIDDEN, OUTCOMES_PLACED = "outcomes hidden", "outcomes placed"
HALF_A_LINE, LINE_WRITTEN, ON_DISK = "half a line", "line written", "on disk"
MOMENTS = (NOTE_HIDDEN, NOTE_PLACED, OUTCOMES_HIDDEN, OUTCOMES_PLACED, HALF_A_LINE, LINE_WRITTEN, ON_DISK)
PRELOADED = (
    "headwise_lab.store.local_store",
    "pyarrow.parquet",
    "pandas",
)  # pyarrow looks for pandas, and loads it where it is
REQUEST, ANSWER = "before a request", "after its answer"


class Sweeps:
    """Starts sweeps in processes of their own; with ``Sweeps() as sweeps``, none of them is left at the end."""

    def __init__(self, *more: str) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *PRELOADED, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Sweeps:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._program.pid, signal.SIGKILL)
        self._program.communicate()

    def start(self, folder: Path, count: int, **options) -> int:
        """Start a sweep of ``count`` trials in ``folder/out``, or in the URL ``out``; its process.

        ``die`` (moment, n): it kills itself at that moment for the n-th time. ``linger``: milliseconds that it takes
        over every such moment. ``hold`` (moment, n): it waits there for a file ``folder/go``. ``recipes``: what some
        trials do. The others are as in ``swept``.
        """
        return self._ask({"folder": str(folder), "count": count, **options})

    def wait(self, process: int) -> int:
        """How it ended: its exit status, or the number of the signal with a minus."""
        return self._ask(process)

    def run(self, folder: Path, count: int, **options) -> int:
        """``start`` and ``wait``."""
        return self.wait(self.start(folder, count, **options))

    def _ask(self, what: object) -> int:
        self._program.stdin.write(json.dumps(what) + "\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())


def _serve() -> None:
    for line in sys.stdin:
        told = json.loads(line)
        if isinstance(told, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(told, 0)[1])
        else:
            answer = os.fork() or _sweep(**told)
        print(answer, flush=True)


def _sweep(folder: str, count: int, *, die=(), hold=(), linger=0, recipes=None, out=None, part=None, **options) -> None:
    """Run a sweep and end."""
    status = 1
    try:
        _watch(die, hold, Path(folder, "go"), linger / 1000)
        where = {"out": place(out or f"{folder}/out"), "part": part and tuple(part)}
        status = swept(Path(folder), trials(count, **(recipes or {})), **where, **options).failed
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _watch(die: Sequence, hold: Sequence, go: Path, linger: float) -> None:
    """From now on something happens at the moments of writing, of which this tells."""
    seen: Counter[str] = Counter()

    def now(moment: str) -> None:
        seen[moment] += 1
        time.sleep(linger)
        here = [moment, seen[moment]]
        while here == list(hold) and not go.exists():
            time.sleep(0.01)
        if here == list(die):
            os.kill(os.getpid(), signal.SIGKILL)

    _watch_files(now)
    if "s3fs" in sys.modules:
        _watch_requests(now)


def _watch_files(now: Callable[[str], None]) -> None:
    replace, write, fsync = os.replace, os.write, os.fsync

    def placed(source, target) -> None:
        what = "outcomes" if str(target).endswith(".parquet") else "note"
        now(f"{what} hidden")
        replace(source, target)
        now(f"{what} placed")

    def written(handle: int, content: bytes) -> int:
        begins = content.startswith(b'{"id"')
        size = write(handle, content[: len(content) // 2] if begins else content)
        now(HALF_A_LINE if begins else LINE_WRITTEN)
        return size

    def on_disk(handle: int) -> None:
        fsync(handle)
        now(ON_DISK)

    os.replace, os.write, os.fsync = placed, written, on_disk


def _watch_requests(now: Callable[[str], None]) -> None:
    """Moments around every request that writes an object."""
    import s3fs

    request = s3fs.S3FileSystem._pipe_file

    async def watched(*arguments, **more) -> None:
        now(REQUEST)
        await request(*arguments, **more)
        now(ANSWER)

    s3fs.S3FileSystem._pipe_file = watched


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with suppress(ImportError):
            import_module(name)
    _serve()
