"""A tiny random LLaVA: 16 visual tokens, 4 layers, 4 heads over 2 KV heads, in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE, PAD, VOCAB, VISUAL = 4, 0, 60, 16


def tiny_llava(attention: str = "eager", dtype: torch.dtype = torch.float32, kv_heads: int = 2):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=kv_heads, max_position_embeddings=256, pad_token_id=PAD, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=VISUAL)
    config._attn_implementation = attention
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():  # the default initialisation is so small that attention is flat and everything ties
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25 if "proj" in name else 0.5)
    return model.to(dtype)


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=["eager", "sdpa"])
def attention(request) -> str:
    return request.param


@pytest.fixture
def model(attention: str) -> LlavaForConditionalGeneration:
    return tiny_llava(attention)


def prompt(*parts: int | str, seed: int = 0) -> Tensor:
    """Token ids (1, n): integers stand for that many random words, "image" for an image."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [torch.tensor([1])]
    for part in parts:
        if part == "image":
            pieces.append(torch.full((VISUAL,), IMAGE))
        else:
            pieces.append(torch.randint(5, VOCAB, (part,), generator=generator))
    return torch.cat(pieces)[None]


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def padded(rows: list[Tensor], side: str) -> dict[str, Tensor]:
    """Rows (1, n) as one batch with its attention mask."""
    width = max(row.shape[1] for row in rows)
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        span = slice(width - row.shape[1], width) if side == "left" else slice(0, row.shape[1])
        ids[i, span], mask[i, span] = row[0], 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def tools() -> dict[str, Callable]:
    return {"tiny_llava": tiny_llava, "prompt": prompt, "pixels": pixels, "padded": padded}
