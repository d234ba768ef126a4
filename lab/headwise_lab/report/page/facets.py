"""What a page is filtered by: benchmarks, budgets, heads and models that a record, a row or a picture is of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from headwise.text import StrategyText
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.report.trials import AskedTrial, Trial
from headwise_lab.store.record_types import Record, TextRecord, VisualRecord

NO_CHOICE = "no choice of heads"
"""Heads of a record that reads no attention, or has no visual tokens to choose among."""

HEADERS = {
    "Benchmark": "benchmark", "Token": "budget", "Budget": "budget", "Head": "heads", "Heads": "heads",
    "Model": "model",
}  # fmt: skip
"""Columns of a table that say what a row is of; an empty cell repeats the one above."""

_MEAN = re.compile(r" \(\d[\d.]*\)$")


@attrs.frozen
class Facets:
    """Values of each kind; nothing of a kind means that filters of that kind say nothing about it."""

    benchmark: tuple[str, ...] = ()
    budget: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    model: tuple[str, ...] = ()

    def items(self) -> Iterable[tuple[str, str]]:
        """(kind, its values, one per line) of the kinds that have some: attributes of an element."""
        told: dict[str, tuple[str, ...]] = attrs.asdict(self, recurse=False)
        return [(kind, "\n".join(values)) for kind, values in told.items() if values]

    def within(self, outer: Facets) -> Facets:
        """Without the kinds that are as in what is around it: an element need not repeat them."""
        kinds = ("benchmark", "budget", "heads", "model")
        return Facets(**{kind: () if getattr(self, kind) == getattr(outer, kind) else getattr(self, kind)
                         for kind in kinds})  # fmt: skip


def union(facets: Iterable[Facets]) -> Facets:
    """Every value once, in order."""
    joined: dict[str, dict[str, None]] = {kind: {} for kind in ("benchmark", "budget", "heads", "model")}
    for one in facets:
        for kind, values in joined.items():
            values.update(dict.fromkeys(getattr(one, kind)))
    return Facets(**{kind: tuple(values) for kind, values in joined.items()})


def of_record(record: Record) -> Facets:
    """What a record is of, one that failed included."""
    model = (record.model,) if record.model else ()
    if record.reads_text:
        budget = (f"{record.context:.0f} entries",) if isinstance(record, TextRecord) else ()
        return Facets((str(record.text and record.text.name),), budget, (NO_CHOICE,), model)
    benchmark = (record.benchmark,) if record.benchmark else ()
    given = record.budget and record.budget.given
    heads = (_heads(record),) if record.strategies else ()
    return Facets(benchmark, (given.replace("=", " "),) if given else (), heads, model)


def _heads(record: Record) -> str:
    if isinstance(record, VisualRecord):
        trial = Trial(record)
        return plain(trial.heads) if trial.selects_heads else NO_CHOICE
    count = StrategyText.parse(AskedTrial(record).text("head_count"))
    return count.options.get("heads", count.name)


def plain(label: str) -> str:
    """A label of a budget or a rule as filters name it, without options and the mean in brackets behind it."""
    return _MEAN.sub("", label).partition(":")[0].replace("=", " ")


def of_rows(grid: Grid, known: Mapping[str, Facets], around: Facets) -> list[Facets]:
    """Facets of each row: by its own labels, else by the records its figures come from.

    ``known``: record -> its facets. ``around``: those of the section, which hold where a row has none of its own.
    """
    values = {kind: {value for one in known.values() for value in getattr(one, kind)} for kind in HEADERS.values()}
    places = [(place, HEADERS[name]) for place, name in enumerate(grid.header) if name in HEADERS]
    last: dict[str, str] = {}
    found = []
    for row in grid.rows:
        told = union(known[name] for name in sources(row) if name in known)
        for place, kind in places:
            last[kind] = _value(kind, row[place].text) if row[place].text else last.get(kind, "")
            if last[kind] in values[kind]:
                told = attrs.evolve(told, **{kind: (last[kind],)})
        found.append(attrs.evolve(told, **dict(_missing(told, around))))
    return found


def _value(kind: str, text: str) -> str:
    return plain(text) if kind in ("budget", "heads") else text


def _missing(own: Facets, around: Facets) -> list[tuple[str, tuple[str, ...]]]:
    return [(kind, getattr(around, kind)) for kind in ("benchmark", "model") if not getattr(own, kind)]


def of_columns(grid: Grid, known: Mapping[str, Facets]) -> list[str]:
    """The budget each column is of where budgets go across, else nothing; what follows a budget belongs to it."""
    budgets = {value for one in known.values() for value in one.budget}
    found, last = [], ""
    for name in grid.header:
        last = plain(name) if plain(name) in budgets else last
        found.append(last)
    return found


def sources(row: Sequence[Mark]) -> tuple[str, ...]:
    """Every record that a row's marks come from."""
    return tuple(dict.fromkeys(name for mark in row for name in mark.sources))
