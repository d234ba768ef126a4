"""``headwise plan``: what a recipe would keep and save on a model of some shape, worked out without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.commands import plan_eviction, plan_pruning
from headwise.errors import BudgetError
from headwise.families import geometry_of
from headwise.geometry import Geometry
from headwise.output import answer
from headwise.reading import JsonObject, given_path
from headwise.recipe import Recipe

if TYPE_CHECKING:  # imports torch, which --help and the error for a misspelt shape do not need
    from headwise.pipeline import Pipeline

SEEN = 4096
"""Tokens read, where the model has no image and nothing else is said."""


def plan(
    *,
    shape: Annotated[
        str, typer.Option(help="A known shape (llava-1.5-7b, pythia-2.8b, demo-llava, ...) or a model folder.")
    ],
    tokens: Annotated[float | None, typer.Option(help="Visual tokens processed per decoder layer, on average.")] = None,
    keep: Annotated[int | None, typer.Option(help="Visual tokens left after the last stage.")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="[HOOK=]NAME[:option=value,...]; repeat for several hooks.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A named recipe to start from.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(callback=given_path, help="Head classes for KV eviction: what `headwise classify-heads` wrote."),
    ] = None,
    text: Annotated[int, typer.Option(min=0, help="Text tokens counted beside the visual ones.")] = 64,
    seen: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens read when the KV cache is counted. [default: visual and text, or 4096 without image]"
        ),
    ] = None,
    formula: Annotated[str | None, typer.Option(help="FLOP formula: gated or fastv. [default: as the shape]")] = None,
    itemsize: Annotated[int, typer.Option(min=1, help="Bytes per number in the KV cache; 2 is fp16.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Plan a budget without weights.

    Prints the visual tokens each layer processes, prefill FLOPs and KV bytes, beside those of the unpruned model; and
    the entries a KV cache holds with eviction, beside those of the full cache.
    """
    geometry = geometry_of(shape)
    from headwise.pipeline import Pipeline

    chosen = Recipe.of(*(strategy or ()), name=recipe, tokens=tokens, keep=keep, profile=profile)
    formula = formula or ("gated" if geometry.gated else "fastv")
    record = {
        "shape": geometry.name,
        "recipe": chosen.name,
        "strategies": {hook: named.text for hook, named in chosen.strategies.items()},
        "profile": profile and str(profile),
        **outlook(Pipeline(chosen), geometry, text=text, seen=seen, formula=formula, itemsize=itemsize),
    }
    answer(json.dumps(record, indent=2) if as_json else describe(record, geometry))


def outlook(
    pipeline: Pipeline, geometry: Geometry, *, text: int, seen: int | None, formula: str, itemsize: int
) -> JsonObject:
    """What a recipe processes, holds and costs: pruning where there is an image, eviction where that is asked for.

    Raises BudgetError for fewer tokens ``seen`` than an image has.
    """
    pruning = pipeline.plan(geometry)
    found: dict[str, object] = {}
    if geometry.visual_tokens:
        costs = plan_pruning.outlook(pruning, text=text, formula=formula, itemsize=itemsize)
        found = {**costs, "budget": {"given": pipeline.recipe.budget.text, **costs["budget"]}}
    if "kv_eviction" in pipeline.recipe.strategies or not geometry.visual_tokens:
        seen = seen or (geometry.visual_tokens + text if geometry.visual_tokens else SEEN)
        if seen < geometry.visual_tokens:
            raise BudgetError(
                f"seen={seen} is less than the {geometry.visual_tokens} visual tokens of {geometry.name}; give at least"
                f" {geometry.visual_tokens}"
            )
        dropped = [geometry.visual_tokens - left for left in pruning.processed]
        eviction = pipeline.eviction(geometry)
        found["kv_eviction"] = plan_eviction.outlook(eviction, seen=seen, dropped=dropped, itemsize=itemsize)
    return found


def describe(record: JsonObject, geometry: Geometry) -> str:
    """The record as a person reads it."""
    visual = f", {geometry.visual_tokens} visual tokens" if geometry.visual_tokens else ""
    hooks = tuple(record["strategies"]) if visual else ("kv_eviction",)
    named = [f"{hook}={record['strategies'][hook]}" for hook in hooks if hook in record["strategies"]]
    lines = [
        f"{geometry.name}: {geometry.layers} layers, {geometry.heads} heads{_key_value(geometry)}{visual}",
        *(f"  {line}" for line in named),
        *([f"  profile {record['profile']}"] if record["profile"] else []),
    ]
    blocks = [
        *(plan_pruning.describe(record) if "budget" in record else []),
        *(plan_eviction.describe(record["kv_eviction"]) if "kv_eviction" in record else []),
    ]
    return "\n".join([*lines, *blocks])


def _key_value(geometry: Geometry) -> str:
    return "" if geometry.kv_heads == geometry.heads else f", {geometry.kv_heads} KV heads"
