"""Measure a demo model: ``python -m headwise_lab.demo.llava.evaluate --model DIR --per-kind 500``.

Accuracy per kind is measured on held-out scenes with the stock forward and the shipped processor. The pruning anchors
are measured in a plain loop over the same layers: after layer K, each anchor scores the image tokens, such as FastV by
the last token's attention, and the best R of them go on with their original positions.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from headwise_lab.demo.llava.tokenizer import IMAGE_ID, answer_id, prompt
from headwise_lab.scenes import KINDS, TOKENS, Example, held_out

if TYPE_CHECKING:
    from transformers import BatchFeature, LlamaModel, PreTrainedModel, ProcessorMixin
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer


HELD_OUT_SEED = 777
NOISE_SEED = 5
BATCH = 50
ANCHORS = ("fastv", "sharpest", "flattest", "oracle", "random", "anti-oracle")
GAPS = (
    ("full", "fastv"),
    ("fastv", "random"),
    ("random", "anti-oracle"),
    ("sharpest", "flattest"),
    ("sharpest", "fastv"),
    ("oracle", "fastv"),
)


def load(folder: str | Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model (float32, eager attention) and its processor; nothing is fetched."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval(), AutoProcessor.from_pretrained(folder, local_files_only=True)


def inputs_of(processor: ProcessorMixin, examples: Sequence[Example]) -> BatchFeature:
    """Token ids, attention mask and pixel values of a batch of examples."""
    return processor(
        text=[prompt(example.question.text) for example in examples],
        images=[Image.fromarray(example.pixels) for example in examples],
        return_tensors="pt",
        padding=True,
    )


@torch.no_grad()
def is_right(model: PreTrainedModel, processor: ProcessorMixin, examples: Sequence[Example]) -> Tensor:
    """Whether the most likely next token is the answer, (examples,) float."""
    logits = model(**inputs_of(processor, examples)).logits[:, -1]
    return _right(logits, examples)


def _right(logits: Tensor, examples: Sequence[Example]) -> Tensor:
    truth = torch.tensor([answer_id(example.question.answer) for example in examples])
    return (logits.argmax(dim=-1) == truth).float()


@torch.no_grad()
def anchors_right(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    noise: torch.Generator,
    *,
    layer: int,
    keep: int,
) -> dict[str, Tensor]:
    """Anchor -> whether answers are right (examples,) if it chooses ``keep`` image tokens after ``layer`` layers."""
    inputs = inputs_of(processor, examples)
    ids = inputs["input_ids"]
    language = model.model.language_model
    hidden = _embed(model, ids, inputs["pixel_values"])
    positions = torch.arange(ids.size(1)).expand(len(ids), -1)
    hidden, attention = _run(language, hidden, positions, language.layers[:layer])
    start = int((ids[0] == IMAGE_ID).nonzero()[0])
    image = attention[:, :, -1, start : start + TOKENS]  # (batch, heads, image tokens)
    right = {}
    for name, scores in _scores(image, _evidence(examples), noise).items():
        kept = scores.topk(keep, dim=-1).indices.sort(dim=-1).values + start
        rows = torch.cat([positions[:, :start], kept, positions[:, start + TOKENS :]], dim=1)
        short = hidden.gather(1, rows[..., None].expand(-1, -1, hidden.size(-1)))
        final, _ = _run(language, short, rows, language.layers[layer:])
        right[name] = _right(model.lm_head(language.norm(final[:, -1])), examples)
    return right


def _embed(model: PreTrainedModel, ids: Tensor, pixels: Tensor) -> Tensor:
    embedded: Tensor = model.get_input_embeddings()(ids)
    features = model.model.get_image_features(pixel_values=pixels)
    features = getattr(features, "pooler_output", features)
    flat = torch.cat(list(features)).reshape(-1, embedded.size(-1))
    return embedded.masked_scatter((ids == IMAGE_ID)[..., None], flat)


def _run(
    language: LlamaModel, hidden: Tensor, positions: Tensor, layers: Iterable[LlamaDecoderLayer]
) -> tuple[Tensor, Tensor]:
    """Hidden states after the layers, and the last layer's attention (batch, heads, queries, keys)."""
    length = hidden.size(1)
    mask = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)[None, None]
    rotation = language.rotary_emb(hidden, position_ids=positions)
    attention = hidden.new_empty(0)
    for layer in layers:
        mixed, attention = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden), position_embeddings=rotation, attention_mask=mask
        )
        hidden = hidden + mixed
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return hidden, attention


