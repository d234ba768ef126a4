"""How much a command tells beside its answer: ``--quiet``, nothing, or ``--verbose``. All of it is standard error."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

import typer

from headwise.printing import say

QUIET, USUAL, VERBOSE = range(3)

LOG_OF_TRANSFORMERS = "TRANSFORMERS_VERBOSITY"
"""The variable that transformers reads, which does not heed Python's own settings."""

_level: ContextVar[int] = ContextVar("headwise_verbosity", default=USUAL)


def is_quiet() -> bool:
    """Whether progress and remarks are not wanted."""
    return _level.get() == QUIET


def is_verbose() -> bool:
    """Whether tracebacks, libraries' warnings and logs, and the time that loading takes are wanted."""
    return _level.get() == VERBOSE


def remark(text: str) -> None:
    """Print on standard error what a user may like to know and need not; nothing under ``--quiet``."""
    if not is_quiet():
        say(text, err=True)


def warn(text: str) -> None:
    """Print on standard error what a user must know, under ``--quiet`` too."""
    say(f"warning: {text}", err=True)


@contextmanager
def own_verbosity() -> Iterator[None]:
    """Inside, a command may change how much is told; afterwards it is as before."""
    before, logger, environment = _level.set(_level.get()), logging.getLogger(), dict(os.environ)
    level, handlers = logger.level, list(logger.handlers)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        _level.reset(before)
        logger.setLevel(level)
        logger.handlers[:] = handlers
        if LOG_OF_TRANSFORMERS not in environment:
            os.environ.pop(LOG_OF_TRANSFORMERS, None)


def _be_quiet(asked: bool) -> None:
    if asked:
        _choose(QUIET)


def _be_verbose(asked: bool) -> None:
    if asked:
        _choose(VERBOSE)
        warnings.simplefilter("default")
        os.environ.setdefault(LOG_OF_TRANSFORMERS, "info")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)


def _choose(level: int) -> None:
    if _level.get() not in (USUAL, level):
        raise typer.BadParameter("--quiet and --verbose are both given; give one of them")
    _level.set(level)


Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", callback=_be_quiet, is_eager=True, help="No progress and no remarks."),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", callback=_be_verbose, is_eager=True, help="Tracebacks, warnings and logs of libraries too."
    ),
]
