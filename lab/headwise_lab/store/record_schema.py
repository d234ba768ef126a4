"""What a record may hold: one schema that judges records where they are written, imported and read.

A record is JSON, one per attempt at a trial. Of what a trial found, reports need the fields that have no default below;
fields that are not named here may hold anything. Records of trials that failed or could not be run say so instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from headwise.errors import DataError, HeadwiseError
from headwise.text import StrategyText
from headwise_lab.schema.json_schema import is_number, shown, what_is_wrong
from headwise_lab.schema.wrong_values import WrongValue

__all__ = ["SAFE_ID", "TextRecord", "VisualRecord", "has_result", "is_kv", "is_number", "judge", "judge_written"]

SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,199}")
"""Ids become names of files."""

NEEDLE = "needle"


def _strategies(_: object, attribute: attrs.Attribute[Any], texts: Mapping[str, str]) -> None:
    for hook, text in texts.items():
        try:
            StrategyText.parse(text)
        except HeadwiseError as error:
            raise WrongValue(f"{attribute.name}.{hook}", str(error)) from error


def _above(least: float, *, itself: bool = False) -> Callable[[object, attrs.Attribute[Any], float], None]:
    def check(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not (value > least or (itself and value == least)):
            raise WrongValue(attribute.name, f"{value!r} is not {'at least' if itself else 'above'} {least:g}")

    return check


@attrs.frozen
class Metric:
    """The headline figure; errors are standard errors."""

    value: float
    name: str | None = None
    se: float | None = None


@attrs.frozen
class Budget:
    """Visual tokens: as given, processed per layer on average, left at the end, and before."""

    given: str | None = None
    processed: float | None = None
    kept: float | None = None
    visual: float | None = None
    reported: float | None = None


@attrs.frozen
class Heads:
    """Heads per layer, and how many of them had a say."""

    of: float | None = None
    mean: float | None = None
    sd: float | None = None


@attrs.frozen
class Passage:
    """The text that was read."""

    name: str | None = None
    digest: str | None = None
    tokens: int | None = None


@attrs.frozen
class Loss:
    """Nats per token."""

    mean: float | None = None
    se: float | None = None


@attrs.frozen(kw_only=True)
class Circumstances:
    """What records of every kind may say."""

    strategies: dict[str, str] = attrs.field(validator=_strategies)
    metric: Metric
    n: int = attrs.field(validator=_above(0, itself=True))
    study: str | None = None
    group: str | None = None
    name: str | None = None
    model: str | None = None
    weights: str | None = None
    dtype: str | None = None
    recipe: str | None = None
    profile: str | None = None
    seed: int | None = None
    limit: float | None = None
    units: int | None = None
    questions: str | None = None
    command: str | None = None
    created: str | None = None
    settings: dict[str, Any] | None = None
    versions: dict[str, str | None] | None = None
    hardware: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class VisualRecord(Circumstances):
    """A model that answered the questions of a benchmark."""

    benchmark: str
    budget: Budget
    heads: Heads
    cost: dict[str, Any] | None = None
    overlap: dict[str, Any] | None = None
    attention: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    notes: dict[str, Any] | None = None
    timing: dict[str, Any] | None = None
    diversity: float | None = None


@attrs.frozen(kw_only=True)
class TextRecord(Circumstances):
    """A language model that read a text under KV eviction."""

    text: Passage
    nll: Loss
    context: float = attrs.field(validator=_above(0))
    accuracy: dict[str, Any] | None = None
    visible: float | None = None
    attention: str | None = None


def judge(record: Mapping[str, Any], where: str) -> None:
    """Raise DataError, which says ``where``, the record, the field and what is wanted, unless a report could use it."""
    identity = _identity(record, f"{where}: ")
    if record.get("study") == NEEDLE:
        raise DataError(
            f"{where} is a record of `headwise needle`, which shows its own table and heat maps; give the output folder"
            " of run, ppl, ablate or demo"
        )
    _judge_told(record, where)
    found = _wrong(record, whole=True)
    if found:
        raise DataError(f"{where}: record {identity} has no usable {found[0]!r}: {found[1]}")


def judge_written(record: Mapping[str, Any]) -> None:
    """Raise DataError where a record of ours has a field that readers could not use; it may lack some."""
    identity = _identity(record, "")
    _judge_told(record, "the record")
    found = None if record.get("study") == NEEDLE else _wrong(record, whole=False)
    if found:
        raise DataError(f"record {identity} cannot be written, for its {found[0]!r} could not be read: {found[1]}")


def _identity(record: Mapping[str, Any], where: str) -> str:
    identity = record.get("id")
    if not (isinstance(identity, str) and SAFE_ID.fullmatch(identity)):
        raise DataError(f"{where}a record needs an id of letters and digits, not {shown(identity)}")
    return identity


def _wrong(record: Mapping[str, Any], *, whole: bool) -> tuple[str, str] | None:
    """Path and problem of the first field of a result that readers could not use."""
    kind: type[Circumstances] = TextRecord if is_kv(record) else VisualRecord
    return what_is_wrong(record, kind, whole=whole) if has_result(record) else None


def has_result(record: Mapping[str, Any]) -> bool:
    """Whether a trial was run to its end; else it failed (``error``) or could not be run (``refused``)."""
    return not (record.get("error") or record.get("refused"))


def is_kv(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a text read under KV eviction; all others answer the questions of a benchmark."""
    return "benchmark" not in record and "text" in record


def _judge_told(record: Mapping[str, Any], where: str) -> None:
    """What records of trials without a result are read for."""
    for key in ("error", "refused", "model", "benchmark", "command", "study"):
        if not isinstance(record.get(key), str | None):
            raise DataError(f"{where}: {key} of record {record['id']} is no text: {shown(record[key])}")
    attempt = record.get("attempt", 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        raise DataError(f"{where}: attempt of record {record['id']} is no whole number: {shown(attempt)}")
    if not has_result(record) and not _are_texts(record.get("strategies") or {}):
        raise DataError(f"{where}: strategies of record {record['id']} are not texts: {shown(record['strategies'])}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
