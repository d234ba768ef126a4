"""The tables ``trials`` and ``outcomes`` of an output folder; outcomes are read trial by trial to save memory."""

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
    """A table: its columns (name -> kind, in order), and a function that reads its rows in batches."""

    name: str
    columns: Mapping[str, str]
    read: Callable[[], Iterator[list[Row]]]

    def batches(self) -> Iterator[list[Row]]:
        """Batches of rows with exactly these columns; a value that does not fit its column is None."""
        for rows in self.read():
            yield [{name: _cell(row.get(name), kind) for name, kind in self.columns.items()} for row in rows]


def read_tables(folder: Path) -> tuple[list[Table], list[str]]:
    """The tables of trials and outcomes, and warnings about everything that was left out.

    Raises DataError where the folder has no whole record.
    """
    records, warnings = whole_records(folder)
    trials = _FoundColumns(TRIALS)
    rows = [flat(record.to_json()) for record in records.values()]
    for row in rows:
        warnings += trials.seen([row], f"record {row['id']}")
    outcomes = _FoundColumns(OUTCOMES)
    for identity, record in records.items():
        answered, faults = whole_outcomes(folder, identity)
        warnings += faults
        warnings += outcomes.seen([flat(outcome) for outcome in answered], f"the outcomes of record {identity}")
        if not answered and not faults and record.has_result:
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


class _FoundColumns:
    """The columns found so far: the documented ones, and for each other one the kinds of its values."""

    def __init__(self, documented: Mapping[str, str]) -> None:
        self.documented = documented
        self.others: dict[str, set[str | None]] = {}

    def seen(self, rows: list[Row], where: str) -> list[str]:
        """Add the columns of ``rows``; returns a warning for every column with values that do not fit."""
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
        """Column -> kind: the documented ones in their order, then the others sorted by name."""
        return {**self.documented, **{name: common(self.others[name]) for name in sorted(self.others)}}
