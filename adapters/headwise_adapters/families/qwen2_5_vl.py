"""Qwen2.5-VL: images of any size, one token for 2 x 2 patches, and positions with three axes.

There is no such thing as the number of tokens of an image, so budgets are given for one of 576 tokens (672 x 672
pixels) and scale with what an image has. Positions tell time, height and width, so nothing may count them: survivors
keep theirs, and evicting leaves distances as they are. Tokens of videos are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs

from headwise.errors import ModelError
from headwise.eviction import CacheEvidence, EvictionPlan, Score, ScorePlan, WindowPlan
from headwise.geometry import ANY_SIZE
from headwise.pipeline import Pipeline
from headwise_adapters.cache.ragged_cache import Layers
from headwise_adapters.families.vision_language import VisionLanguageAdapter
from headwise_adapters.vision.images import Picture, Tower, whole
from headwise_adapters.vision.qwen_tower import QwenTower


class Qwen25VlAdapter(VisionLanguageAdapter):
    """Every image is one picture, its tokens a grid of its own shape."""

    stock = "Qwen2_5_VLForConditionalGeneration"
    parts = ("visual",)
    renumbers = False

    def visual_tokens(self) -> int:
        """Of the image that budgets are given for."""
        return ANY_SIZE

    def tower(self) -> Tower:
        """Windowed attention, and 2 x 2 patches for a token."""
        return QwenTower(self.inner)

    def pictures(self, call: Mapping[str, Any]) -> list[Picture]:
        """One per row of ``image_grid_thw``, which counts patches."""
        side = self.config.vision_config.spatial_merge_size
        grids = call["image_grid_thw"].tolist()
        own = call["pixel_values"].split([t * h * w for t, h, w in grids])
        return [
            whole(i, t * h * w // side**2, pixels, (h // side, w // side) if t == 1 else None)
            for i, ((t, h, w), pixels) in enumerate(zip(grids, own, strict=True))
        ]

    def layers(self, pipeline: Pipeline, plan: EvictionPlan) -> Layers:
        """As for any model, where nothing has to be moved along the text."""
        if isinstance(plan, WindowPlan) and plan.positions == "relative":
            raise ModelError(f"positions=relative moves sinks along the text, {_AXES}; use positions=original")
        if isinstance(plan, ScorePlan):
            if plan.rerotate:
                raise ModelError(f"rerotate moves keys along the text, {_AXES}; use rerotate=false")
            plan = attrs.evolve(plan, score=_unmoved(plan.score))
        return super().layers(pipeline, plan)


_AXES = "and positions of Qwen2.5-VL have three axes (time, height, width)"


def _unmoved(score: Score) -> Score:
    """A score that is refused what would take queries or keys to one place of the text."""
    return lambda evidence: score(cast(CacheEvidence, _Unmoved(evidence)))


@attrs.frozen
class _Unmoved:
    evidence: CacheEvidence

    def __getattr__(self, name: str) -> Any:
        if name in ("queries", "unrotated", "rotate"):
            raise ModelError(f"this kv_eviction undoes rotary positions, {_AXES}; take one that does not, as snapkv")
        return getattr(self.evidence, name)
