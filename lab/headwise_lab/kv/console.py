"""The tables that ``headwise ppl`` and ``headwise needle`` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from headwise_lab.stats.differences import Difference
from headwise_lab.terminal.console import wide_enough

CLEAR = "*"


def show(table: Table, notes: Sequence[str]) -> None:
    """Print a table, and sentences below it."""
    output = wide_enough([table])
    output.print(table)
    for note in notes:
        output.print(f"\n{note}")


def with_error(value: float, error: float | None, digits: int = 2) -> str:
    """``12.34 ± 0.56``; an error that is unknown is left out."""
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def signed(value: float, error: float, clear: bool, digits: int = 1) -> str:
    """``+12.3 ± 0.5 *``; a space takes the place of the star where the difference is not clear."""
    return f"{value:+.{digits}f} ± {error:.{digits}f} {CLEAR if clear else ' '}"


def difference(found: Difference, scale: float = 100.0, digits: int = 1) -> str:
    """A paired difference in per cent."""
    return signed(scale * found.value, scale * found.se, found.clear, digits)
