"""What commands that measure and may keep their records share: a folder to keep them in, and each measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headwise.printing import say

if TYPE_CHECKING:
    from pathlib import Path

    from headwise.recipe import Recipe
    from headwise_lab.store.output_folder import Store

Measured = tuple[dict[str, Any], list[dict[str, Any]]]
"""A record and its outcomes."""


def opened(folder: Path | None, kind: str) -> Store | None:
    """The store of a folder, its warnings printed; None without a folder. Raises DataError as ``Store.open`` does."""
    from headwise_lab.store.output_folder import Store

    if folder is None:
        return None
    store = Store.open(folder, kind)
    for warning in store.warnings:
        say(f"warning: {warning}", err=True)
    return store


def each(
    recipes: Sequence[Recipe],
    store: Store | None,
    identity: Callable[[Recipe], str],
    measure: Callable[[Recipe, Callable[[int], None]], Measured],
    total: int,
) -> list[Measured]:
    """Record and outcomes of every recipe: from the store, or measured and stored, with a bar up to ``total``."""
    from headwise_lab.kv.measure import strategy_text
    from headwise_lab.terminal.progress import progress_bars

    measured: list[Measured] = []
    with progress_bars() as bar:
        for recipe in recipes:
            name = identity(recipe)
            if store is not None and store.done(name):
                measured.append((dict(store.records[name]), store.outcomes(name)))
                continue
            measured.append(measure(recipe, bar(strategy_text(recipe), total)))
            if store is not None:
                store.add(*measured[-1])
    return measured
