"""KV eviction: reading in one pass, decoding, bytes, and a stream of a million tokens.

    python benchmarks/kv.py ppl|decode|bytes|stream [--device cuda] [--dtype bfloat16]

ppl     perplexity of a streaming plan over 4096 tokens, one pass against token by token
decode  time per token at a context of 8192 with 512 entries, against transformers' DynamicCache holding 512 and 8192
bytes   what adakv, snapkv and streaming hold at half budget; beside kvpress: --kvpress FILE, the output of
        benchmarks/kvpress_bytes.py, which runs in an environment of its own
stream  a million tokens: time per token and memory, tenth by tenth

Every ratio comes from one run. Where rounds are repeated, all variants take turns in each, and the ratio is the median
of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM

import headwise
from headwise.attachment import adapter_for
from headwise.recipe import Recipe
from headwise_adapters.cache.ragged_cache import kv_bytes
from headwise_adapters.eviction.streaming import read_text
from headwise_lab.models import shipped
from headwise_lab.texts.tokens import tokens_of


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    print(_header(options))
    {"ppl": ppl, "decode": decode, "bytes": held_bytes, "stream": stream}[options.what](options)


def ppl(options: argparse.Namespace) -> None:
    """One pass over 4096 tokens against as many forwards of one token, the same plan and model."""
    model = _demo(options)
    ids = tokens_of(AutoTokenizer.from_pretrained(shipped("demo-pythia")), "kjv", 4096).ids
    print("| strategy | token by token s | one pass s | ratio | difference of mean NLL | largest of any token |")
    print("|---|---|---|---|---|---|")
    for text in ("streaming:sinks=4,window=60", "streaming:sinks=4,window=60,positions=original"):
        recipe = Recipe.of(text)
        read_text(model, recipe, ids[:512], chunk=512)  # warms up
        slow_time, slow = _timed(lambda recipe=recipe: read_text(model, recipe, ids, chunk=1))
        fast = [_timed(lambda recipe=recipe: read_text(model, recipe, ids, chunk=4096)) for _ in range(5)]
        fast_time = statistics.median(seconds for seconds, _ in fast)
        gap = slow.nll - fast[0][1].nll
        figures = f"{slow_time / fast_time:.0f} | {abs(float(gap.mean())):.1e} | {float(gap.abs().max()):.1e}"
        print(f"| {text} | {slow_time:.2f} | {fast_time:.3f} | {figures} |", flush=True)


def decode(options: argparse.Namespace) -> None:
    """Milliseconds per decoded token after a context of 8192, batch 1, with 512 entries per head."""
    model = _llama(options)
    caches: dict[str, Any] = {"DynamicCache holding 512": (None, 512), "DynamicCache holding 8192": (None, 8192)}
    for text in (
        "streaming:sinks=4,window=508", "streaming:sinks=4,window=508,positions=original",
        "snapkv:budget=512,every=64", "h2o:budget=512,every=64", "adakv:of=[snapkv:budget=512,every=64]",
    ):  # fmt: skip
        caches[text] = (Recipe.of(text), 8192)
    ids = torch.randint(0, 256, (1, 8192), generator=torch.Generator().manual_seed(0)).to(options.device)
    steps = {name: _decoder(model, recipe, ids[:, :length]) for name, (recipe, length) in caches.items()}
    peer = "DynamicCache holding 512"
    rounds = []
    for _ in range(options.rounds + 1):
        rounds.append({name: step() for name, step in steps.items()})
        for name in (peer, "DynamicCache holding 8192"):  # back to the length it is named for
            steps[name].cache.crop(-_TOKENS)
    rounds = rounds[1:]
    print("| cache | ms per token | time relative to DynamicCache holding 512 | KV bytes held | planned |")
    print("|---|---|---|---|---|")
    for name, (recipe, _) in caches.items():
        milliseconds = 1000 * statistics.median(times[name] for times in rounds) / _TOKENS
        ratio = statistics.median(times[name] / times[peer] for times in rounds)
        seen = 8192 + _TOKENS * len(rounds) + _TOKENS
        itemsize = torch.finfo(model.dtype).bits // 8
        plan = headwise.Pipeline(recipe).eviction(adapter_for(model).geometry) if recipe else None
        planned = f"{plan.kv_bytes(seen, itemsize=itemsize):,}" if plan else ""
        print(
            f"| {name} | {milliseconds:.2f} | {ratio:.3f} | {kv_bytes(steps[name].cache):,} | {planned} |", flush=True
        )


_TOKENS = 64  # decoded in each round


class _decoder:  # noqa: N801 (it is called like a function)
    """Decodes some tokens and tells how long it took; keeps the cache between calls."""

    def __init__(self, model: Any, recipe: Recipe | None, ids: torch.Tensor) -> None:
        self.model, self.ids = model, ids
        self.cache = headwise.cache(model, recipe) if recipe else DynamicCache(config=model.config)
        with torch.inference_mode():
            for part in ids.split(1024, dim=1):
                model(input_ids=part, past_key_values=self.cache, logits_to_keep=1)

    def __call__(self) -> float:
        with torch.inference_mode():
            _synchronise(self.ids.device)
            start = time.perf_counter()
            for step in range(_TOKENS):
                self.model(input_ids=self.ids[:, step : step + 1], past_key_values=self.cache)
            _synchronise(self.ids.device)
            return time.perf_counter() - start


def held_bytes(options: argparse.Namespace) -> None:
    """Bytes held after a prompt of 2048 tokens, by storage."""
    model = _llama(options)
    ids = torch.randint(0, 256, (1, 2048), generator=torch.Generator().manual_seed(0)).to(options.device)
    full = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=full, logits_to_keep=1)
        whole = kv_bytes(full)
        print(
            "| cache | KV bytes held | share of the full cache | fewest and most entries of a head |\n|---|---|---|---|"
        )
        print(f"| DynamicCache | {whole:,} | 1.000 | 2048, 2048 |")
        for text in ("adakv:of=[snapkv:ratio=0.5]", "snapkv:ratio=0.5", "streaming:sinks=4,window=1020"):
            cache = headwise.cache(model, Recipe.of(text))
            model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
            entries = cache.entries()
            share = cache.kv_bytes() / whole
            print(f"| {text} | {cache.kv_bytes():,} | {share:.3f} | {entries.min()}, {entries.max()} |", flush=True)
    if options.kvpress:
        print("\nkvpress, in an environment of its own:\n")
        print("```json\n" + json.dumps(json.loads(options.kvpress.read_text()), indent=1) + "\n```")


def stream(options: argparse.Namespace) -> None:
    """A million tokens through a streaming plan."""
    model, recipe = _demo(options), Recipe.of("streaming:sinks=4,window=252")
    ids = torch.randint(0, model.config.vocab_size, (options.tokens,), generator=torch.Generator().manual_seed(0))
    marks: list[tuple[int, float, float]] = []

    def note(read: int) -> None:
        if read * 10 // options.tokens > len(marks):
            marks.append((read, time.perf_counter(), _memory(options.device)))

    start = time.perf_counter()
    reading = read_text(model, recipe, ids, chunk=4096, progress=note)
    print("| tokens read | microseconds per token in this tenth | memory MB |\n|---|---|---|")
    before, since = 0, start
    for read, now, memory in marks:
        print(f"| {read:,} | {1e6 * (now - since) / (read - before):.1f} | {memory:.0f} |")
        before, since = read, now
    print(f"\nKV bytes held at the end {reading.kv_bytes:,}, the most after any chunk {reading.peak_bytes:,}.")


def _demo(options: argparse.Namespace) -> Any:
    model = AutoModelForCausalLM.from_pretrained(shipped("demo-pythia"), dtype=getattr(torch, options.dtype))
    return model.eval().to(options.device)


def _llama(options: argparse.Namespace) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=options.kv_heads, max_position_embeddings=16384,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().to(device=options.device, dtype=getattr(torch, options.dtype))


def _timed(work: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: str) -> float:
    """Peak megabytes: of the CUDA allocator, or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _header(options: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else _cpu()
    return (
        f"{device}, {options.threads} threads, {options.dtype}, torch {torch.__version__},"
        f" transformers {transformers.__version__}\n"
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("ppl", "decode", "bytes", "stream"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of the stream")
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--kvpress", type=Path, help="JSON that benchmarks/kvpress_bytes.py printed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
