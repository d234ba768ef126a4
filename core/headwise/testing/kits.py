"""Conformance kits for plugins that are no strategies, found by name like plugins: entry points ``headwise.kit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headwise.registry import built, installed, only


class Kit(Protocol):
    """The laws of one kind of plugin; a class built without arguments, its entry point named as the kind."""

    first: Sequence[str]
    """Laws on what the plugin is at all. Where one of them is broken, the others would repeat it."""

    def laws(self) -> Mapping[str, Callable[..., None]]:
        """Name -> law; the first line of its docstring says what it demands."""

    def check_given(self, name: str, data: str | None) -> None:
        """Raise HeadwiseError where there is no such plugin, or it cannot be tried with this data."""

    def problem(self, name: str, law: str, data: str | None) -> Exception | None:
        """What a law, or the plugin, raises; None where the law holds."""


def kinds() -> list[str]:
    """The kinds of plugins that have a kit; nothing is imported."""
    return list(installed("kit"))


def kit_of(kind: str) -> Kit:
    """The kit of a kind; raises StrategyError where it has none, or it cannot be built."""
    found: Kit = built(only("kit", kind, installed("kit")))
    return found
