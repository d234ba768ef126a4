"""Options that all score-based KV-eviction strategies have: the same words, defaults and refusals everywhere."""

from __future__ import annotations

from typing import Any

import attrs

from headwise.eviction import check_budget

COMMON = ("budget", "ratio", "sinks", "recent", "every", "rerotate")
"""Options that go into a :class:`headwise.eviction.ScorePlan` as they are."""

DEFAULT_RATIO = 0.5


def _half(strategy: Any) -> float | None:
    return DEFAULT_RATIO if strategy.budget is None else None


half_without_budget: Any = attrs.Factory(_half, takes_self=True)
"""Default of ``ratio``: half of the tokens where no ``budget`` is given. The field comes after ``budget``."""


def _window(strategy: Any) -> int:
    queries: int = strategy.queries
    return queries if strategy.budget is None else min(queries, strategy.budget // 2)


queries_or_half: Any = attrs.Factory(_window, takes_self=True)
"""Default of ``recent`` where the last ``queries`` judge: those, up to half of a ``budget``, so that the others have a
half, too."""


def one_limit(strategy: Any, _: attrs.Attribute[Any], ratio: float | None) -> None:
    """Validator of ``ratio``: exactly one of ``budget`` and ``ratio``, and in its range; raises BudgetError."""
    check_budget(strategy.budget, ratio)


def common(strategy: Any) -> dict[str, Any]:
    """The common options of a strategy, as arguments of a ScorePlan."""
    return {name: getattr(strategy, name) for name in COMMON}
