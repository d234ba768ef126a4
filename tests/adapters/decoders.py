"""Tiny random language models of every family headwise evicts from, in float32."""

from __future__ import annotations

import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 90
_GROUPED = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

_SOME_SLIDE = {
    "use_sliding_window": True, "sliding_window": 19,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
}  # fmt: skip


def neox():
    config = GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, rotary_pct=0.25, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


FAMILIES = {
    "neox": neox,
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_GROUPED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=None)),
    "sliding": lambda: MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=19)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_GROUPED)),
    "mixed": lambda: Qwen3ForCausalLM(Qwen3Config(**_GROUPED, **_SOME_SLIDE)),
    "mixed_qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_GROUPED, **_SOME_SLIDE)),
}


def tiny(family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32):
    """A seeded model whose attention is far from flat."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15 if "proj" in name or "query_key" in name or "dense" in name else 0.4)
    model.set_attn_implementation(attention)
    return model.to(dtype)


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    """Token ids (n,) without special ones."""
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def read_in_pieces(model, cache, ids: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Logits (n, vocabulary) of ids (n,), read into a cache in pieces of ``sizes``, the last one over and over."""
    start, parts = 0, []
    while start < len(ids):
        size = sizes[min(len(parts), len(sizes) - 1)]
        parts.append(model(input_ids=ids[None, start : start + size], past_key_values=cache).logits[0])
        start += size
    return torch.cat(parts)
