"""Choices of visual tokens and KV entries, taken apart from the forward they are made in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn

from headwise.pipeline import Pipeline
from headwise_adapters import patching

CHOICES = ("select", "retained")
"""What a pipeline is asked to choose: a stage's tokens, and the entries of a layer's cache."""


@contextmanager
def each_choice(pipeline: Pipeline, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Inside, every choice the pipeline makes, its evidence included, happens within an ``around()`` of its own."""

    def choice(choose: patching.Call, args: patching.Args, kwargs: patching.Kwargs) -> object:
        with around():
            return choose(*args, **kwargs)

    with ExitStack() as stack:
        for name in CHOICES:
            stack.enter_context(patching.overridden(pipeline, name, choice))
        yield


class Stopwatch:
    """Adds up spans of time; on a GPU by events in its own queue, so that nothing has to wait for the watch.

    The time of a GPU's span is what passes on the GPU from the work before it to the end of its own work, waiting for
    the host in between included.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._times: list[tuple[float, float]] = []
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._stopped = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """One span; none once the watch has stopped."""
        on_gpu = self._device.type == "cuda"
        event, start = self._event() if on_gpu else None, time.perf_counter()
        try:
            yield
        finally:
            if not self._stopped and event is not None:
                self._events.append((event, self._event()))
            elif not self._stopped:
                self._times.append((start, time.perf_counter()))

    def stop(self) -> None:
        """Leave out everything from here on."""
        self._stopped = True

    def seconds(self) -> float:
        """All spans together, once everything in them is done."""
        if self._device.type != "cuda":
            return sum(end - start for start, end in self._times)
        torch.cuda.synchronize(self._device)
        return float(sum(start.elapsed_time(end) for start, end in self._events)) / 1000

    def _event(self) -> torch.cuda.Event:
        make: Callable[..., torch.cuda.Event] = torch.cuda.Event  # untyped
        event = make(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


@contextmanager
def choices_timed(model: nn.Module, device: str, pipeline: Pipeline) -> Iterator[Stopwatch]:
    """The time that choices take in the first forward of ``model`` inside, which for ``generate`` is the prefill."""
    watch = Stopwatch(device)
    with patching.after(model, lambda _: watch.stop()), each_choice(pipeline, watch.running):
        yield watch
