"""An observer: it sees every stage, and wraps a hook."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from headwise import Selection, hookimpl


class Diary:
    """Keeps how many tokens stayed, and how often heads were scored."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.scored = 0

    @hookimpl(wrapper=True)
    def head_scoring(self) -> Generator[None, Any, Any]:
        """Counts calls."""
        self.scored += 1
        return (yield)

    @hookimpl
    def selected(self, selection: Selection) -> None:
        """After each stage."""
        self.kept.append(int(selection.kept.positions.shape[1]))
