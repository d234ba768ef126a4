"""The choosing of visual tokens and KV entries, measured apart from the forward in which it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn

from headwise.pipeline import Pipeline
from headwise_adapters import patching

CHOICES = ("select", "retained")
"""The methods of a pipeline that choose: a stage's tokens, and the entries of a layer's cache."""


@contextmanager
def each_choice(pipeline: Pipeline, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Inside the block, the pipeline makes every choice, and computes evidence for it, within a new ``around()``."""

    def choice(choose: patching.Call, args: patching.Args, kwargs: patching.Kwargs) -> object:
        with around():
            return choose(*args, **kwargs)

    with ExitStack() as stack:
        for name in CHOICES:
            stack.enter_context(patching.overridden(pipeline, name, choice))
        yield


class Stopwatch:
    """Adds up spans of time. On a GPU they are measured by events in its queue, so that the work is not delayed.

    A span on a GPU begins when the work before it is done and ends with its own work; waiting for the host counts.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._times: list[tuple[float, float]] = []
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._stopped = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """One span of time; it does not count once the watch has stopped."""
        event, start = self._event() if self._device.type == "cuda" else None, self._now()
        try:
            yield
        finally:
            if not self._stopped and event is not None:
                self._events.append((event, self._event()))
            elif not self._stopped:
                self._times.append((start, self._now()))

    def stop(self) -> None:
        """Count no further spans."""
        self._stopped = True

    def seconds(self) -> float:
        """The sum of all spans, after all their work is done."""
        if self._device.type != "cuda":
            return sum(end - start for start, end in self._times)
        torch.cuda.synchronize(self._device)
        return float(sum(start.elapsed_time(end) for start, end in self._events)) / 1000

    def _now(self) -> float:
        """The host's clock, once a device other than CPU and CUDA has done its work."""
        if self._device.type not in ("cpu", "cuda"):
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()

    def _event(self) -> torch.cuda.Event:
        make: Callable[..., torch.cuda.Event] = torch.cuda.Event  # untyped
        event = make(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


@contextmanager
def choices_timed(model: nn.Module, device: str, pipeline: Pipeline) -> Iterator[Stopwatch]:
    """The time that choices take in the first forward of ``model`` inside the block; in ``generate``, the prefill."""
    watch = Stopwatch(device)
    with patching.after(model, lambda _: watch.stop()), each_choice(pipeline, watch.running):
        yield watch
