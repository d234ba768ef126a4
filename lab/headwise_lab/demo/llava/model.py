"""The demo model: its configuration, its initial weights, auxiliary heads for training, and how layers are added."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headwise_lab.demo.llava.tokenizer import BOS_ID, EOS_ID, IMAGE_ID, PAD_ID, VOCABULARY
from headwise_lab.scenes.world import FORMS, GRID, HUES, PATCH, SIZE, SPRITES, TOKENS, form_of, hue_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


WIDTH = 128
FEED_FORWARD = 384
VISION_LAYERS, VISION_HEADS = 4, 4
HEADS = 8
SILENT = ("o_proj", "out_proj", "down_proj", "fc2")  # these write to the residual stream, and start at zero


def build(layers: int, seed: int) -> PreTrainedModel:
    """A fresh LlavaForConditionalGeneration with ``layers`` language layers, in float32."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=VISION_HEADS,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        rms_norm_eps=1e-5,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        image_seq_length=TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    initialize(model, torch.Generator().manual_seed(seed))
    return model


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Draw random matrices, except those that write to the residual stream, which are zero; vectors keep defaults."""
    for name, weight in model.named_parameters():
        if name.endswith("class_embedding"):
            weight.normal_(0, WIDTH**-0.5, generator=generator)
        if weight.ndim < 2:
            continue
        weight.normal_(0, _spread(name, weight), generator=generator)


def _spread(name: str, weight: Tensor) -> float:
    """Standard deviation of a matrix's initial values."""
    if any(part in name for part in SILENT):
        return 0.0
    if "embed_tokens" in name:
        return 0.5
    if "position_embedding" in name:
        return 0.3  # large enough that the projector can still tell a token's place
    if "lm_head" in name:
        return 0.05
    if "patch_embedding" in name:
        return 1 / math.sqrt(weight[0].numel())
    return 0.7 / math.sqrt(WIDTH)


class AuxiliaryHeads(nn.Module):
    """Predict each image token's form, colour, row and column from the projector's output. Used only in training."""

    form_labels: Tensor
    hue_labels: Tensor
    row_labels: Tensor
    column_labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Linear(WIDTH, FORMS)
        self.hue = nn.Linear(WIDTH, HUES)
        self.row = nn.Linear(WIDTH, GRID)
        self.column = nn.Linear(WIDTH, GRID)
        cells = torch.arange(TOKENS)
        labels = {
            "form_labels": torch.tensor([form_of(sprite) for sprite in range(SPRITES)]),
            "hue_labels": torch.tensor([hue_of(sprite) for sprite in range(SPRITES)]),
            "row_labels": cells // GRID,
            "column_labels": cells % GRID,
        }
        for name, values in labels.items():
            self.register_buffer(name, values, persistent=False)

    def losses(self, features: Tensor, sprites: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropies (content, place) of features (batch, tokens, width) given sprites (batch, tokens)."""
        loss = nn.functional.cross_entropy
        batch = len(features)
        flat = features.flatten(0, 1)
        content = loss(self.form(flat), self.form_labels[sprites].flatten())
        content = content + loss(self.hue(flat), self.hue_labels[sprites].flatten())
        place = loss(self.row(flat), self.row_labels.repeat(batch))
        place = place + loss(self.column(flat), self.column_labels.repeat(batch))
        return content, place


@torch.no_grad()
def grow(model: PreTrainedModel, sources: Sequence[int]) -> None:
    """Replace the language layers by copies of the layers ``sources``. At first a repeated layer adds nothing.

    ``sources`` must hold every index, in order, so that the model computes the same as before.
    """
    language = model.model.language_model
    stack = nn.ModuleList()
    for position, source in enumerate(sources):
        layer = copy.deepcopy(language.layers[source])
        layer.self_attn.layer_idx = position
        if source in sources[:position]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        stack.append(layer)
    language.layers = stack
    for config in {id(c): c for c in (model.config.text_config, language.config)}.values():
        config.num_hidden_layers = len(stack)
        if getattr(config, "layer_types", None):
            config.layer_types = ["full_attention"] * len(stack)
