"""Every visual method at LLaVA-1.5's token counts: selection alone, and the whole prefill, against vanilla.

    python benchmarks/methods.py [--tokens 192 --tokens 64] [--hidden 1024] [--layers 32] [--rounds 5] [--device cuda]

A random LLaVA with 35 system, 576 visual and 64 question tokens. Its decoder layers have LLaVA-1.5's proportions (heads
of 128, feed-forward 2.6875 times as wide; --hidden 4096 is the 7B) and share one set of weights, so that 32 layers of
any width fit into memory while each computes in full. The vision tower has CLIP-L's width and patches, and two layers:
some methods look at it, so every prefill begins with pixels.

Selection is everything a method adds in front of its layers: evidence, choice, merging and the gather. Every share and
speed-up is taken within a round, in which vanilla and all methods take turns; figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import transformers
from prefill import IMAGE, QUESTION, SYSTEM, VISUAL
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import headwise
from headwise.attachment import adapter_for
from headwise.errors import BudgetError
from headwise_adapters.pruning.dropping import Dropper

RECIPES = (
    "fastv", "finepruner", "sparsevlm", "sparsevlm-plus", "pdrop", "pdrop-early", "feather", "dart", "random-layer-2",
    "vispruner", "visionzip", "cdpruner", "divprune", "tome", "pooling", "random", "uniform",
)  # fmt: skip
CLUSTERING = {"sparsevlm", "vispruner", "cdpruner", "divprune", "tome", "visionzip"}
"""Methods that compare tokens with each other: 15 % of a prefill is their limit, 3 % that of the others."""


def build(layers: int, hidden: int, device: str, dtype: torch.dtype) -> Any:
    """A random LLaVA with LLaVA-1.5's token counts whose decoder layers share their weights."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=256, hidden_size=hidden, intermediate_size=int(hidden * 2.6875), num_hidden_layers=1,
        num_attention_heads=hidden // 128, num_key_value_heads=hidden // 128, max_position_embeddings=4096,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16, image_size=336,
        patch_size=14,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=VISUAL)
    model = LlavaForConditionalGeneration(config).eval().to(device=device, dtype=dtype)
    return _repeated(model, layers)


def _repeated(model: Any, layers: int) -> Any:
    """The model with its only decoder layer as often as asked, each with its own place in the cache."""
    language, first = model.model.language_model, model.model.language_model.layers[0]
    for number in range(1, layers):
        language.layers.append(_twin(first, number))
    language.config.num_hidden_layers = layers
    language.config.layer_types = ["full_attention"] * layers
    return model


def _twin(layer: Any, number: int) -> Any:
    """A layer of its own that computes with the same weights."""
    shared = {id(weight): weight for weight in layer.parameters()}  # deepcopy finds these already copied
    twin = copy.deepcopy(layer, shared)
    twin.self_attn.layer_idx = number
    return twin


@contextmanager
def selection_timed(device: str) -> Iterator[list[float]]:
    """Seconds spent in front of the layers of each stage, while inside."""
    original, found = Dropper._drop, []

    def timed(self: Any, *args: Any) -> Any:
        start = _now(device)
        try:
            return original(self, *args)
        finally:
            found.append(_now(device) - start)

    Dropper._drop = timed  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Dropper._drop = original  # type: ignore[method-assign]


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def measure(model: Any, inputs: dict[str, Any], recipe: Any, device: str) -> tuple[float, float]:
    """Seconds of one prefill, and of its selection."""
    context = nullcontext() if recipe is None else headwise.attach(model, recipe)
    with selection_timed(device) as stages, context:
        start = _now(device)
        model(**inputs, use_cache=True, logits_to_keep=1)
        return _now(device) - start, sum(stages)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    model = build(options.layers, options.hidden, options.device, getattr(torch, options.dtype))
    geometry = adapter_for(model).geometry
    inputs = _inputs(model, options.batch, options.device)
    print(_header(options))
    for tokens in options.tokens or (192, 64):
        recipes, averages = _recipes(options.recipe or RECIPES, tokens, geometry)
        rounds = []
        for _ in range(options.rounds + 1):  # the first warms up
            times = {"vanilla": measure(model, inputs, None, options.device)}
            times |= {name: measure(model, inputs, recipe, options.device) for name, recipe in recipes.items()}
            rounds.append(times)
        print(_table(rounds[1:], averages, tokens))


def _recipes(names: Sequence[str], tokens: float, geometry: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Recipes at one budget, and the averages they process; those that cannot meet it say so."""
    recipes, averages = {}, {}
    for name in names:
        recipe = headwise.Recipe.of(*_extra(name), name=name, tokens=tokens)
        try:
            averages[name] = headwise.Pipeline(recipe).plan(geometry).average
            recipes[name] = recipe
        except BudgetError as error:
            print(f"\n{name}: {error}")
    return recipes, averages


def _extra(name: str) -> tuple[str, ...]:
    """CDPruner's CLIP text tower costs the same as without pruning a prompt's text; a random model has none."""
    return ("cdpruner:relevance=embeddings",) if name == "cdpruner" else ()


def _header(options: argparse.Namespace) -> str:
    return (
        f"{options.layers} layers of width {options.hidden}, batch {options.batch}, {SYSTEM}+{VISUAL}+{QUESTION}"
        f" tokens, {options.dtype}, {options.device}, {options.threads} threads, {_hardware(options)},"
        f" torch {torch.__version__}, transformers {transformers.__version__}, {options.rounds} rounds"
    )


def _table(rounds: list[dict[str, Any]], averages: dict[str, float], tokens: float) -> str:
    vanilla = statistics.median(times["vanilla"][0] for times in rounds)
    lines = [
        f"\ntokens={tokens:g}, vanilla prefill {1000 * vanilla:.0f} ms\n",
        "| recipe | processed average | selection ms | of vanilla | limit | prefill ms | speed-up |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, average in averages.items():
        selection = statistics.median(times[name][1] for times in rounds)
        share = statistics.median(times[name][1] / times["vanilla"][0] for times in rounds)
        prefill = statistics.median(times[name][0] for times in rounds)
        speed_up = statistics.median(times["vanilla"][0] / times[name][0] for times in rounds)
        limit = 15 if name in CLUSTERING else 3
        lines.append(
            f"| {name} | {average:.1f} | {1000 * selection:.1f} | {100 * share:.2f} % | {limit} % |"
            f" {1000 * prefill:.0f} | {speed_up:.2f} |"
        )
    return "\n".join(lines)


def _hardware(options: argparse.Namespace) -> str:
    if options.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _inputs(model: Any, batch: int, device: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(5, 256, (batch, SYSTEM + QUESTION), generator=generator)
    ids = torch.cat([words[:, :SYSTEM], torch.full((batch, VISUAL), IMAGE), words[:, SYSTEM:]], dim=1).to(device)
    pixels = torch.randn(batch, 3, 336, 336, generator=generator).to(device=device, dtype=model.dtype)
    return {"input_ids": ids, "pixel_values": pixels}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=float, action="append", help="repeat; default: 192 and 64")
    parser.add_argument("--recipe", action="append", help="repeat; default: all")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
