"""LLaVA in its Hugging Face form: a CLIP-like tower, a projector, and any Llama-like language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwise_adapters.families.vision_language import VisionLanguageAdapter
from headwise_adapters.parts import patches
from headwise_adapters.vision.clip_tower import ClipTower
from headwise_adapters.vision.images import Picture, Tower, whole


class LlavaAdapter(VisionLanguageAdapter):
    """Every image is one picture of square patches, each of them a token."""

    stock = "LlavaForConditionalGeneration"
    parts = ("vision_tower", "multi_modal_projector")

    def visual_tokens(self) -> int:
        """Patches of one picture, and the CLS token where the model keeps it."""
        return patches(self.config.vision_config) + self.keeps_cls

    def tower(self) -> Tower:
        """CLIP or a relative."""
        return ClipTower(self.inner.vision_tower, self.config.vision_feature_layer, keeps_cls=self.keeps_cls)

    def pictures(self, call: Mapping[str, Any]) -> list[Picture]:
        """One per row of ``pixel_values``."""
        visual = self.geometry.visual_tokens
        return [whole(i, visual, pixels, self.grid) for i, pixels in enumerate(call["pixel_values"])]

    @property
    def keeps_cls(self) -> bool:
        """Whether the CLS token becomes a visual token; SigLIP has none."""
        keeps_all = self.config.vision_feature_select_strategy == "full"
        return keeps_all and "siglip" not in self.config.vision_config.model_type

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of one picture's tokens; None where CLS is among them."""
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return None if self.keeps_cls else (side, side)
