"""The two tables of an output folder, ``trials`` and ``outcomes``, read trial by trial: any number of outcomes fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from headwise_lab.exporting.columns import OUTCOMES, TRIALS, common, fit, flat, kind_of
from headwise_lab.exporting.reading import whole_outcomes, whole_records

Row = dict[str, object]


@attrs.frozen(eq=False)
class Table:
    """A table: column -> kind in order, and its rows a batch at a time, each with exactly these columns."""

    name: str
    columns: Mapping[str, str]
    read: Callable[[], Iterator[list[Row]]]

    def batches(self) -> Iterator[list[Row]]:
        """Rows as cells: values that do not fit their column are None."""
        for rows in self.read():
            yield [{name: _cell(row.get(name), kind) for name, kind in self.columns.items()} for row in rows]


def read_tables(folder: Path) -> tuple[list[Table], list[str]]:
    """Trials and outcomes of an output folder, and warnings about everything that could not be taken along.

    Raises DataError where the folder holds no whole record.
    """
    records, warnings = whole_records(folder)
    trials = _Columns(TRIALS)
    rows = [flat(record.to_json()) for record in records.values()]
    for row in rows:
        warnings += trials.seen([row], f"record {row['id']}")
    outcomes = _Columns(OUTCOMES)
    for identity, record in records.items():
        answered, told = whole_outcomes(folder, identity)
        warnings += told + outcomes.seen([flat(outcome) for outcome in answered], f"the outcomes of record {identity}")
        if not answered and not told and record.has_result:
            warnings.append(f"Record {identity} has no outcomes.")
    return [
        Table("trials", trials.kinds(), lambda: iter([rows])),
        Table("outcomes", outcomes.kinds(), lambda: _outcomes(folder, list(records))),
    ], warnings


def _outcomes(folder: Path, identities: list[str]) -> Iterator[list[Row]]:
    for identity in identities:
        answered, _ = whole_outcomes(folder, identity)
        if answered:
            yield [{**flat(outcome), "trial": identity} for outcome in answered]


def _cell(value: object, kind: str) -> object:
    return None if value is None else fit(value, kind)


class _Columns:
    """The columns found so far: the documented ones, and of the others the kinds of their values."""

    def __init__(self, documented: Mapping[str, str]) -> None:
        self.documented = documented
        self.others: dict[str, set[str | None]] = {}

    def seen(self, rows: list[Row], where: str) -> list[str]:
        """Take note of rows; a warning for every column with values that do not fit."""
        misfits: Counter[str] = Counter()
        for row in rows:
            for name, value in row.items():
                if name not in self.documented:
                    self.others.setdefault(name, set()).add(kind_of(value))
                misfits[name] += fit(value, self.documented.get(name) or common([kind_of(value)])) is None
        return [
            f"{name!r} of {where} was left empty {'once' if count == 1 else f'{count} times'}:"
            f" it is no {self.documented.get(name, 'finite number')}."
            for name, count in misfits.items()
            if count
        ]

    def kinds(self) -> dict[str, str]:
        """Column -> kind: the documented ones as they stand, then the others by name."""
        return {**self.documented, **{name: common(self.others[name]) for name in sorted(self.others)}}
