"""Facets: the benchmarks, budgets, head counts and models of a record, a row or a picture. A page filters by them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import attrs

from headwise.text import StrategyText
from headwise_lab.report.page.grid import MISSING, Grid, Mark
from headwise_lab.report.trials import AskedTrial, Trial
from headwise_lab.store.record_types import Record, TextRecord, VisualRecord

NO_CHOICE = "no choice of heads"
"""The head count of a record that reads no attention or has no visual tokens."""

HEADERS = {
    "Benchmark": "benchmark", "Token": "budget", "Budget": "budget", "Head": "heads", "Heads": "heads",
    "Model": "model",
}  # fmt: skip
"""Column -> the kind of facet that it names; an empty cell repeats the one above."""

KINDS = ("benchmark", "budget", "heads", "model")

_MEAN = re.compile(r" \(\d[\d.]*\)$")


@attrs.frozen
class Facets:
    """The values of each kind. Filters of a kind that has no values do not apply."""

    benchmark: tuple[str, ...] = ()
    budget: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    model: tuple[str, ...] = ()

    def items(self) -> Iterable[tuple[str, str]]:
        """(kind, its values, one per line) of the kinds that have some; they become attributes of an HTML element."""
        return [(kind, "\n".join(getattr(self, kind))) for kind in KINDS if getattr(self, kind)]

    def within(self, outer: Facets) -> Facets:
        """Without the kinds that are the same in the element around it: the inner element need not repeat them."""
        return attrs.evolve(self, **{kind: () for kind in KINDS if getattr(self, kind) == getattr(outer, kind)})


def union(facets: Iterable[Facets]) -> Facets:
    """The values of all, each once and in the order in which they come."""
    listed = list(facets)
    return Facets(**{kind: tuple(dict.fromkeys(chain.from_iterable(getattr(one, kind) for one in listed)))
                     for kind in KINDS})  # fmt: skip


def of_record(record: Record) -> Facets:
    """The facets of a record, also of one that failed."""
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
    """The label of a budget or a rule as filters show it: without options, and without the mean in brackets."""
    return _MEAN.sub("", label).partition(":")[0].replace("=", " ")


def of_rows(grid: Grid, known: Mapping[str, Facets], around: Facets, columns: Sequence[Facets] = ()) -> list[Facets]:
    """The facets of each row: from its labels, else from its columns or the records of its figures, else the section's.

    ``known``: record -> its facets. ``around``: the facets of the section. ``columns``: those of each column, if any; a
    row has those of its columns with a figure.
    """
    values = {kind: {value for one in known.values() for value in getattr(one, kind)} for kind in HEADERS.values()}
    places = [(place, HEADERS[name]) for place, name in enumerate(grid.header) if name in HEADERS]
    last: dict[str, str] = {}
    found = []
    for row in grid.rows:
        facets = union(known[name] for name in sources(row) if name in known)
        across = union(facet for facet, mark in zip(columns, row, strict=False) if mark.text not in ("", MISSING))
        facets = attrs.evolve(facets, **{kind: tuple(values.split("\n")) for kind, values in across.items()})
        for place, kind in places:
            last[kind] = _value(kind, row[place].text) if row[place].text else last.get(kind, "")
            if last[kind] in values[kind]:
                facets = attrs.evolve(facets, **{kind: (last[kind],)})
        found.append(attrs.evolve(facets, **dict(_missing(facets, around))))
    return found


def _value(kind: str, text: str) -> str:
    return plain(text) if kind in ("budget", "heads") else text


def _missing(own: Facets, around: Facets) -> list[tuple[str, tuple[str, ...]]]:
    return [(kind, getattr(around, kind)) for kind in ("benchmark", "model") if not getattr(own, kind)]


def of_columns(grid: Grid, known: Mapping[str, Facets]) -> list[Facets]:
    """The facets of each column: its budget, if it has one. Columns behind a budget belong to that budget."""
    budgets = {value for one in known.values() for value in one.budget}
    found, last = [], Facets()
    for name in grid.header:
        last = Facets(budget=(plain(name),)) if plain(name) in budgets else last
        found.append(last)
    return found


def sources(row: Sequence[Mark]) -> tuple[str, ...]:
    """Every record that the cells of a row come from."""
    return tuple(dict.fromkeys(name for mark in row for name in mark.sources))
