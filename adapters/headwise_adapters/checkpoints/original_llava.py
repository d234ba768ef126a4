"""LLaVA-1.5 in the layout of its authors (liuhaotian/llava-v1.5-7b), opened as transformers' own LLaVA.

Liu et al., "Improved Baselines with Visual Instruction Tuning", CVPR 2024, arXiv:2310.03744.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.model_config import ModelConfig
from headwise_adapters.checkpoints import original_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin


class OriginalLlava:
    """LLaVA-1.5 in the layout of its authors, with mm_vision_tower in config.json."""

    def recognises(self, config: Mapping[str, object]) -> bool:
        """Whether a folder with this ``config.json`` is of the original layout, of LLaVA-1.5 or of a relative."""
        return original_config.recognises(config)

    def as_transformers(self, config: ModelConfig) -> Mapping[str, object]:
        """What the Hugging Face form's ``config.json`` would say; raises ModelError without a known vision tower."""
        return original_config.as_transformers(config)

    def load(
        self, folder: Path | str, dtype: torch.dtype | None = None, attention: str = "sdpa"
    ) -> tuple[PreTrainedModel, ProcessorMixin, list[Path]]:
        """A ``LlavaForConditionalGeneration`` in ``dtype`` (float32), its processor, and the files they were read from.

        Raises ModelError where the checkpoint lacks something, or LLaVA-1.5's Hugging Face form cannot express it.
        """
        import torch

        from headwise_adapters.checkpoints.original_weights import load_original

        return load_original(Path(folder), dtype or torch.float32, attention)
