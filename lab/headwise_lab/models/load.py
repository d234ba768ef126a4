"""Loading a model to be measured: one that ships with headwise, ``smollm2``, a local folder, or a name on the hub.

Code that comes with a model is never run, and weights that do not fit the model are an error, not a random start.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from headwise.attachment import adapter_for
from headwise.errors import ModelError
from headwise.geometry import Geometry
from headwise.reading import local_path
from headwise.waiting import waiting
from headwise_lab.models import SHIPPED, shipped
from headwise_lab.models.checkpoints import (
    READ,
    checkpoint_of,
    digest,
    first_line,
    load_pair,
    load_weights,
    pad_left,
    speaking_for,
)
from headwise_lab.models.placing import AUTO, DTYPES, device_of, dtype_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


ATTENTIONS = ("sdpa", "eager")
SMOLLM2 = "smollm2"
NAMES = (*SHIPPED, SMOLLM2)
"""Models that are loaded by a name and not by a folder or a hub id."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@attrs.frozen(eq=False)
class LoadedModel:
    """A model, and what tells it apart from others.

    ``name`` stands in records; ``source`` is what the user typed.
    ``weights``: the first 16 hexadecimal digits of a SHA-256 over the model's weights, configuration and tokenizer.
    """

    name: str
    source: str
    model: PreTrainedModel
    geometry: Geometry
    weights: str
    dtype: str
    attention: str
    device: str

    @property
    def options(self) -> list[str]:
        """The command-line options that load the model so on any machine, whatever ``auto`` means there."""
        attention = [] if self.attention == ATTENTIONS[0] else ["--attention", self.attention]
        return ["--dtype", self.dtype, "--device", self.device, *attention]


@attrs.frozen(eq=False)
class Loaded(LoadedModel):
    """A vision-language model ready to be asked, and its processor."""

    processor: ProcessorMixin


@attrs.frozen(eq=False)
class LoadedLm(LoadedModel):
    """A language model ready to read, and its tokenizer."""

    tokenizer: PreTrainedTokenizerBase


def load_model(name: str, *, dtype: str = AUTO, device: str = AUTO, attention: str = "sdpa") -> Loaded:
    """Load the vision-language model called ``name``; raises ModelError in one sentence where that cannot be done.

    What ``auto`` became stands in the result, never ``auto``.
    """
    dtype, device = _judged(dtype, device, attention)
    folder = find(name)
    with speaking_for(name), waiting(f"loading {name}"):
        model, processor, weights = load_pair(folder, DTYPES[dtype], attention)
        if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")):
            raise ModelError(
                f"its processor is a {type(processor).__name__}; wanted one with tokenizer and image processor"
            )
        model, geometry = _ready(model, name, device, processor.tokenizer)
    return Loaded(geometry.name, name, model, geometry, weights, dtype, attention, device, processor)


def load_language_model(name: str, *, dtype: str = AUTO, device: str = AUTO, attention: str = "sdpa") -> LoadedLm:
    """Load the language model called ``name``, as :func:`load_model` does; raises ModelError as it does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype, device = _judged(dtype, device, attention)
    folder = find(name)
    with speaking_for(name), waiting(f"loading {name}"):
        model = load_weights(folder, AutoModelForCausalLM, DTYPES[dtype], attention)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, geometry = _ready(model, name, device, tokenizer)
    return LoadedLm(geometry.name, name, model, geometry, digest(folder), dtype, attention, device, tokenizer)


def _judged(dtype: str, device: str, attention: str) -> tuple[str, str]:
    """The data type and the device that a model is loaded with; raises ModelError for values that mean nothing."""
    if dtype not in (AUTO, *DTYPES):
        raise ModelError(f"dtype {dtype!r} is not one of {', '.join((AUTO, *DTYPES))}")
    if attention not in ATTENTIONS:
        raise ModelError(f"attention {attention!r} is not one of {', '.join(ATTENTIONS)}")
    place = device_of(str(device))
    try:
        kind = torch.device(place).type
    except RuntimeError as error:
        raise ModelError(f"torch knows no device {place!r}; give auto, cpu, cuda or cuda:1") from error
    if kind == "meta":
        raise ModelError("device 'meta' holds no numbers, so nothing can be computed on it; give cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"torch finds no GPU here for device {place}; give auto or cpu")
    return dtype_of(dtype, place), place


def _ready(
    model: PreTrainedModel, name: str, device: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, Geometry]:
    """The model on its device, and its geometry under the name that records carry."""
    pad_left(tokenizer)
    model = model.to(torch.device(device)).eval()
    return model, attrs.evolve(adapter_for(model).geometry, name=called(name))


def called(name: str) -> str:
    """A model's name in records and reports: its own, or that of its folder."""
    return name if name in NAMES else local_path(name).resolve().name


def find(name: str) -> Path:
    """The folder of a model; it is fetched from the hub where ``name`` is neither in NAMES nor a folder on disk."""
    if name == SMOLLM2:
        from headwise_lab.models.smollm2 import folder

        return folder()
    if name in SHIPPED:
        return _checked(shipped(name), name)
    path = local_path(name)
    if path.is_dir():
        return _checked(path, name)
    if path.exists():
        raise ModelError(f"{name} is a file; give the folder of a model, a hub id, or {', '.join(NAMES)}")
    if _HUB_ID.fullmatch(name):
        return _fetched(name)
    raise ModelError(f"there is no model folder {name}; give one, a hub id, or {', '.join(NAMES)}")


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name} has no config.json in {folder}; give a folder written by save_pretrained")
    return folder


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(READ)))
        if not any(folder.glob("*.safetensors")) and checkpoint_of(folder):
            snapshot_download(name, allow_patterns=["pytorch_model*.bin"])  # read as tensors, never as code
        return folder
    except Exception as error:  # offline, unknown, gated, disk full: each raises a class of its own
        raise ModelError(
            f"{name} is not a local folder and cannot be fetched from the hub: {first_line(error)}"
        ) from error
