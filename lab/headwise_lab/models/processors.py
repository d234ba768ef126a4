"""The processor of a model folder, without what reads videos where that cannot be had: headwise shows pictures only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def processor_of(folder: Path) -> ProcessorMixin:
    """What makes tensors of texts and pictures for the model of a folder.

    transformers' Qwen2.5-VL processor insists on its video part, which needs torchvision; without that package the
    other two parts are put together, which treat pictures just the same.
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
        """Its parts are read off the arguments of ``__init__``, and there is none for videos."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    return PictureProcessor
