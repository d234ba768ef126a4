"""Prefill with and without pruning, on a random Llama at LLaVA-1.5's token counts.

    python benchmarks/prefill.py [--layers 24] [--hidden 512] [--batch 2] [--rounds 15] [--device cuda]

Every ratio comes from one run: in each round vanilla and all variants take turns, and the ratio is taken round by
round, so a machine whose speed drifts does not matter. The vision tower is left out: visual features are given as
embeddings, because its cost is the same for every method and would only hide differences.

The last column is what the stock model would reach if dropping were free: its own time for a prompt of the shorter
length, in the layers behind the stage. Short prompts use a processor less well than long ones, which is no plugin's
doing, and counted FLOPs do not know it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import headwise
from headwise.attachment import adapter_for
from headwise.budget import prefill_flops
from headwise.recipe import Recipe

SYSTEM, VISUAL, QUESTION, IMAGE = 35, 576, 64, 4


def build(layers: int, hidden: int, device: str, dtype: torch.dtype) -> Any:
    """A random LLaVA whose language model has LLaVA-1.5's token counts and a fraction of its width."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=256, hidden_size=hidden, intermediate_size=int(hidden * 2.6875), num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, max_position_embeddings=4096,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=14
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=VISUAL)
    return LlavaForConditionalGeneration(config).eval().to(device=device, dtype=dtype)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    model = build(options.layers, options.hidden, options.device, getattr(torch, options.dtype))
    geometry = adapter_for(model).geometry
    variants = {"keep everything": Recipe.of("fastv:layer=2", keep=VISUAL)}
    for tokens in (192, 128, 64):
        variants[f"tokens={tokens}"] = Recipe.of("fastv:layer=2", tokens=tokens)
        heads = Recipe.of("fastv:layer=2", "sparsity", "fixed:share=0.5", tokens=tokens)
        variants[f"tokens={tokens}, sparsity, half the heads"] = heads
    counts = {name: headwise.Pipeline(recipe).plan(geometry).processed for name, recipe in variants.items()}
    run = _prefill(model, options.batch, options.device)
    short = {
        kept: _text_only(model, options.batch, kept, options.device)
        for kept in sorted({row[-1] for row in counts.values()})
    }
    works: dict[Any, Callable[[], float]] = {"vanilla": lambda: _timed(run, nullcontext(), options.device)}
    for name, recipe in variants.items():
        works[name] = lambda recipe=recipe: _timed(run, headwise.attach(model, recipe), options.device)
    for kept, work in short.items():
        works[kept] = lambda work=work: _timed(work, nullcontext(), options.device)
    rounds = [{name: work() for name, work in works.items()} for _ in range(options.rounds + 1)][1:]  # one warms up
    print(_header(options))
    print(
        "| variant | processed average | prefill ms | speed-up | FLOPs-implied | reached"
        " | stock model at these lengths |"
    )
    print("|---|---|---|---|---|---|---|")
    print(_line("vanilla", (VISUAL,) * geometry.layers, rounds, geometry))
    for name, row in counts.items():
        print(_line(name, row, rounds, geometry))


def _line(name: str, counts: tuple[int, ...], rounds: list[dict[Any, float]], geometry: headwise.Geometry) -> str:
    """One row of the table; every figure is the median over rounds, every ratio is taken within a round."""
    text = SYSTEM + QUESTION
    everything = prefill_flops(geometry, [VISUAL] * geometry.layers, text)
    implied = everything / prefill_flops(geometry, counts, text)
    speed_up = statistics.median(times["vanilla"] / times[name] for times in rounds)
    full = counts.count(VISUAL) / len(counts)  # share of layers that see everything
    ceiling = 1.0
    if full < 1:
        ceiling = statistics.median(1 / (full + (1 - full) * times[counts[-1]] / times["vanilla"]) for times in rounds)
    milliseconds = 1000 * statistics.median(times[name] for times in rounds)
    return (
        f"| {name} | {sum(counts) / len(counts):.1f} | {milliseconds:.0f} | {speed_up:.3f} | {implied:.3f} |"
        f" {speed_up / implied:.0%} | {ceiling:.3f} |"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def _prefill(model: Any, batch: int, device: str) -> Callable[[], Any]:
    """A prefill of prompts whose image features are computed beforehand."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(5, 256, (batch, SYSTEM + QUESTION), generator=generator)
    ids = torch.cat([words[:, :SYSTEM], torch.full((batch, VISUAL), IMAGE), words[:, SYSTEM:]], dim=1).to(device)
    pixels = torch.randn(batch, 3, 336, 336, generator=generator).to(device=device, dtype=model.dtype)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixels, return_dict=True)

    def run() -> Any:
        return model(input_ids=ids, mm_encoder_outputs={"image": features}, use_cache=True, logits_to_keep=1)

    return run


def _text_only(model: Any, batch: int, kept: int, device: str) -> Callable[[], Any]:
    """A prefill of as many tokens as are left behind a stage that keeps ``kept``, without an image."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 256, (batch, SYSTEM + QUESTION + kept), generator=generator).to(device)
    return lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1)


@torch.no_grad()
def _timed(run: Callable[[], Any], context: Any, device: str) -> float:
    with context:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def _header(options: argparse.Namespace) -> str:
    return (
        f"{options.layers} layers, hidden {options.hidden}, {SYSTEM} + {VISUAL} + {QUESTION} tokens,"
        f" batch {options.batch}, {options.dtype}, {options.device}, {options.threads} threads,"
        f" {options.rounds} rounds;"
        f" torch {torch.__version__}, transformers {transformers.__version__}, {platform.processor() or 'CPU'}\n"
    )


if __name__ == "__main__":
    main()
