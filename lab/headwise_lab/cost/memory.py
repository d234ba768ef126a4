"""The peak memory of some work.

It is read from Linux itself. psutil tells the memory in use now, but cannot reset the kernel's highest value, and
asking it every few milliseconds would miss the peak of a prefill.
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
    """The peak memory of some work, and by how much it exceeds the memory at its beginning; None where unknown.

    ``source`` says what was measured. "cuda allocator": all tensors on the GPU, weights included. "process memory": all
    resident memory of the process, with Python and libraries, so that mostly the growth says something about the work.
    "process memory since its start": the same, on a system where the highest value cannot be reset.
    """

    bytes: int | None = None
    grown: int | None = None
    source: str | None = None


def peak_of(device: str) -> AbstractContextManager[Peak]:
    """Measure the peak memory of the work on ``device`` inside the block; the numbers are there after the block."""
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
    """Return free heap memory to the system (glibc); otherwise tensors that reuse it would not raise the peak."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _reset() -> int | None:
    """Reset the highest value and return the memory in use; None where the system cannot (see proc(5) of Linux)."""
    try:
        _status("VmHWM")  # raises KeyError where the system does not tell it
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
    """The highest memory since the process began; None on a system without ``getrusage``."""
    try:
        import resource
    except ImportError:
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
