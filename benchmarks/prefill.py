"""Prefill with and without pruning, on a random Llama at LLaVA-1.5's token counts.

    python benchmarks/prefill.py [--layers 24] [--hidden 768] [--rounds 9] [--device cpu|cuda] [--dtype float32]

Every ratio comes from one run: in each round vanilla and all variants take turns, and the ratio is taken round by
round, so a machine whose speed drifts does not matter. The vision tower is left out: visual features are given as
embeddings, because its cost is the same for every method and would only hide differences.
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
    dtype = getattr(torch, options.dtype)
    model = build(options.layers, options.hidden, options.device, dtype)
    prefill = _prefill(model, options.device)
    geometry = adapter_for(model).geometry
    variants = {"keep everything": Recipe.of("fastv:layer=2", keep=VISUAL)}
    for tokens in (192, 128, 64):
        if tokens * options.layers > 2 * VISUAL + options.layers:
            variants[f"tokens={tokens}"] = Recipe.of("fastv:layer=2", tokens=tokens)
            variants[f"tokens={tokens}, sparsity, half the heads"] = Recipe.of(
                "fastv:layer=2", "sparsity", "fixed:share=0.5", tokens=tokens
            )
    seconds: dict[str, list[float]] = {name: [] for name in ("vanilla", *variants)}
    for _ in range(options.rounds + 1):  # the first round warms up
        seconds["vanilla"].append(_timed(prefill, nullcontext(), options.device))
        for name, recipe in variants.items():
            seconds[name].append(_timed(prefill, headwise.attach(model, recipe), options.device))
    text = SYSTEM + QUESTION
    full = prefill_flops(geometry, [VISUAL] * geometry.layers, text)
    print(_header(options))
    print(
        "| variant | processed average | prefill ms (median) | speed-up (median of rounds) | FLOPs-implied | reached |"
    )
    print("|---|---|---|---|---|---|")
    for name, times in seconds.items():
        counts = [VISUAL] * geometry.layers
        if name in variants:
            counts = list(headwise.Pipeline(variants[name]).plan(geometry).processed)
        implied = full / prefill_flops(geometry, counts, text)
        ratio = statistics.median(v / t for v, t in zip(seconds["vanilla"][1:], times[1:], strict=True))
        print(
            f"| {name} | {sum(counts) / len(counts):.1f} | {1000 * statistics.median(times[1:]):.1f} |"
            f" {ratio:.3f} | {implied:.3f} | {ratio / implied:.0%} |"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def _prefill(model: Any, device: str) -> Callable[[], Any]:
    """A prefill of one prompt whose image features are computed beforehand."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(5, 256, (1, SYSTEM + QUESTION), generator=generator)
    ids = torch.cat([words[:, :SYSTEM], torch.full((1, VISUAL), IMAGE), words[:, SYSTEM:]], dim=1).to(device)
    pixels = torch.randn(1, 3, 336, 336, generator=generator).to(device=device, dtype=model.dtype)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixels, return_dict=True)

    def run() -> Any:
        return model(input_ids=ids, mm_encoder_outputs={"image": features}, use_cache=True, logits_to_keep=1)

    return run


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
        f" {options.dtype}, {options.device}, {options.threads} threads, {options.rounds} rounds;"
        f" torch {torch.__version__}, transformers {transformers.__version__}, {platform.processor() or 'CPU'}\n"
    )


if __name__ == "__main__":
    main()
