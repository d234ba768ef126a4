"""The processor of a model folder. Headwise shows pictures only, so a part that reads videos may be missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def processor_of(folder: Path) -> ProcessorMixin:
    """The processor that makes tensors of texts and pictures for the model of a folder.

    transformers' Qwen2.5-VL processor insists on its video part, which needs torchvision. Without that package, a
    processor is made of its other two parts, which treat pictures in the same way.
    """
    from transformers import AutoConfig, AutoProcessor

    given = {"local_files_only": True, "trust_remote_code": False}
    if find_spec("torchvision") is None:
        config = AutoConfig.from_pretrained(folder, **given)
        if config.model_type == "qwen2_5_vl":
            return without_videos().from_pretrained(folder, **given)
    return AutoProcessor.from_pretrained(folder, **given)


def without_videos() -> type[ProcessorMixin]:
    """The class of a Qwen2.5-VL processor that reads pictures and no videos."""
    from transformers import Qwen2_5_VLProcessor

    class PictureProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]
        """transformers takes a processor's parts from the arguments of ``__init__``; here is none for videos."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    return PictureProcessor
