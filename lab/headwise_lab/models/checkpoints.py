"""Reading a model folder with transformers: weights that fit, no foreign code, and errors with the model's name.

Folders in a layout of their own, such as LLaVA's authors use, are read by a loader found by entry point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headwise.errors import HeadwiseError, ModelError
from headwise.families import Checkpoint, checkpoint_layout
from headwise.registry import installed
from headwise_adapters.quiet import without_progress
from headwise_lab.models.processors import processor_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


READ = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")
"""The files of a model folder that are read."""


def checkpoint_of(folder: Path) -> Checkpoint | None:
    """The loader that recognises a model folder; None where transformers reads it itself."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # transformers then says what is wrong with the file
    return checkpoint_layout(config)


def load_pair(folder: Path, dtype: torch.dtype, attention: str) -> tuple[PreTrainedModel, ProcessorMixin, str]:
    """A vision-language model, its processor, and the digest of the files that both were read from."""
    loader = checkpoint_of(folder)
    if loader is not None:
        with without_progress():
            model, processor, read = loader.load(folder, dtype, attention)
        return model, processor, digest(folder, read)
    from transformers import AutoModelForImageTextToText

    model = load_weights(folder, AutoModelForImageTextToText, dtype, attention)
    return model, processor_of(folder), digest(folder)


def load_weights(folder: Path, kind: type[PreTrainedModel], dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """The model of a folder, by the transformers auto class ``kind``; ModelError where its family has no adapter."""
    from transformers import AutoConfig

    if checkpoint_of(folder):
        raise ModelError(f"it is a vision-language model in a layout of its own, which {kind.__name__} does not load")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in installed("adapter"):
        raise ModelError(
            f"model_type {config.model_type!r} has no adapter; supported: {', '.join(installed('adapter')) or 'none'}"
        )
    if type(config) not in kind._model_mapping:
        raise ModelError(f"it is a {config.model_type} model, which {kind.__name__} does not load")
    with without_progress():
        model, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"the weights in {folder} lack {len(missing)} of the model's tensors, such as {missing[0]}")
    return model


def pad_left(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad on the left, so that the answers of a batch all start at the same position."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


@contextmanager
def speaking_for(name: str) -> Iterator[None]:
    """Turn every error raised while a model is loaded into a ModelError with the model's name."""
    try:
        yield
    except HeadwiseError as error:
        raise ModelError(f"model {name} cannot be used: {error}") from error
    except Exception as error:  # missing files, broken weights, no such device: each library has its own classes
        raise ModelError(f"model {name} cannot be loaded: {first_line(error)}") from error


def digest(folder: Path, read: Iterable[Path] | None = None) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the files that a model is loaded from.

    ``read``: these files; by default all files of the folder that transformers reads.
    """
    found = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}) if read is None else read:
        with path.open("rb") as stream:
            found.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def first_line(error: BaseException) -> str:
    """An error's message on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
