"""The demo model: its configuration and its initial weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn

from headwise_lab.demo.pythia.attention import register
from headwise_lab.demo.pythia.tokenizer import BOS_ID, VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@attrs.frozen
class Shape:
    """The size of the model. The first quarter of each head's dimensions is rotary, as in Pythia."""

    width: int = 192
    layers: int = 6
    heads: int = 8
    context: int = 512  # tokens in a training window
    vocabulary: int = VOCABULARY


def build(shape: Shape, seed: int) -> PreTrainedModel:
    """A fresh ``GPTNeoXForCausalLM`` in float32 that trains with ``blocked_attention``."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
        use_parallel_residual=True,
        tie_word_embeddings=False,
        bos_token_id=BOS_ID,
        eos_token_id=BOS_ID,
        attn_implementation=register(),
    )
    model = GPTNeoXForCausalLM(config)
    quiet(model)
    return model.train()


def quiet(model: PreTrainedModel) -> None:
    """Set the matrices to zero that write to the residual stream, so that at first no layer changes it."""
    for layer in model.gpt_neox.layers:
        for last in (layer.attention.dense, layer.mlp.dense_4h_to_h):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
