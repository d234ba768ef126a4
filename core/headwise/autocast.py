"""Strategies compute in the types that they choose, also where the model runs under torch.autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")
_found: ContextVar[dict[str, torch.dtype]] = ContextVar("headwise_autocast", default={})  # noqa: B039 - never written


@contextmanager
def without_autocast() -> Iterator[None]:
    """Inside, autocast is off: it would round products of float32 numbers to half precision, and merge their ranks."""
    on = {device: torch.get_autocast_dtype(device) for device in _DEVICES if torch.is_autocast_enabled(device)}
    if not on:
        yield
        return
    token = _found.set(on)
    try:
        with ExitStack() as stack:
            for device in on:
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        _found.reset(token)


@contextmanager
def as_the_model() -> Iterator[None]:
    """Inside of :func:`without_autocast`, autocast is what it was around it, for the model's own modules."""
    with ExitStack() as stack:
        for device, dtype in _found.get().items():
            stack.enter_context(torch.autocast(device, dtype=dtype))
        yield
