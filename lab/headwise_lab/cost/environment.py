"""What every record says: the model, the versions, the machine; and how many threads compute."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from headwise_lab.models.load import LoadedModel
from headwise_lab.store.record_types import Hardware, Record


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block.

    This is for models as small as the demo's. If a second thread has to share its core with other work, every step
    waits for it; that was measured to be six times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Versions of headwise, torch, transformers and Python."""
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
    """The processor's full name, which only Linux tells; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def identity_of(loaded: LoadedModel, settings: Mapping[str, object]) -> str:
    """16 hexadecimal digits over a model, the settings it runs under, and the versions that can change its answers."""
    whole = {
        "weights": loaded.weights,
        "dtype": loaded.dtype,
        "attention": loaded.attention,
        "device": torch.device(loaded.device).type,
        "versions": {name: number for name, number in versions().items() if name != "python"},
        **settings,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def common_head(loaded: LoadedModel, schema: int, identity: str, command: str) -> Record:
    """A record that holds what is known of every run: its id, model, versions, machine, command and time."""
    return Record(
        schema=schema,
        id=identity,
        model=loaded.name,
        weights=loaded.weights,
        dtype=loaded.dtype,
        attention_implementation=loaded.attention,
        versions=dict(versions()),
        hardware=hardware(loaded.device),
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
