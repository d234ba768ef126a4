"""Used by commands that measure recipes and may store the records: opening the folder, and measuring each only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from headwise.verbosity import warn

if TYPE_CHECKING:
    from pathlib import Path

    from headwise.recipe import Recipe
    from headwise_lab.store.outcome_types import Outcome
    from headwise_lab.store.output_folder import Store
    from headwise_lab.store.record_types import Record

R = TypeVar("R", bound="Record")
Row = TypeVar("Row", bound="Outcome")


@contextmanager
def writing(what: str, out: Path) -> Iterator[None]:
    """Turns an OSError inside into a DataError: ``what`` cannot be written to the file ``out``."""
    from headwise.errors import DataError

    try:
        yield
    except OSError as error:
        raise DataError(f"{what} {out} cannot be written ({error.strerror}); give another --out") from error


def opened(folder: Path | None, kind: str) -> Store | None:
    """The store in a folder, with its warnings printed; None without a folder. Raises what ``Store.open`` raises."""
    from headwise_lab.store.output_folder import Store

    if folder is None:
        return None
    store = Store.open(folder, kind)
    for warning in store.warnings:
        warn(f"{warning}")
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
    """Record and outcomes of every recipe: read from the store, or measured with a bar up to ``total`` and stored.

    ``kinds``: the classes of records and outcomes.
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
