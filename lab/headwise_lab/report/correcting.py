"""Holm's correction over the comparisons that the rows of one table hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from headwise_lab.stats.rule import corrected

T = TypeVar("T", bound=attrs.AttrsInstance)


def with_corrected(rows: Sequence[T], *fields: str) -> list[T]:
    """The rows, the differences in their ``fields`` corrected together; a field without a difference stays None."""
    adjusted = iter(corrected([getattr(row, field) for row in rows for field in fields]))
    evolve: Callable[..., T] = attrs.evolve
    return [evolve(row, **{field: next(adjusted) for field in fields}) for row in rows]
