"""Where a trial ran: versions, the machine, and how many threads compute."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from headwise_lab.store.record_types import Hardware


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside.

    For a model as small as the demo's: a second thread that has to share its core with anything else makes every step
    wait for it, and was measured to be six times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Versions of everything a result depends on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("headwise", "torch", "transformers")} | {
        "python": platform.python_version()
    }


def hardware(device: str) -> Hardware:
    """The machine: its CPU, cores, the threads torch uses, and the device the model is on."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    return Hardware(cpu=_cpu(), cores=os.cpu_count(), threads=torch.get_num_threads(), device=name)


def _cpu() -> str:
    """The processor's name, which only Linux tells in full, and only there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
