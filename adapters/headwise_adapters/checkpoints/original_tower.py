"""The vision tower of an original LLaVA: within the checkpoint, in a folder, or on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from torch import Tensor

from headwise.errors import ModelError
from headwise_adapters.checkpoints.original_config import read_tower, tower_folder, tower_name
from headwise_adapters.checkpoints.shards import shards, tensors

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig

COMPUTED = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Ends of the names of buffers that are computed now, and were stored once."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HEAD = 64  # width of a head in every CLIP of OpenAI, which their weights do not tell
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


@attrs.frozen(eq=False)
class Tower:
    """A CLIP vision model: its configuration, tensors by their names in it, and its folder where it has one.

    ``files``: what was read of the folder.
    """

    config: CLIPVisionConfig
    tensors: Mapping[str, Tensor]
    folder: Path | None
    files: tuple[Path, ...]


def tower_of(config: Mapping[str, object], folder: Path, held: Mapping[str, Tensor]) -> Tower:
    """The tower of a checkpoint whose own tensors of it are ``held`` (none, if it is stored elsewhere).

    Raises ModelError where its weights, or what they do not tell of its shape, are not to be had.
    """
    from transformers import CLIPVisionConfig

    place = tower_folder(config, folder)
    if place is None and held and Path(tower_name(config)).name.startswith("clip-vit-"):
        return Tower(CLIPVisionConfig(**_shape(held)), held, None, ())
    place = place or _fetched(tower_name(config), weights=not held)
    read_tower(place)
    told = [place / "config.json", place / "preprocessor_config.json"]
    files = [path for path in told if path.is_file()] + ([] if held else shards(place))
    shape = CLIPVisionConfig.from_pretrained(place, local_files_only=True)
    return Tower(shape, held or _vision(tensors(place)), place, tuple(files))


def _vision(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP model's vision tensors; of a vision model alone, all of them, with or without a prefix."""
    known = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
    bare = {name.removeprefix("vision_model."): tensor for name, tensor in stored.items()}
    return {name: tensor for name, tensor in bare.items() if name.startswith(known) and not name.endswith(COMPUTED)}


def _shape(held: Mapping[str, Tensor]) -> dict[str, int]:
    """The configuration of a CLIP of OpenAI, from its tensors; raises ModelError where one of them is missing."""
    try:
        patch = held["embeddings.patch_embedding.weight"]
        positions = held["embeddings.position_embedding.weight"]
        inner = held["encoder.layers.0.mlp.fc1.weight"]
    except KeyError as error:
        raise ModelError(f"the vision tower within the checkpoint lacks {error.args[0]}") from error
    side = round((len(positions) - 1) ** 0.5) * patch.shape[-1]
    layers = [int(found[1]) for name in held if (found := _LAYER.match(name))]
    return {
        "hidden_size": len(patch),
        "intermediate_size": len(inner),
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": len(patch) // _HEAD,
        "image_size": side,
        "patch_size": patch.shape[-1],
    }


def _fetched(name: str, weights: bool) -> Path:
    """The tower from the hub; its weights only where they are wanted."""
    from huggingface_hub import snapshot_download

    sentence = f"its vision tower {name} is no folder{' and not within the checkpoint' if weights else ''}"
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{sentence}; put a CLIP model there, or its folder as mm_vision_tower into config.json")
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", *(["*.safetensors"] if weights else [])]))
        if weights and not any(folder.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=["pytorch_model*.bin"])
    except Exception as error:  # offline, unknown, gated, disk full: each comes as a class of its own
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{sentence}, nor to be had from the hub: {reason}") from error
    return folder
