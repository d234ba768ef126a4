"""The eviction part of ``headwise plan``: entries and bytes of the KV cache, beside those of the full cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwise.commands.plan_pruning import binary, ranges
from headwise.eviction import EvictionPlan, WindowPlan, distinct, entries_held
from headwise.reading import JsonObject


def outlook(plan: EvictionPlan, *, seen: int, dropped: Sequence[int], itemsize: int) -> JsonObject:
    """What a plan holds after ``seen`` tokens, of which pruning took ``dropped`` from each layer: plain data."""
    geometry = plan.geometry
    entries = entries_held(plan, [seen - gone for gone in dropped])
    size = 2 * geometry.head_dim * itemsize
    full = seen * geometry.kv_heads * size
    return {
        "seen": seen,
        "context": sum(entries) / (geometry.layers * geometry.kv_heads),
        "entries_per_layer": [count / geometry.kv_heads for count in entries],
        "windows": _windows(plan),
        "every": None if isinstance(plan, WindowPlan) else plan.every,
        "kv_bytes_per_layer": [count * size for count in entries],
        "kv_bytes": {
            "itemsize": itemsize,
            "plan": sum(entries) * size,
            "full": full * geometry.layers,
            "ratio": sum(entries) * size / (full * geometry.layers),
        },
    }


def _windows(plan: EvictionPlan) -> dict[str, int] | None:
    """How many different windows there are, in all and in one layer; None where scores decide."""
    if not isinstance(plan, WindowPlan):
        return None
    pairs = np.stack([plan.sinks.ravel(), plan.windows.ravel()], axis=1)
    return {
        "different": len(np.unique(pairs, axis=0)),
        "most_in_a_layer": max(len(distinct(plan, layer)) for layer in range(plan.geometry.layers)),
    }


def describe(record: JsonObject) -> list[str]:
    """The lines a person reads."""
    memory = record["kv_bytes"]
    per_layer = list(zip(record["entries_per_layer"], record["kv_bytes_per_layer"], strict=True))
    title = f"KV bytes after {record['seen']} tokens"
    return [
        "",
        f"context     {record['context']:.2f} of {record['seen']} entries per layer and KV head on average",
        *(f"  {where:14} {count:<10.2f} {binary(size)}" for where, (count, size) in ranges(per_layer)),
        _rule(record),
        "",
        f"{'':34} {'plan':>12} {'full cache':>12} {'ratio':>7}",
        f"{title:34} {binary(memory['plan']):>12} {binary(memory['full']):>12} {memory['ratio']:7.3f}",
        "",
        f"KV cache: {memory['itemsize']} bytes per number; full is the cache that holds all tokens in every layer",
    ]


def _rule(record: JsonObject) -> str:
    if record["windows"]:
        windows = record["windows"]
        return f"windows     {windows['different']} different in all, at most {windows['most_in_a_layer']} in a layer"
    decoding = f"every {record['every']} tokens of decoding" if record["every"] else "not in decoding"
    return f"scores      entries right after an eviction: once a prompt or chunk is read, and {decoding}"
