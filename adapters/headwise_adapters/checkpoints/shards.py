"""The tensors of a checkpoint folder: safetensors, else PyTorch's own files, of which nothing but tensors is read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor

from headwise.errors import ModelError

KINDS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in one file, the preferred one first; with ``.index.json`` behind it, weights in several."""


def shards(folder: Path) -> list[Path]:
    """The files that hold a folder's weights; raises ModelError where there are none or one is missing."""
    for name in KINDS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _listed(index)
        if (folder / name).is_file():
            return [folder / name]
    raise ModelError(f"there are no weights in {folder}; wanted {' or '.join(KINDS)}, or parts of one with an index")


def _listed(index: Path) -> list[Path]:
    try:
        told = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(told.values()))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"{index} is no index of weights; wanted JSON with a weight_map") from error
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{index} names {name!r}; wanted files beside it")
        if not index.with_name(name).is_file():
            raise ModelError(f"{index.name} names {name}, which is not in {index.parent}")
    return [index.with_name(name) for name in names]


def tensors(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor, as stored; the files are mapped into memory and read when a tensor is."""
    found: dict[str, Tensor] = {}
    for path in shards(folder):
        found |= _read(path)
    return found


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        stored: dict[str, Tensor] = load_file(path)
        return stored
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        raise ModelError(f"{path.name} holds other things than tensors, and those are never loaded") from error
    if not (isinstance(held, dict) and all(isinstance(value, Tensor) for value in held.values())):
        raise ModelError(f"{path.name} is no state dict; wanted names and tensors")
    return held
