"""Loading a model to be measured: one that ships with headwise, a local folder, or a name on the Hugging Face hub.

Code that comes with a model is never run, and weights that do not fit the model are an error, not a random start.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch

from headwise.attachment import adapter_for
from headwise.errors import HeadwiseError, ModelError
from headwise.geometry import Geometry
from headwise.registry import installed
from headwise_lab.models import SHIPPED, shipped

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("sdpa", "eager")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_READ = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")  # what of a model folder is read


@attrs.frozen(eq=False)
class Loaded:
    """A model ready to be asked, its processor, and what tells it apart from others.

    ``name`` stands in records, ``source`` is what the user gave.
    ``weights``: the first 16 hexadecimal digits of a SHA-256 over the folder's weights, configuration and tokenizer.
    """

    name: str
    source: str
    model: Any
    processor: Any
    geometry: Geometry
    weights: str
    dtype: str
    attention: str
    device: str


def load_model(name: str, *, dtype: str = "float32", device: str = "cpu", attention: str = "sdpa") -> Loaded:
    """Load the model called ``name``; raises ModelError in one sentence for whatever stands in the way."""
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if attention not in ATTENTIONS:
        raise ModelError(f"attention {attention!r} is not one of {', '.join(ATTENTIONS)}")
    folder = find(name)
    with _speaking_for(name):
        model, processor = _load(folder, DTYPES[dtype], attention)
        model = model.to(torch.device(device)).eval()
        _prepare(processor)
        label = name if name in SHIPPED else Path(name).expanduser().resolve().name
        geometry = attrs.evolve(adapter_for(model).geometry, name=label)
    return Loaded(label, name, model, processor, geometry, digest(folder), dtype, attention, str(device))


def find(name: str) -> Path:
    """The folder of a model, fetched from the hub where ``name`` is neither shipped nor on disk."""
    if name in SHIPPED:
        return _checked(shipped(name), name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path, name)
    if path.exists():
        raise ModelError(f"{name} is a file; give the folder of a model, a hub id, or {', '.join(SHIPPED)}")
    if _HUB_ID.fullmatch(name):
        return _fetched(name)
    raise ModelError(f"there is no model folder {name}; give one, a hub id, or {', '.join(SHIPPED)}")


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name} has no config.json in {folder}; give a folder written by save_pretrained")
    return folder


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_READ)))
    except Exception as error:  # offline, unknown, gated, disk full: each comes as a class of its own
        raise ModelError(
            f"{name} is neither a local folder nor to be had from the hub: {_first_line(error)}"
        ) from error


def _load(folder: Path, dtype: torch.dtype, attention: str) -> tuple[Any, Any]:
    """Model and processor of a folder whose family has an adapter."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in installed("adapter"):
        raise ModelError(
            f"model_type {config.model_type!r} has no adapter; supported: {', '.join(installed('adapter')) or 'none'}"
        )
    with _without_progress():
        model, told = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(told["missing_keys"])
    if missing:
        raise ModelError(f"the weights in {folder} lack {len(missing)} of the model's tensors, such as {missing[0]}")
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _prepare(processor: Any) -> None:
    """Pad on the left, so that answers continue every prompt of a batch at the same place."""
    if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")):
        raise ModelError(
            f"its processor is a {type(processor).__name__}; wanted one with tokenizer and image processor"
        )
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token


@contextmanager
def _speaking_for(name: str) -> Iterator[None]:
    """Turn what libraries raise while loading into a ModelError with the model's name."""
    try:
        yield
    except HeadwiseError as error:
        raise ModelError(f"model {name} cannot be used: {error}") from error
    except Exception as error:  # missing files, broken weights, no such device: each library has its own classes
        raise ModelError(f"model {name} cannot be loaded: {_first_line(error)}") from error


@contextmanager
def _without_progress() -> Iterator[None]:
    """No bar for loading weights; the commands show their own progress."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def digest(folder: Path) -> str:
    """A SHA-256 over the files a model is loaded from, shortened to 16 hexadecimal digits."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in _READ for path in folder.glob(pattern)}):
        with path.open("rb") as stream:
            found.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
