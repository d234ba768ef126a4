"""The geometry of a model from its ``config.json`` alone: no weights, no transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError, ModelError
from headwise.geometry import ANY_SIZE, SHAPES, Geometry, most_pictures, shape
from headwise.original_llava import LARGEST, patches, recognises
from headwise.reading import json_in, local_path, shortened

MOST = 2**24  # of anything that a configuration counts

_KINDS: dict[str, tuple[type, str]] = {
    "model_type": (str, "the name of a family"),
    "architectures": (list, "a list of names"),
    "layer_types": (list, "a list with a kind for every layer"),
}

# A saved configuration leaves out what equals the default of its class in transformers; LLaVA-1.5-7B saves hardly
# anything of its language model.
_TEXT_DEFAULTS = {
    "llama": {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 11008},
    "mistral": {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
                "intermediate_size": 14336, "sliding_window": 4096},
    "qwen2_5_vl_text": {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
                        "hidden_size": 8192, "intermediate_size": 29568},
}  # fmt: skip
_VISION_DEFAULTS = {"clip_vision_model": {"image_size": 224, "patch_size": 32}}

_GATED = {"gpt_neox": False, "llama": True, "mistral": True, "qwen2": True, "qwen3": True}
"""Language models that are read without a vision tower, and whether their feed-forward blocks are gated."""

_QWEN = "qwen2_5_vl"  # its published files have the language model's keys at the top, those saved since a text_config


def geometry_of(name: str) -> Geometry:
    """The geometry of a shape known by name, or of a local model folder; raises ModelError for anything else."""
    path = local_path(name)
    if name in SHAPES or not (path.exists() or os.sep in name or path.suffix == ".json"):
        return shape(name)
    return read_geometry(path)


def read_geometry(path: Path) -> Geometry:
    """The geometry a model folder or ``config.json`` describes; raises ModelError naming what is missing.

    It may be of LLaVA, in either layout, of LLaVA-NeXT (the tokens of one crop), of Qwen2.5-VL (the tokens that budgets
    are given for), or of a language model alone: gpt_neox, llama, mistral, qwen2, qwen3.
    """
    file = path / "config.json" if path.is_dir() else path
    name = path.resolve().name if path.is_dir() else path.resolve().parent.name
    config = _read(file)
    if isinstance(config, Mapping) and config.get("model_type") in _GATED:
        return _geometry(name, config, file)
    if isinstance(config, Mapping) and recognises(config):
        return attrs.evolve(_geometry(name, config, file), visual_tokens=patches(config, file.parent))
    if isinstance(config, Mapping) and config.get("model_type") == _QWEN:
        text = _part(config, "text_config", _TEXT_DEFAULTS, file) if "text_config" in config else config
        return attrs.evolve(_geometry(name, text, file), visual_tokens=ANY_SIZE)
    text = _part(config, "text_config", _TEXT_DEFAULTS, file)
    vision = _part(config, "vision_config", _VISION_DEFAULTS, file)
    return attrs.evolve(_geometry(name, text, file), visual_tokens=_visual_tokens(config, vision, file))


def _read(file: Path) -> Any:
    try:
        config = json_in(file, largest=LARGEST)
    except DataError as error:
        raise ModelError(f"{error}; give a folder with a config.json or one of: {', '.join(SHAPES)}") from error
    for part in (config, *(config.values() if isinstance(config, dict) else ())):
        for key, (kind, wanted) in _KINDS.items():
            if isinstance(part, dict) and not isinstance(part.get(key), kind | None):
                raise ModelError(f"{file} gives {key}={shortened(repr(part[key]), 80)}; wanted {wanted}")
    return config


def _geometry(name: str, text: Mapping[str, Any], file: Path) -> Geometry:
    """Of the language model alone."""
    heads, hidden = _count(text, "num_attention_heads", file), _count(text, "hidden_size", file)
    kv_heads = _count(text, "num_key_value_heads", file) if text.get("num_key_value_heads") else heads
    if heads % kv_heads:
        raise ModelError(f"{file} gives {heads} heads and {kv_heads} KV heads; wanted as many heads for each KV head")
    if not text.get("head_dim") and hidden % heads:
        raise ModelError(f"{file} gives hidden_size={hidden} for {heads} heads; wanted a multiple, or a head_dim")
    return Geometry(
        name=name,
        layers=_count(text, "num_hidden_layers", file),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_count(text, "head_dim", file) if text.get("head_dim") else hidden // heads,
        hidden=hidden,
        intermediate=_count(text, "intermediate_size", file),
        visual_tokens=0,
        gated=_GATED.get(text.get("model_type", ""), True),
        sliding=_sliding_windows(text, file),
    )


def _sliding_windows(text: Mapping[str, Any], file: Path) -> tuple[int | None, ...]:
    """The model's own sliding window in each layer; of the families there are, older files tell only Mistral's."""
    kinds, layers = text.get("layer_types"), _count(text, "num_hidden_layers", file)
    if kinds is None:
        kinds = ["sliding_attention"] * layers if text.get("model_type") == "mistral" else []
    elif len(kinds) != layers:
        raise ModelError(f"{file} gives {len(kinds)} layer_types; wanted one for each of its {layers} layers")
    window = _count(text, "sliding_window", file) if text.get("sliding_window") is not None else None
    found = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return found if any(found) else ()


_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""What transformers takes where a LLaVA-NeXT config names none."""


def _visual_tokens(config: Mapping[str, Any], vision: Mapping[str, Any], file: Path) -> int:
    """Patches of one picture, and the class token where the model keeps it (SigLIP has none), times its pictures."""
    side = _count(vision, "image_size", file)
    squares = (side // _count(vision, "patch_size", file)) ** 2
    keeps_all = config.get("vision_feature_select_strategy") == "full"
    one = squares + (keeps_all and "siglip" not in str(vision.get("model_type")))
    if config.get("model_type") != "llava_next":
        return one
    pinpoints = config.get("image_grid_pinpoints") or _PINPOINTS
    try:
        return one * most_pictures(pinpoints, side)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{file} gives image_grid_pinpoints={pinpoints!r:.80}; wanted pairs of height and width in pixels"
        ) from error


def _part(config: Any, key: str, defaults: Mapping[str, Mapping[str, Any]], file: Path) -> dict[str, Any]:
    part = config.get(key) if isinstance(config, Mapping) else None
    if not isinstance(part, Mapping):
        known = ", ".join((*_GATED, _QWEN))
        raise ModelError(f"{file} has no {key}; wanted the configuration of a LLaVA model or of {known}")
    return {**defaults.get(part.get("model_type", ""), {}), **part}


def _count(part: Mapping[str, Any], key: str, file: Path) -> int:
    value = part.get(key)
    if type(value) is not int or not 0 < value <= MOST:
        raise ModelError(f"{file} gives {key}={shortened(repr(value), 80)}; wanted a count of at least 1")
    return value
