"""The columns of an export: their order, their kinds, and how a value becomes a cell.

The order is stable. Every export begins with all columns below, which are empty where no record has a value. The other
fields of the folder's records follow, sorted by name: official metrics (``metrics.accuracy/color``), ``notes``,
``timing``. Nested objects become columns with dotted names; a list becomes one cell with JSON text. Later versions add
columns at the end of the tables below; a column is only renamed or moved with a line in the changelog.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

TEXT, INTEGER, REAL, BOOLEAN = "text", "integer", "real", "boolean"


def _columns(lines: Mapping[str, str]) -> dict[str, str]:
    """Column -> kind, in order, from ``KIND SUBJECT`` -> names of columns."""
    return {name: line.split()[0] for line, names in lines.items() for name in names.split()}


TRIALS = _columns({
    "text who": "id study group name model weights dtype attention_implementation attention",
    "text what was asked": "benchmark questions text.name text.digest",
    "integer what was asked": "text.tokens limit seed",
    "text strategies": "recipe strategies.query_selection strategies.head_scoring strategies.head_count"
    " strategies.token_pruning strategies.kv_eviction profile settings.positions settings.aggregate",
    "real settings": "settings.min_mass settings.sink_share",
    "text budget": "budget.given",
    "real budget": "budget.processed budget.reported",
    "integer budget": "budget.kept budget.visual",
    "text stages": "stages",
    "integer heads": "heads.of",
    "real heads": "heads.mean heads.sd context visible",
    "integer results": "n units",
    "text results": "metric.name",
    "real results": "metric.value metric.se nll.mean nll.se accuracy.value accuracy.se",
    "integer cost": "cost.flops_visual cost.flops_total",
    "text cost": "cost.flops_formula",
    "real cost": "cost.text_tokens cost.prefill_ms cost.prefill_unpruned_ms cost.prefill_share cost.prefill_share_low"
    " cost.prefill_share_high"
    " cost.decode_tokens_per_s",
    "integer memory": "cost.batch cost.kv_bytes kv_bytes kv_bytes_planned peak_bytes",
    "real kept tokens": "overlap.recall overlap.precision overlap.iou overlap.lift overlap.n"
    " attention.concentration attention.entropy diversity",
    "text failures": "error refused",
    "integer failures": "attempt",
    "real time": "seconds",
    "text origin": "hardware.device hardware.cpu versions.headwise versions.torch versions.transformers"
    " versions.python command created",
    "integer origin": "hardware.cores hardware.threads schema",
    "integer counted": "cost.flops_counted cost.flops_counted_unpruned cost.flops_counted_layers"
    " cost.flops_counted_selection cost.kv_bytes_stored cost.peak_bytes cost.peak_grown_bytes",
    "text counted": "cost.peak_source",
    "real counted": "cost.selection_ms cost.selection_share",
})  # fmt: skip
"""Trials: one row for each id, from its last record. Per-question outcomes refer to ``id``."""

OUTCOMES = _columns({
    "text whose": "trial id unit kind",
    "text asked and answered": "image question answers prediction",
    "real worth": "score recall",
    "text tokens and heads": "boxes kept heads",
    "boolean of texts": "right",
})  # fmt: skip
"""Outcomes: one row for each question, or for each token of a text; ``trial`` is the ``id`` of a trial."""


def flat(record: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The fields of nested objects under dotted names; nulls and empty objects are left out."""
    found: dict[str, object] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def kind_of(value: object) -> str | None:
    """The kind of column for a value; None for a number that is not finite."""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER if -(2**63) <= value < 2**63 else REAL
    if isinstance(value, float):
        return REAL if math.isfinite(value) else None
    return TEXT


def common(kinds: Iterable[str | None]) -> str:
    """The kind of column that can hold values of all these kinds."""
    found = set(kinds) - {None}
    if found <= {INTEGER, REAL}:
        return INTEGER if found == {INTEGER} else REAL
    return BOOLEAN if found == {BOOLEAN} else TEXT


def fit(value: object, kind: str) -> object:
    """A value as a cell of a column; None where it does not fit."""
    asked = kind_of(value)
    if asked is None:
        return None
    if kind == TEXT:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode()  # JSON may hold lone surrogates
    if kind == INTEGER and asked == REAL and isinstance(value, int | float):
        return int(value) if value == value // 1 and kind_of(int(value)) == INTEGER else None
    if kind == REAL and isinstance(value, int | float) and asked in (INTEGER, REAL):
        return _real(value)
    return value if asked == kind else None


def _real(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:  # an integer beyond what a float holds
        return None
