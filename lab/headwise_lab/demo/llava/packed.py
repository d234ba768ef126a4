"""The training forward: one picture with many questions; each question sees only the picture and itself.

The sequence is ``<s> USER:``, the image tokens, then a block per question. Positions restart with every block, so a
block computes what a prompt with only this question computes. The parameters are those of the stock model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise_lab.demo.llava.tokenizer import BOS_ID, QUESTION_TOKENS, USER, VOCABULARY
from headwise_lab.scenes.world import TOKENS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel
    from transformers.models.clip.modeling_clip import CLIPAttention
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer


OPENING = (BOS_ID, VOCABULARY.index(USER))
PREFIX = len(OPENING) + TOKENS


@attrs.frozen(eq=False)
class PackedLayout:
    """Positions and visibility in a packed sequence of ``PREFIX + questions * length`` tokens."""

    positions: Tensor  # (tokens,)
    mask: Tensor  # (questions * length, tokens), added to scores
    readout: Tensor  # tokens whose logits are computed: from ASSISTANT: to each block's end


@lru_cache(maxsize=16)
def layout(questions: int, length: int) -> PackedLayout:
    """The layout of ``questions`` blocks of ``length`` tokens."""
    block = torch.arange(PREFIX, PREFIX + length)
    owner = torch.arange(questions).repeat_interleave(length)
    step = torch.arange(length).repeat(questions)
    own = (owner[:, None] == owner) & (step[:, None] >= step)
    seen = torch.cat([torch.ones(len(owner), PREFIX, dtype=torch.bool), own], dim=1)
    mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
    readout = PREFIX + torch.nonzero(step >= QUESTION_TOKENS - 1).flatten()
    return PackedLayout(torch.cat([torch.arange(PREFIX), block.repeat(questions)]), mask, readout)


def image_features(model: PreTrainedModel, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The projector's output (batch, tokens, width) in float32, for pixel values (batch, 3, height, width)."""
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    projector = model.model.multi_modal_projector
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        x = tower.embeddings(pixels).float()
    x = tower.pre_layrnorm(x)
    for layer in tower.encoder.layers[:-1]:  # vision_feature_layer -2
        x = x + _vision_attention(layer.self_attn, layer.layer_norm1(x).to(dtype)).float()
        hidden = _linear(layer.mlp.fc1, layer.layer_norm2(x).to(dtype))
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + _linear(layer.mlp.fc2, hidden).float()
    hidden = F.gelu(_linear(projector.linear_1, x[:, 1:].to(dtype)))
    return _linear(projector.linear_2, hidden).float()


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    bias = None if module.bias is None else module.bias.to(x.dtype)
    return F.linear(x, module.weight.to(x.dtype), bias)


def _split(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, head width)."""
    batch, tokens, _ = x.shape
    return x.view(batch, tokens, heads, -1).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _vision_attention(attention: CLIPAttention, h: Tensor) -> Tensor:
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (_split(_linear(p, h), attention.num_heads) for p in projections)
    return _linear(attention.out_proj, _merge(F.scaled_dot_product_attention(q, k, v)))


def question_logits(
    model: PreTrainedModel, features: Tensor, questions: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Next-token logits (batch, questions, 1 + answer tokens, vocabulary) from ``ASSISTANT:`` on.

    ``features`` is (batch, tokens, width); ``questions`` is (batch, questions, length): seven question tokens, followed
    by answer tokens where there are any.
    """
    batch, count, length = questions.shape
    plan = layout(count, length)
    language = model.model.language_model
    embed = language.embed_tokens
    opening = embed(torch.tensor(OPENING)).expand(batch, -1, -1)
    x = torch.cat([opening, features, embed(questions.flatten(1))], dim=1)
    cos, sin = language.rotary_emb(x, plan.positions[None])
    rotation = (cos[0].to(dtype), sin[0].to(dtype))
    for layer in language.layers[:-1]:
        x = _language_layer(layer, x, rotation=rotation, plan=plan, rows=None, dtype=dtype)
    x = _language_layer(language.layers[-1], x, rotation=rotation, plan=plan, rows=plan.readout, dtype=dtype)
    logits: Tensor = model.lm_head(language.norm(x))
    return logits.view(batch, count, -1, logits.size(-1))


def _language_layer(
    layer: LlamaDecoderLayer,
    x: Tensor,
    *,
    rotation: tuple[Tensor, Tensor],
    plan: PackedLayout,
    rows: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """One decoder layer over packed ``x`` (batch, tokens, width); with ``rows``, the output has only these tokens."""
    attention, mlp = layer.self_attn, layer.mlp
    cos, sin = rotation
    h = layer.input_layernorm(x).to(dtype)
    asking, x = (h, x) if rows is None else (h[:, rows], x[:, rows])
    heads = h.size(-1) // attention.head_dim
    k, v = _split(_linear(attention.k_proj, h), heads), _split(_linear(attention.v_proj, h), heads)
    q = _split(_linear(attention.q_proj, asking), heads)
    k = _rotate(k, cos, sin)
    if rows is None:
        q = _rotate(q, cos, sin)
        start = slice(PREFIX)
        seen = F.scaled_dot_product_attention(q[:, :, start], k[:, :, start], v[:, :, start], is_causal=True)
        asked = F.scaled_dot_product_attention(q[:, :, PREFIX:], k, v, attn_mask=plan.mask.to(dtype))
        mixed = torch.cat([seen, asked], dim=2)
    else:
        q = _rotate(q, cos[rows], sin[rows])
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=plan.mask[rows - PREFIX].to(dtype))
    x = x + _linear(attention.o_proj, _merge(mixed)).float()
    h = layer.post_attention_layernorm(x).to(dtype)
    return x + _linear(mlp.down_proj, F.silu(_linear(mlp.gate_proj, h)) * _linear(mlp.up_proj, h)).float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of (batch, heads, tokens, head width)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
