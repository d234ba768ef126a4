"""What a page knows of every record, once: its facets, and the facts that the details of a figure show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from headwise_lab.report.page.facets import Facets, of_record
from headwise_lab.store.records import has_result, is_kv, is_number

LABELS = (
    "Score", "n", "Strategies", "Command", "Budget", "Heads", "Recipe", "Settings", "Seed", "Model", "Where", "Made",
)  # fmt: skip
"""What the facts of a record are called, in their order."""


@attrs.frozen(eq=False)
class Book:
    """The records of a page by id: facets, facts (a text for each label), and texts that need no repeating.

    ``notes``: what figures tell beside their records, each text once, and its number.
    """

    facets: Mapping[str, Facets]
    facts: Mapping[str, tuple[str, ...]]
    repeated: frozenset[str]
    notes: dict[str, int] = attrs.field(factory=dict)

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Book:
        """The book of records; those that failed have facets alone."""
        listed = {str(record["id"]): record for record in records}
        done = {name: record for name, record in listed.items() if has_result(record)}
        repeated = {text for record in done.values() for text in (strategies(record), str(record.get("command") or ""))}
        repeated |= {text for record in done.values() for text in record["strategies"].values()}
        return cls(
            {name: of_record(record) for name, record in listed.items()},
            {name: facts(record) for name, record in done.items()},
            frozenset(repeated),
        )

    def fact(self, name: str, label: str) -> str:
        """One fact of a record."""
        return self.facts[name][LABELS.index(label)]

    def note(self, text: str) -> str:
        """The number of a text, for the page to look it up; empty for none."""
        return str(self.notes.setdefault(text, len(self.notes))) if text else ""

    def as_json(self) -> dict[str, Any]:
        """What the page carries: texts that records share are listed once and then numbered, as are notes."""
        shared = [LABELS.index(label) for label in ("Settings", "Where", "Model", "Strategies")]
        texts: dict[str, int] = {}
        told = {}
        for name, values in self.facts.items():
            told[name] = [
                texts.setdefault(value, len(texts)) if place in shared else value for place, value in enumerate(values)
            ]
        return {"labels": LABELS, "texts": list(texts), "notes": list(self.notes), "records": told}


def facts(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The facts of a record that has a result; empty where it does not say."""
    settings = record.get("settings") or {}
    weights = record.get("weights")
    return (
        _score(record),
        _count(record),
        "\n".join(f"{hook}={text}" for hook, text in record["strategies"].items()),
        str(record.get("command") or ""),
        _budget(record),
        _heads(record),
        str(record.get("recipe") or ""),
        ", ".join(f"{key}={value}" for key, value in settings.items()),
        "" if record.get("seed") is None else str(record["seed"]),
        ", ".join(str(part) for part in (record.get("model"), weights and f"weights {weights}") if part),
        where(record),
        str(record.get("created") or ""),
    )


def strategies(record: Mapping[str, Any]) -> str:
    """All strategy texts in one line, as tables write them."""
    return " ".join(f"{hook}={text}" for hook, text in record["strategies"].items())


def _score(record: Mapping[str, Any]) -> str:
    metric = record["metric"]
    se = metric.get("se")
    error = f" ± {se:.4g} (SE)" if is_number(se) else ", SE unknown"
    return f"{metric.get('name') or 'score'} {metric['value']:.2f}{error}"


def _count(record: Mapping[str, Any]) -> str:
    if is_kv(record):
        return f"{record['n']} tokens of {record['text'].get('name')}"
    units = record.get("units")
    grouped = f" in {units} units" if units not in (None, record["n"]) else ""
    return f"{record['n']} questions of {record['benchmark']}{grouped}"


def _budget(record: Mapping[str, Any]) -> str:
    if is_kv(record):
        return f"{record['context']:.1f} entries per KV head at the end"
    budget = record["budget"]
    told = [str(budget.get("given") or "everything")]
    if is_number(budget.get("processed")):
        told.append(f"{budget['processed']:.1f} visual tokens per layer on average")
    if is_number(budget.get("kept")) and is_number(budget.get("visual")):
        told.append(f"{budget['kept']} of {budget['visual']} kept")
    return ", ".join(told)


def _heads(record: Mapping[str, Any]) -> str:
    heads = record.get("heads") or {}
    mean, of = heads.get("mean"), heads.get("of")
    return f"{mean:.2f} of {of} decided, on average" if is_number(mean) and of else ""


def where(record: Mapping[str, Any]) -> str:
    """Versions and hardware."""
    versions, hardware = record.get("versions") or {}, record.get("hardware") or {}
    told = [f"{name} {version}" for name, version in versions.items()]
    return ", ".join([*told, *(str(hardware[key]) for key in ("device", "gpu", "cpu") if hardware.get(key))])
