"""What a plugin raises, whatever it is, becomes one sentence with its owner's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import ParamSpec, TypeVar

from headwise.errors import ContractError, HeadwiseError

P = ParamSpec("P")
T = TypeVar("T")

_PASSED_ON = ("OutOfMemoryError",)
"""Errors that are nobody's fault but the device's; named, because torch is not imported for this."""


@contextmanager
def blamed(who: str) -> Iterator[None]:
    """Raise ContractError, which names ``who``, for what is raised inside.

    Sentences of headwise stay as they are, and a user's Ctrl-C stays one. ``SystemExit`` is a failure like any other:
    a plugin that could end the program would end it with status 0 and nothing done.
    """
    try:
        yield
    except (HeadwiseError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if type(error).__name__ in _PASSED_ON:
            raise
        raise ContractError(f"{who} failed: {type(error).__name__}{_told(error)}") from error


def owned(function: Callable[P, T], who: str) -> Callable[P, T]:
    """The function, whose failures name ``who``."""

    def call(*arguments: P.args, **named: P.kwargs) -> T:
        with blamed(who):
            return function(*arguments, **named)

    return call


def guarded(plugin: T, who: str) -> T:
    """A stand-in for an object of a plugin's: its public attributes, whose failures name ``who``, read and called."""
    with blamed(who):
        names = [name for name in dir(plugin) if not name.startswith("_")]
    standin: T = type(type(plugin).__name__, (), {name: _guard(plugin, name, who) for name in names})()
    return standin


def _guard(plugin: object, name: str, who: str) -> property:
    def read(_: object) -> object:
        with blamed(f"{name} of {who}"):
            found = getattr(plugin, name)
        return owned(found, f"{name} of {who}") if isinstance(found, MethodType) else found

    return property(read)


def reason(error: BaseException) -> str:
    """What an error says, in one line; where it says nothing, its class."""
    return message(error) or type(error).__name__


def message(error: BaseException) -> str:
    """What an error says, in one line of at most 300 characters; empty where it says nothing, or fails to."""
    try:
        lines = (str(error.args[0]) if error.args else str(error)).strip().splitlines()
    except Exception:
        return ""
    return lines[0][:300] if lines else ""


def _told(error: BaseException) -> str:
    said = message(error)
    return f": {said}" if said else ""
