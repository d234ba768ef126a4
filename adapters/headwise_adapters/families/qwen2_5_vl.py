"""Qwen2.5-VL: images of any size, one token for 2 x 2 patches, and positions with three axes.

There is no such thing as the number of tokens of an image, so budgets are given for one of 576 tokens (672 x 672
pixels) and scale with what an image has. Positions tell time, height and width, so nothing may count them: survivors
keep theirs, and evicting leaves distances as they are. Tokens of videos are left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwise_adapters.families.family import VisionFamily
from headwise_adapters.families.text import from_max_window_layers
from headwise_adapters.vision.images import Arguments, Picture, Tower, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ANY_SIZE = 576
"""Visual tokens of the image that budgets are given for."""


def tower(model: PreTrainedModel) -> Tower:
    """Windowed attention, and 2 x 2 patches for a token."""
    from headwise_adapters.vision.qwen_tower import QwenTower

    return QwenTower(model.model)


def pictures(model: PreTrainedModel, call: Arguments) -> list[Picture]:
    """Every image is one picture, its tokens a grid of its own shape: one per row of ``image_grid_thw``, in patches."""
    side = model.config.vision_config.spatial_merge_size
    grids = call["image_grid_thw"].tolist()
    own = call["pixel_values"].split([t * h * w for t, h, w in grids])
    return [
        whole(i, t * h * w // side**2, pixels, (h // side, w // side) if t == 1 else None)
        for i, ((t, h, w), pixels) in enumerate(zip(grids, own, strict=True))
    ]


def _language(layers: int, heads: int, kv_heads: int, intermediate: int) -> dict[str, int]:
    return {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "hidden_size": 128 * heads, "intermediate_size": intermediate}  # fmt: skip


QWEN2_5_VL = VisionFamily(
    name="Qwen2.5-VL",
    stock="Qwen2_5_VLForConditionalGeneration",
    eyes=("model.visual",),
    visual_tokens=lambda config: ANY_SIZE,
    tower=tower,
    pictures=pictures,
    axes=("time", "height", "width"),
    flat="qwen2_5_vl_text",
    slides=from_max_window_layers,
    shapes={
        "qwen2.5-vl-3b": _language(36, 16, 2, 11008),
        "qwen2.5-vl-7b": _language(28, 28, 4, 18944),
    },
)
"""Qwen2.5-VL, whose published files have the language model's keys at the top, and saved ones a ``text_config``."""
