"""The words errors share: what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``"; did you mean a or b?"`` where something known is close to what was given, else an empty string."""
    close = difflib.get_close_matches(given, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
