"""The most memory that something needs while it runs.

Read from Linux itself and not through psutil, which tells what is used now but cannot begin a new highest value;
looking every few milliseconds would miss the peak of a prefill.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import torch

PROCESS = Path("/proc/self")

ALLOCATOR = "cuda allocator"
MEMORY = "process memory"
SINCE_START = "process memory since its start"


@attrs.define
class Peak:
    """The highest memory inside, and what that is beyond the beginning: bytes, or None where nothing tells.

    ``source``: "cuda allocator", all tensors on the GPU, weights included; "process memory", all that the process has
    resident, Python and libraries included, so that only what it grew by says much about the work; or "process memory
    since its start", where the system does not let the highest value be reset.
    """

    bytes: int | None = None
    grown: int | None = None
    source: str | None = None


def peak_of(device: str) -> AbstractContextManager[Peak]:
    """Watch the memory that work on ``device`` takes inside; the numbers are there afterwards."""
    where = torch.device(device)
    if where.type == "cuda":
        return _on_gpu(where)
    return _of_process() if where.type == "cpu" else _untold()


@contextmanager
def _on_gpu(device: torch.device) -> Iterator[Peak]:
    peak = Peak(source=ALLOCATOR)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield peak
    torch.cuda.synchronize(device)
    peak.bytes = torch.cuda.max_memory_allocated(device)
    peak.grown = peak.bytes - before


@contextmanager
def _of_process() -> Iterator[Peak]:
    _give_back()
    before = _reset()
    peak = Peak()
    yield peak
    if before is None:
        peak.bytes = _highest_ever()
        peak.source = None if peak.bytes is None else SINCE_START
        return
    peak.bytes, peak.source = _status("VmHWM"), MEMORY
    peak.grown = max(0, peak.bytes - before)


@contextmanager
def _untold() -> Iterator[Peak]:
    yield Peak()


def _give_back() -> None:
    """Return what the heap holds free to the system (glibc); tensors that come to lie there would not count else."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _reset() -> int | None:
    """Begin a new highest value and return the memory now; None where the system has no such thing (Linux: proc(5))."""
    try:
        _status("VmHWM")  # whether it is told at all
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except (OSError, KeyError):
        return None


def _status(key: str) -> int:
    """Bytes of one line of the process's status, such as ``VmHWM:    1234 kB``."""
    for line in (PROCESS / "status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return 1024 * int(value.split()[0])
    raise KeyError(key)


def _highest_ever() -> int | None:
    """The highest memory of the process's life; None on a system without ``getrusage``."""
    try:
        import resource
    except ImportError:
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
