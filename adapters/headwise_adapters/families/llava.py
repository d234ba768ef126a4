"""LLaVA in its Hugging Face form: a CLIP-like tower, a projector, and any Llama-like language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwise.model_config import ModelConfig
from headwise_adapters.families.family import VisionFamily, patches
from headwise_adapters.vision.images import Arguments, Picture, Tower, whole

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

EYES = ("model.vision_tower", "model.multi_modal_projector")


def vicuna(layers: int, heads: int, intermediate: int) -> dict[str, int]:
    """The language model of LLaVA-1.5 and LLaVA-NeXT, as a configuration."""
    return {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": 128 * heads,
            "intermediate_size": intermediate}  # fmt: skip


CLIP_L_336 = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
"""The vision tower of both, as a configuration."""


def visual_tokens(config: ModelConfig) -> int:
    """Of what the tower sees at once: its patches, and the CLS token where the model keeps it."""
    strategy, tower = config.get("vision_feature_select_strategy"), config.part("vision_config").model_type
    return patches(config) + _keeps(strategy, tower)


def keeps_cls(config: PreTrainedConfig) -> bool:
    """Whether the CLS token of a loaded model becomes a visual token."""
    return _keeps(config.vision_feature_select_strategy, config.vision_config.model_type)


def _keeps(strategy: object, tower: str) -> bool:
    return strategy == "full" and "siglip" not in tower  # which has no CLS token


def grid_of(config: PreTrainedConfig) -> tuple[int, int] | None:
    """Rows and columns of one picture's tokens; None where CLS is among them."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    return None if keeps_cls(config) else (side, side)


def tower(model: PreTrainedModel) -> Tower:
    """CLIP or a relative."""
    from headwise_adapters.vision.clip_tower import ClipTower

    config = model.config
    return ClipTower(model.model.vision_tower, config.vision_feature_layer, keeps_cls=keeps_cls(config))


def pictures(model: PreTrainedModel, call: Arguments) -> list[Picture]:
    """Every image is one picture, each patch of it a token: one per row of ``pixel_values``."""
    vision, grid = model.config.vision_config, grid_of(model.config)
    visual = (vision.image_size // vision.patch_size) ** 2 + keeps_cls(model.config)
    return [whole(i, visual, pixels, grid) for i, pixels in enumerate(call["pixel_values"])]


LLAVA = VisionFamily(
    name="LLaVA",
    stock="LlavaForConditionalGeneration",
    eyes=EYES,
    visual_tokens=visual_tokens,
    tower=tower,
    pictures=pictures,
    shapes={
        "llava-1.5-7b": {"text_config": vicuna(32, 32, 11008), "vision_config": CLIP_L_336},
        "llava-1.5-13b": {"text_config": vicuna(40, 40, 13824), "vision_config": CLIP_L_336},
        "demo-llava": {
            "text_config": {"num_hidden_layers": 12, "num_attention_heads": 8, "hidden_size": 128,
                            "intermediate_size": 384},
            "vision_config": {"image_size": 96, "patch_size": 8},
        },
    },
)  # fmt: skip
"""LLaVA-1.5 and all that have its configuration."""
