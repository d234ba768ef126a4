"""Joining a Ray cluster for the time of a sweep, without its messages in the user's terminal."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import TextIO, cast

from headwise.errors import DataError

ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""The first is what Ray will do anyway and warns about; the second keeps a cluster of our own from calling home."""


@contextmanager
def joined(address: str | None) -> Iterator[ModuleType]:
    """The module ``ray``, connected: as it is already, to ``address``, to a cluster that runs, or to one of our own.

    Raises DataError where there is a cluster and it cannot be joined. A connection made here ends here.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    with redirect_stdout(cast(TextIO, _WithoutRay(sys.stdout))):
        if ray.is_initialized():
            yield ray
            return
        try:
            _join(ray, address)
            yield ray
        finally:
            with redirect_stdout(io.StringIO()):  # what Ray held back it prints now
                ray.shutdown()


def _join(ray: ModuleType, address: str | None) -> None:
    with _sigterm_kept():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = address or os.environ.get("RAY_ADDRESS") or "that runs here"
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"the Ray cluster {where} cannot be joined: {reason}") from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts a handler of its own in place, which would end the sweep without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _WithoutRay:
    """Standard output without what Ray's threads print: deaths of actors, which the sweep tells in its own words."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Pass on what anybody else writes."""
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
