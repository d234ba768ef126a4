"""What the ``config.json`` of LLaVA in the layout of its authors says, read without transformers.

It is the configuration of the language model with ``mm_*`` keys beside it, and it names its vision tower, by a folder
or a name on the hub, where the Hugging Face form describes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from headwise.errors import DataError, ModelError
from headwise.model_config import LARGEST, ModelConfig
from headwise.reading import json_in, local_path, shortened

# OpenAI's names say the patch, and the side if not 224
_PATCHES = re.compile(r"clip-vit-\w+-patch(\d{1,4})(?:-(\d{1,4}))?")
STRATEGIES = {"patch": "default", "cls_patch": "full"}
"""``mm_vision_select_feature``, and what transformers calls it."""
_SIDE = 224
_PATCH = 32  # what transformers leaves out of a saved CLIP


def recognises(config: Mapping[str, object]) -> bool:
    """Whether a configuration is of LLaVA in the original layout, whatever its language model."""
    own = "mm_vision_tower" in config or "LlavaLlamaForCausalLM" in _listed(config.get("architectures"))
    return str(config.get("model_type")).startswith("llava") and "text_config" not in config and own


def _listed(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def tower_name(config: Mapping[str, object]) -> str:
    """The folder or name of the vision tower; raises ModelError where the configuration has none."""
    name = config.get("mm_vision_tower") or config.get("mm_vision_tower_name")
    if not isinstance(name, str):
        given = shortened(repr(name), 80)
        raise ModelError(f"config.json gives mm_vision_tower={given}; wanted the folder or hub id of a CLIP model")
    return name


def tower_folder(config: Mapping[str, object], folder: Path) -> Path | None:
    """The vision tower's folder, relative to the checkpoint's or absolute; None where there is no such folder."""
    path = folder / local_path(tower_name(config))
    return path if (path / "config.json").is_file() else None


def read_tower(tower: Path) -> dict[str, object]:
    """The vision part of a CLIP folder's configuration; raises ModelError for any other kind of tower."""
    try:
        told = json_in(tower / "config.json", largest=LARGEST)
    except DataError as error:
        raise ModelError(f"the vision tower's configuration cannot be read: {error}") from error
    told = told if isinstance(told, Mapping) else {}
    part = told.get("vision_config", told)
    if not (isinstance(part, Mapping) and str(told.get("model_type")).startswith("clip")):
        raise ModelError(f"the vision tower in {tower} is no CLIP model; wanted a CLIPModel or CLIPVisionModel")
    return {**part, "image_size": part.get("image_size", _SIDE), "patch_size": part.get("patch_size", _PATCH)}


def as_transformers(config: ModelConfig) -> dict[str, object]:
    """What the Hugging Face form says of the same model, as far as its counts follow from it.

    The vision tower is read from its folder, or else from its name; raises ModelError where neither tells its patches.
    """
    return {
        "model_type": "llava",
        "text_config": {key: value for key, value in config.values.items() if key != "model_type"},
        "vision_config": {"model_type": "clip_vision_model", **_pictures(config)},
        "vision_feature_select_strategy": STRATEGIES["cls_patch" if _keeps_cls(config) else "patch"],
    }


def _keeps_cls(config: ModelConfig) -> bool:
    return config.get("mm_vision_select_feature") == "cls_patch"


def _pictures(config: ModelConfig) -> dict[str, int]:
    """Pixels of a picture's side and of a patch's; raises ModelError where they are not known, or cannot be."""
    name, folder = tower_name(config.values), config.folder
    tower = folder and tower_folder(config.values, folder)
    if tower:
        told = read_tower(tower)
        side, patch = told["image_size"], told["patch_size"]
    else:
        named = _PATCHES.fullmatch(Path(name).name)
        if named is None:
            raise ModelError(
                f"how many patches the vision tower {shortened(name)} has is not known: it is no folder here and not"
                " named as OpenAI names its CLIP models; give its folder as mm_vision_tower in config.json"
            )
        side, patch = int(named[2] or _SIDE), int(named[1])
    if not (type(side) is int and type(patch) is int and 0 < patch <= side < LARGEST):
        raise ModelError(
            f"the vision tower {shortened(name)} has pictures of {side!r:.40} and patches of {patch!r:.40} pixels;"
            " wanted whole numbers above 0"
        )
    return {"image_size": side, "patch_size": patch}
