"""What a page says of each record, stored once: its facets, and the facts that the details of a figure show."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping

import attrs

from headwise_lab.report.page.facets import Facets, of_record
from headwise_lab.report.page.facts import where
from headwise_lab.report.trials import AskedTrial
from headwise_lab.store.record_types import Heads, Metric, Record, Result, TextRecord, TokenBudget, VisualRecord

LABELS = (
    "Score", "n", "Strategies", "Command", "Budget", "Heads", "Recipe", "Settings", "Seed", "Model", "Where", "Made",
)  # fmt: skip
"""The labels of a record's facts, in their order."""


@attrs.frozen(eq=False)
class Book:
    """The records of a page by id: their facets and their facts (a text for each of ``LABELS``).

    ``repeated``: texts that stand in a record, so that a figure need not repeat them. ``notes``: what figures say
    beyond their records; each text has one number. ``files``: name -> CSV or LaTeX of a table, compressed.
    """

    facets: Mapping[str, Facets]
    facts: Mapping[str, tuple[str, ...]]
    repeated: frozenset[str]
    notes: dict[str, int] = attrs.field(factory=dict)
    files: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Book:
        """The book of some records; those without a result have facets and no facts."""
        listed = {record.id: record for record in records}
        done = {name: record for name, record in listed.items() if isinstance(record, Result)}
        repeated = {text for record in done.values() for text in (AskedTrial(record).strategies, record.command or "")}
        repeated |= {text for record in done.values() for text in record.strategies.values()}
        return cls(
            {name: of_record(record) for name, record in listed.items()},
            {name: facts(record) for name, record in done.items()},
            frozenset(repeated),
        )

    def fact(self, name: str, label: str) -> str:
        """The fact of a record with this label."""
        return self.facts[name][LABELS.index(label)]

    def note(self, text: str) -> str:
        """The number by which the page finds a text; empty for an empty text."""
        return str(self.notes.setdefault(text, len(self.notes))) if text else ""

    def keep(self, name: str, text: str) -> str:
        """Keep a file for download; returns its name. A browser decompresses it (raw deflate in base64)."""
        packed = zlib.compress(text.encode(), 9, -zlib.MAX_WBITS)
        self.files[name] = base64.b64encode(packed).decode("ascii")
        return name

    def as_json(self) -> dict[str, object]:
        """The data of the page. Notes, and texts that records share, are listed once and referred to by number."""
        shared = [LABELS.index(label) for label in ("Settings", "Where", "Model", "Strategies")]
        texts: dict[str, int] = {}
        records: dict[str, list[int | str]] = {}
        for name, values in self.facts.items():
            records[name] = [
                texts.setdefault(value, len(texts)) if place in shared else value for place, value in enumerate(values)
            ]
        return {
            "labels": LABELS,
            "texts": list(texts),
            "notes": list(self.notes),
            "records": records,
            "files": self.files,
        }


def facts(record: Result) -> tuple[str, ...]:
    """The facts of a record that has a result, in the order of ``LABELS``; empty texts where it does not say."""
    return (
        _score(record.metric),
        _count(record),
        "\n".join(f"{hook}={text}" for hook, text in record.strategies.items()),
        record.command or "",
        _budget(record),
        _heads(record),
        record.recipe or "",
        ", ".join(f"{key}={value}" for key, value in (record.settings or {}).items()),
        "" if record.seed is None else str(record.seed),
        ", ".join(filter(None, (record.model, record.weights and f"weights {record.weights}"))),
        where(record, gpu=True),
        record.created or "",
    )


def _score(metric: Metric) -> str:
    error = ", SE unknown" if metric.se is None else f" ± {metric.se:.4g} (SE)"
    return f"{metric.name or 'score'} {metric.value:.2f}{error}"


def _count(record: Result) -> str:
    if isinstance(record, TextRecord):
        return f"{record.n} tokens of {record.text.name}"
    grouped = f" in {record.units} units" if record.units not in (None, record.n) else ""
    return f"{record.n} questions of {record.benchmark}{grouped}"


def _budget(record: Result) -> str:
    if isinstance(record, TextRecord):
        return f"{record.context:.1f} entries per KV head at the end"
    budget = record.budget or TokenBudget()
    parts = [budget.given or "everything"]
    if budget.processed is not None:
        parts.append(f"{budget.processed:.1f} visual tokens per layer on average")
    if budget.kept is not None and budget.visual is not None:
        parts.append(f"{budget.kept} of {budget.visual} kept")
    return ", ".join(parts)


def _heads(record: Result) -> str:
    heads = record.heads if isinstance(record, VisualRecord) else Heads()
    return f"{heads.mean:.2f} of {heads.of} decided, on average" if heads.mean is not None and heads.of else ""
