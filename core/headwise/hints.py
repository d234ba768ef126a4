"""The words that sentences share: what was probably meant, how many, and within what."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``"; did you mean a or b?"`` where something known is close to what was given, else an empty string."""
    close = difflib.get_close_matches(given, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def number_of(count: int, thing: str) -> str:
    """``1 question``, ``2 questions``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def within(least: int, most: int) -> str:
    """``1..8``; where only one number is left, that one."""
    return str(least) if least == most else f"{least}..{most}"
