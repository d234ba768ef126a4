"""What commands that measure and may keep their records share: a folder to keep them in, and each measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from headwise.printing import say

if TYPE_CHECKING:
    from pathlib import Path

    from headwise.recipe import Recipe
    from headwise_lab.store.outcome_types import Outcome
    from headwise_lab.store.output_folder import Store
    from headwise_lab.store.record_types import Record

R = TypeVar("R", bound="Record")
Row = TypeVar("Row", bound="Outcome")


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
    measure: Callable[[Recipe, Callable[[int], None]], tuple[R, list[Row]]],
    total: int,
    *,
    kinds: tuple[type[R], type[Row]],
) -> list[tuple[R, list[Row]]]:
    """Record and outcomes of every recipe: from the store, or measured and stored, with a bar up to ``total``.

    ``kinds``: the classes of both.
    """
    from headwise_lab.kv.measure import strategy_text
    from headwise_lab.terminal.progress import progress_bars

    measured: list[tuple[R, list[Row]]] = []
    of_record, of_outcomes = kinds
    with progress_bars() as bar:
        for recipe in recipes:
            name = identity(recipe)
            before = store.finished(name, of_record) if store is not None else None
            if store is not None and before is not None:
                measured.append((before, store.outcomes(name, of_outcomes)))
                continue
            measured.append(measure(recipe, bar(strategy_text(recipe), total)))
            if store is not None:
                store.add(*measured[-1])
    return measured
