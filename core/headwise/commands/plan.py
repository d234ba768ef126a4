"""``headwise plan``: what a recipe would keep and save on a model of some shape, worked out without weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Annotated, Any

import typer

from headwise.budget import FLOP_FORMULAS, kv_bytes, prefill_flops
from headwise.geometry import Geometry
from headwise.model_config import geometry_of
from headwise.plan import PruningPlan
from headwise.recipe import Recipe


def plan(
    *,
    shape: Annotated[str, typer.Option(help="A known shape (llava-1.5-7b, demo-llava, ...) or a LLaVA model folder.")],
    tokens: Annotated[float | None, typer.Option(help="Visual tokens processed per decoder layer, on average.")] = None,
    keep: Annotated[int | None, typer.Option(help="Visual tokens left after the last stage.")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="[HOOK=]NAME[:option=value,...]; repeat for several hooks.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A named recipe to start from.")] = None,
    text: Annotated[int, typer.Option(min=0, help="Text tokens counted beside the visual ones.")] = 64,
    formula: Annotated[str | None, typer.Option(help="FLOP formula: gated or fastv. [default: as the shape]")] = None,
    itemsize: Annotated[int, typer.Option(min=1, help="Bytes per number in the KV cache; 2 is fp16.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Plan a budget without weights.

    Prints the visual tokens each layer processes, prefill FLOPs and KV bytes, beside those of the unpruned model.
    """
    geometry = geometry_of(shape)
    from headwise.pipeline import Pipeline  # brings torch along, which --help and a misspelt shape can do without

    chosen = Recipe.of(*(strategy or ()), name=recipe, tokens=tokens, keep=keep)
    found = outlook(
        Pipeline(chosen).plan(geometry),
        text=text,
        formula=formula or ("gated" if geometry.gated else "fastv"),
        itemsize=itemsize,
    )
    record = {
        "shape": geometry.name,
        "recipe": chosen.name,
        "strategies": {hook: named.text for hook, named in chosen.strategies.items()},
        "budget": {"given": chosen.budget.text, **found.pop("budget")},
        **found,
    }
    typer.echo(json.dumps(record, indent=2) if as_json else describe(record, geometry))


def outlook(plan: PruningPlan, *, text: int, formula: str, itemsize: int) -> dict[str, Any]:
    """What a plan processes and costs, beside the unpruned model: plain data, ready for JSON."""
    geometry = plan.geometry
    everything = (geometry.visual_tokens,) * geometry.layers

    def compare(cost: Callable[[Sequence[int]], int]) -> dict[str, float]:
        pruned, whole = cost(plan.processed), cost(everything)
        return {"plan": pruned, "unpruned": whole, "ratio": pruned / whole if whole else 1.0}

    return {
        "budget": {"processed": plan.average, "kept": plan.kept, "visual": geometry.visual_tokens},
        "stages": [{"layer": stage.layer, "keep": stage.keep} for stage in plan.stages],
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


def describe(record: dict[str, Any], geometry: Geometry) -> str:
    """The record as a person reads it."""
    budget, flops, memory = record["budget"], record["flops"], record["kv_bytes"]
    text = f"with {record['text_tokens']} text tokens"
    lines = [
        f"{geometry.name}: {geometry.layers} layers, {geometry.heads} heads, {geometry.visual_tokens} visual tokens",
        *(f"  {hook}={named}" for hook, named in record["strategies"].items()),
        f"  budget {budget['given']}",
        "",
        f"kept        {budget['kept']} of {budget['visual']} visual tokens after the last stage",
        f"processed   {budget['processed']:.2f} visual tokens per layer on average",
        *(f"  {line}" for line in _ranges(record["processed_per_layer"])),
        "",
        f"{'':34} {'plan':>12} {'unpruned':>12} {'ratio':>7}",
        _row("prefill FLOPs, visual tokens only", flops["visual"], _scaled),
        _row(f"prefill FLOPs, {text}", flops["with_text"], _scaled),
        _row("KV bytes, visual tokens only", memory["visual"], _mebibytes),
        _row(f"KV bytes, {text}", memory["with_text"], _mebibytes),
        "",
        f"FLOP formula {flops['formula']}: {FLOP_FORMULAS[flops['formula']]}",
        f"KV cache: {memory['itemsize']} bytes per number, after prefill",
    ]
    return "\n".join(lines)


def _ranges(processed: Sequence[int]) -> list[str]:
    """Layers that process the same number of tokens, in one line."""
    lines, first = [], 0
    for count, layers in groupby(processed):
        last = first + len(list(layers)) - 1
        where = f"layer {first}" if first == last else f"layers {first}-{last}"
        lines.append(f"{where:14} {count}")
        first = last + 1
    return lines


def _row(what: str, cost: dict[str, float], show: Callable[[float], str]) -> str:
    return f"{what:34} {show(cost['plan']):>12} {show(cost['unpruned']):>12} {cost['ratio']:7.3f}"


def _scaled(flops: float) -> str:
    """Multiply-adds with the unit that leaves digits in front of the point."""
    unit, size = next(((unit, size) for unit, size in (("T", 1e12), ("G", 1e9)) if flops >= size), ("M", 1e6))
    return f"{flops / size:.3f} {unit}"


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.2f} MiB"
