"""The pruning part of ``headwise plan``: visual tokens per layer, prefill FLOPs and KV bytes after prefill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from headwise.budget import FLOP_FORMULAS, kv_bytes, prefill_flops
from headwise.plan import PruningPlan, Stage
from headwise.reading import JsonObject

T = TypeVar("T")


def outlook(plan: PruningPlan, *, text: int, formula: str, itemsize: int) -> JsonObject:
    """What a plan processes and costs, beside the unpruned model: plain data, ready for JSON."""
    geometry = plan.geometry
    everything = (geometry.visual_tokens,) * geometry.layers

    def compare(cost: Callable[[Sequence[int]], int]) -> dict[str, float]:
        pruned, whole = cost(plan.processed), cost(everything)
        return {"plan": pruned, "unpruned": whole, "ratio": pruned / whole if whole else 1.0}

    reported = {} if plan.reported is None else {"reported": plan.reported}
    return {
        "budget": {"processed": plan.average, **reported, "kept": plan.kept, "visual": geometry.visual_tokens},
        "stages": [_stage(stage) for stage in plan.stages],
        "processed_per_layer": list(plan.processed),
        "text_tokens": text,
        "flops": {
            "formula": formula,
            "visual": compare(lambda visual: prefill_flops(geometry, visual, 0, formula)),
            "with_text": compare(lambda visual: prefill_flops(geometry, visual, text, formula)),
        },
        "kv_bytes": {
            "itemsize": itemsize,
            "visual": compare(lambda visual: kv_bytes(geometry, visual, 0, itemsize)),
            "with_text": compare(lambda visual: kv_bytes(geometry, visual, text, itemsize)),
        },
    }


def _stage(stage: Stage) -> dict[str, int]:
    """Where a stage prunes and what it leaves; of that, what it merges, where it merges at all."""
    merged = {"merged": stage.merged} if stage.merged else {}
    return {"layer": stage.layer, "keep": stage.keep, **merged}


def describe(record: JsonObject) -> list[str]:
    """The lines a person reads."""
    budget, flops, memory = record["budget"], record["flops"], record["kv_bytes"]
    text = f"with {record['text_tokens']} text tokens"
    before = " and before eviction" if "kv_eviction" in record else ""
    own = budget["given"] == "everything" and budget["kept"] < budget["visual"]
    return [
        f"  budget {'of the method itself' if own else budget['given']}",
        "",
        f"kept        {budget['kept']} of {budget['visual']} visual tokens after the last stage",
        *_as_reported(budget),
        f"processed   {budget['processed']:.2f} visual tokens per layer on average",
        *(f"  {where:14} {count}" for where, count in ranges(_counted(record))),
        "",
        f"{'':34} {'plan':>12} {'unpruned':>12} {'ratio':>7}",
        _row("prefill FLOPs, visual tokens only", flops["visual"], _scaled),
        _row(f"prefill FLOPs, {text}", flops["with_text"], _scaled),
        _row("KV bytes, visual tokens only", memory["visual"], binary),
        _row(f"KV bytes, {text}", memory["with_text"], binary),
        "",
        f"FLOP formula {flops['formula']}: {FLOP_FORMULAS[flops['formula']]}",
        f"KV cache: {memory['itemsize']} bytes per number, after prefill{before}",
    ]


def _as_reported(budget: JsonObject) -> list[str]:
    """The average that the method's own paper or code would give for the same plan."""
    if "reported" not in budget:
        return []
    return [f"reported    {budget['reported']:.2f} by the method's own way of counting"]


def _counted(record: JsonObject) -> list[str]:
    """Each layer's visual tokens, and how many of them are merged ones."""
    counts = [str(count) for count in record["processed_per_layer"]]
    ends = [*(stage["layer"] for stage in record["stages"][1:]), len(counts)]
    for stage, end in zip(record["stages"], ends, strict=False):
        if "merged" in stage:
            told = f"{stage['keep']}, {stage['merged']} of them merged"
            counts[stage["layer"] : end] = [told] * (end - stage["layer"])
    return counts


def ranges(values: Sequence[T]) -> list[tuple[str, T]]:
    """(which layers, value) for neighbouring layers with the same value."""
    found, first = [], 0
    for value, layers in groupby(values):
        last = first + len(list(layers)) - 1
        found.append((f"layer {first}" if first == last else f"layers {first}-{last}", value))
        first = last + 1
    return found


def _row(what: str, cost: dict[str, float], show: Callable[[float], str]) -> str:
    return f"{what:34} {show(cost['plan']):>12} {show(cost['unpruned']):>12} {cost['ratio']:7.3f}"


def _scaled(flops: float) -> str:
    """Multiply-adds with the unit that leaves digits in front of the point."""
    unit, size = next(((unit, size) for unit, size in (("T", 1e12), ("G", 1e9)) if flops >= size), ("M", 1e6))
    return f"{flops / size:.3f} {unit}"


def binary(size: float) -> str:
    """Bytes as one writes them."""
    return f"{size / 2**20:.2f} MiB" if size >= 2**20 else f"{size / 2**10:.2f} KiB"
