"""Connecting to a Ray cluster while a sweep runs, without Ray's own messages in the user's terminal."""

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
"""The first sets what will be Ray's default, about which it warns; the second switches off usage statistics."""


@contextmanager
def joined(address: str | None) -> Iterator[ModuleType]:
    """The module ``ray``, connected to a cluster.

    It keeps a connection that exists already. Otherwise it connects to ``address``, to a running cluster, or to a new
    one, and disconnects at the end. Raises DataError where there is a cluster and it cannot be joined.
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
            with redirect_stdout(io.StringIO()):  # Ray prints the messages that it has held back
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
    """Restore our SIGTERM handler afterwards: Ray installs its own, which would end the sweep without a message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _WithoutRay:
    """Standard output without what Ray's threads print: the deaths of actors, which the sweep reports itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, unless a thread of Ray's writes it."""
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
