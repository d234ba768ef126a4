"""Measure a demo model on the shipped texts: ``python -m headwise_lab.demo.pythia.evaluate [--model DIR]``.

A text is cut into windows of ``--context`` tokens, each read after the beginning-of-text token. Bits per byte and the
first perplexity count every token. All other figures count the second half of each window, where every query has at
least half a window before it. The stock forward with eager attention gets a mask that hides keys: no cache is used, and
no code of headwise's eviction.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise_lab.demo.pythia.tokenizer import BOS_ID
from headwise_lab.models import shipped
from headwise_lab.texts import TEXTS, shipped_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


BATCH = 4
SINKS = 4
KEYS = (128, 64, 32, 16, 8)  # visible to a query, itself included
LOCAL = 16  # the nearest keys, the query's own included
EMERGED = 0.3  # mean mass on the first position that makes a head a sink head (Gu et al. 2024)


def load(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model (float32, eager attention) and its tokenizer; nothing is fetched."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def windows_of(tokens: Tensor, length: int) -> list[Tensor]:
    """Batches (batch, length) of consecutive windows; the last one holds what is left over."""
    whole = len(tokens) // length * length
    batches = list(torch.split(tokens[:whole].view(-1, length), BATCH)) if whole else []
    return [*batches, tokens[None, whole:]] if whole < len(tokens) else batches


def visible(length: int, sinks: int, recent: int) -> Tensor:
    """Which keys a query sees, (queries, keys): the first ``sinks`` and the last ``recent``, itself included."""
    query, key = torch.arange(length)[:, None], torch.arange(length)
    return (key <= query) & ((key < sinks) | (query - key < recent))


@torch.no_grad()
def surprise(model: PreTrainedModel, windows: Tensor, seen: Tensor) -> Tensor:
    """Negative log-likelihood in nats of every token of windows (batch, length); ``seen`` (length, length): keys."""
    return _read(model, windows, seen)[0]


def _read(
    model: PreTrainedModel, windows: Tensor, seen: Tensor, *, attention: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    inputs = windows.roll(1, dims=1)
    inputs[:, 0] = BOS_ID
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    output = model(
        input_ids=inputs,
        attention_mask=mask.expand(len(windows), -1, -1, -1),
        use_cache=False,
        output_attentions=attention,
    )
    nats = F.cross_entropy(output.logits.flatten(0, 1), windows.flatten(), reduction="none")
    return nats.view(windows.shape), output.attentions or ()


@torch.no_grad()
def masses(model: PreTrainedModel, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean attention on the first position and on the last LOCAL ones, each (layers, heads)."""
    first, local, queries = torch.zeros(()), torch.zeros(()), 0
    for windows in batches:
        length = windows.size(1)
        seen = visible(length, 0, length)
        near = visible(length, 0, LOCAL)
        attention = torch.stack(_read(model, windows, seen, attention=True)[1])  # (layers, batch, heads, queries, keys)
        late = attention[..., length // 2 :, :]
        first = first + late[..., 0].sum(dim=(1, 3))
        local = local + (late * near[length // 2 :]).sum(dim=(1, 3, 4))
        queries += windows.size(0) * (length - length // 2)
    return first / queries, local / queries


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, *, context: int, keys: Sequence[int] = KEYS
) -> dict[str, Any]:
    """All figures of one text. Perplexities and paired gaps have standard errors over tokens."""
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    batches = windows_of(tokens, context)
    whole = [windows for windows in batches if windows.size(1) == context]
    everything = torch.cat([surprise(model, w, visible(w.size(1), 0, context)).flatten() for w in batches])
    first, local = masses(model, whole)
    full = _late(model, whole, visible(context, 0, context))
    return {
        "tokens": len(tokens),
        "bytes": len(text.encode()),
        "perplexity": _perplexity(everything),
        "bits_per_byte": everything.double().sum().item() / math.log(2) / len(text.encode()),
        "tokens_late": len(full),
        "full": _perplexity(full),
        "keys": {str(count): _limited(model, whole, full, count) for count in keys if count < context // 2},
        "first_position": first.tolist(),
        "last_16": local.tolist(),
    }


def _late(model: PreTrainedModel, batches: Sequence[Tensor], seen: Tensor) -> Tensor:
    """Negative log-likelihoods of the second halves of windows, as one row."""
    return torch.cat([surprise(model, windows, seen)[:, len(seen) // 2 :].flatten() for windows in batches])


def _limited(model: PreTrainedModel, batches: Sequence[Tensor], full: Tensor, count: int) -> dict[str, Any]:
    """Perplexity with ``count`` visible keys: the last ones, or the first SINKS and the last ``count - SINKS``."""
    length = batches[0].size(1)
    window = _late(model, batches, visible(length, 0, count))
    sinks = _late(model, batches, visible(length, SINKS, count - SINKS))
    return {
        "window": _perplexity(window),
        "sinks": _perplexity(sinks),
        "window - full": _mean(window - full),
        "window - sinks": _mean(window - sinks),
    }


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error, in nats per token."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def _perplexity(nats: Tensor) -> tuple[float, float]:
    """Perplexity and its standard error."""
    mean, error = _mean(nats)
    return math.exp(mean), math.exp(mean) * error


def lines(name: str, report: dict[str, Any]) -> Iterator[str]:
    """The report on one text as text."""
    yield (
        f"{name}: {report['tokens']} tokens, {report['bytes']} bytes, perplexity {_plus(report['perplexity'])}, "
        f"{report['bits_per_byte']:.3f} bits per byte"
    )
    yield f"  second halves: {report['tokens_late']} tokens, full {_plus(report['full'])}"
    for count, row in report["keys"].items():
        yield f"  {count:>3s} keys: window {_plus(row['window'])}, {SINKS} sinks + window {_plus(row['sinks'])}"
        for gap in ("window - full", "window - sinks"):
            yield f"           {gap} {_plus(row[gap], '+.4f')} nats, paired"
    yield "  layer: mass on position 0, mean and largest of its heads | mass on the last 16 tokens, by head"
    for layer, (first, local) in enumerate(zip(report["first_position"], report["last_16"], strict=True)):
        yield f"  {layer}: {sum(first) / len(first):.3f}, {max(first):.3f} | {' '.join(f'{one:.2f}' for one in local)}"
    largest = max(max(row) for row in report["first_position"])
    yield f"  attention sinks {'emerged' if largest > EMERGED else 'did not emerge'}: largest mass {largest:.3f}"


def _plus(value: tuple[float, float], style: str = ".2f") -> str:
    mean, error = value
    return f"{mean:{style}} ±{error:{style.lstrip('+')}}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Perplexity, attention sinks and windows of a demo model.")
    parser.add_argument("--model", type=Path, default=None, help="folder; default: the shipped demo-pythia")
    parser.add_argument("--context", type=int, default=512, help="tokens in a window")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load(options.model or shipped("demo-pythia"))
    report = {}
    for name in TEXTS:
        report[name] = evaluate(model, tokenizer, shipped_text(name).read_text("utf-8"), context=options.context)
        print("\n".join(lines(name, report[name])), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