def _evidence(examples: Sequence[Example]) -> Tensor:
    """1 on the cells that prove the answer, (examples, image tokens)."""
    evidence = torch.zeros(len(examples), TOKENS)
    for row, example in zip(evidence, examples, strict=True):
        row[list(example.question.cells)] = 1
    return evidence


def _scores(attention: Tensor, evidence: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
    """Anchor -> scores (batch, image tokens); tokens with high scores stay. Attention: (batch, heads, image tokens)."""
    sharpness = (attention / attention.sum(dim=-1, keepdim=True)).norm(dim=-1)
    by_sharpness = sharpness.argsort(dim=-1, descending=True)
    half = attention.size(1) // 2
    chance = torch.rand(evidence.shape, generator=noise)

    def of_heads(heads: Tensor) -> Tensor:
        return attention.gather(1, heads[..., None].expand(-1, -1, TOKENS)).sum(dim=1)

    scores = {
        "fastv": attention.sum(dim=1),
        "sharpest": of_heads(by_sharpness[:, :half]),
        "flattest": of_heads(by_sharpness[:, half:]),
        "oracle": chance + 2 * evidence,
        "random": chance,
        "anti-oracle": chance - 2 * evidence,
    }
    return {name: scores[name] for name in ANCHORS}


def evaluate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    *,
    per_kind: int,
    keeps: Sequence[int] = (32, 16, 8),
    layer: int = 2,
) -> dict[str, Any]:
    """Accuracy per kind with standard errors, and for each keep the anchors and their paired gaps."""
    examples = list(held_out(HELD_OUT_SEED, per_kind))
    kinds = [example.question.kind for example in examples]
    full = torch.cat([is_right(model, processor, batch) for batch in _batches(examples)])
    report: dict[str, Any] = {"per_kind": per_kind, "layer": layer, "full": _by_kind(full, kinds), "keep": {}}
    for keep in keeps:
        noise = torch.Generator().manual_seed(NOISE_SEED)
        parts = [anchors_right(model, processor, batch, noise, layer=layer, keep=keep) for batch in _batches(examples)]
        right = {"full": full} | {name: torch.cat([part[name] for part in parts]) for name in ANCHORS}
        report["keep"][str(keep)] = {
            "accuracy": {name: _by_kind(right[name], kinds) for name in ANCHORS},
            "gaps": {f"{a} - {b}": _mean(right[a] - right[b]) for a, b in GAPS},
        }
    return report


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), BATCH):
        yield examples[start : start + BATCH]


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def _by_kind(right: Tensor, kinds: Sequence[str]) -> dict[str, tuple[float, float]]:
    table = {"mean": _mean(right)}
    for kind in KINDS:
        table[kind] = _mean(right[torch.tensor([k == kind for k in kinds])])
    return table


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as text."""

    def row(name: str, table: dict[str, tuple[float, float]]) -> str:
        cells = (f"{kind} {mean:.3f} ±{error:.3f}" for kind, (mean, error) in table.items())
        return f"{name:12s} " + " | ".join(cells)

    yield row("full", report["full"])
    for keep, part in report["keep"].items():
        yield f"keep {keep} of {TOKENS} after {report['layer']} layers"
        for name, table in part["accuracy"].items():
            yield row(name, table)
        for name, (mean, error) in part["gaps"].items():
            yield f"  {name}: {mean:+.3f} ±{error:.3f} (paired)"


def main() -> None:
    """The command line."""
    from headwise_lab.models import shipped

    options = _options()
    torch.set_num_threads(options.threads)
    model, processor = load(options.model or shipped("demo-llava"))
    report = evaluate(model, processor, per_kind=options.per_kind, keeps=options.keep, layer=options.layer)
    print("\n".join(lines(report)))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy and pruning anchors of a demo model.")
    parser.add_argument("--model", type=Path, default=None, help="folder; default: the shipped demo-llava")
    parser.add_argument("--per-kind", type=int, default=500)
    parser.add_argument("--keep", type=int, nargs="*", default=[32, 16, 8])
    parser.add_argument("--layer", type=int, default=2, help="K: layers before pruning")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
