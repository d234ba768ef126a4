"""The weights of LLaVA-1.5 in the layout of its authors, as transformers' own LLaVA has them.

Tensors are renamed and nothing in them changes. The vocabulary grows by <image> and <pad>, and to a multiple of 64, by
rows that are the mean of all others; ``generate`` never yields one of the new ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.errors import ModelError
from headwise_adapters.checkpoints.original_config import STRATEGIES
from headwise_adapters.checkpoints.original_processor import IMAGE, picture_processor, processor_of, tokenizer_of
from headwise_adapters.checkpoints.original_tower import COMPUTED, Tower, tower_of
from headwise_adapters.checkpoints.shards import shards, tensors

if TYPE_CHECKING:
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedModel,
        PreTrainedTokenizerFast,
        ProcessorMixin,
    )

MULTIPLE = 64  # of which the vocabulary's size is made, as in the Hugging Face form

_TOWER = "model.vision_tower."
_NAMES = {
    "model.vision_tower.vision_tower.vision_model.": _TOWER,
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.layers.": "model.language_model.layers.",
    "model.norm.": "model.language_model.norm.",
    "lm_head.": "lm_head.",
}
"""How the names of tensors begin in the original layout, and in transformers."""

_VOCABULARY = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_COUNTS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_TEXT = (*_COUNTS[1:], "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings",
         "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "initializer_range")  # fmt: skip
_FILES = ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
          "added_tokens.json")  # fmt: skip

_READABLE: dict[str, tuple[object, ...]] = {
    "model_type": ("llava", "llava_llama"),
    "mm_projector_type": ("mlp2x_gelu",),
    "image_aspect_ratio": ("pad", "square", None),
    "mm_vision_select_feature": ("patch", "cls_patch", None),
    "mm_use_im_start_end": (False, None),
    "s2": (False, None),
}
"""Values of a configuration that the Hugging Face form of LLaVA-1.5 can express; None where the key is missing."""


def load_original(
    folder: Path, dtype: torch.dtype, attention: str
) -> tuple[PreTrainedModel, ProcessorMixin, list[Path]]:
    """A ``LlavaForConditionalGeneration``, its processor, and the files they were read from.

    Raises ModelError where the checkpoint lacks something or is of a kind that the Hugging Face form of LLaVA-1.5
    cannot express. Weights are read from safetensors or, as tensors only, from PyTorch's files.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _check(config)
    state = _renamed(tensors(folder))
    held = {name.removeprefix(_TOWER): tensor for name, tensor in state.items() if name.startswith(_TOWER)}
    tower = tower_of(config, folder, held)
    state |= {f"{_TOWER}{name}": tensor for name, tensor in tower.tensors.items()}
    tokenizer = tokenizer_of(folder)
    size = _grow(state, config["vocab_size"], tokenizer)
    wanted = _configuration(config, tower, tokenizer, size)
    model = _model(wanted, state, dtype, attention)
    added = {wanted.image_token_id, tokenizer.pad_token_id, *range(config["vocab_size"], size)}
    model.generation_config.suppress_tokens = sorted(added)
    model.config.name_or_path = str(folder)
    pictures = picture_processor(tower.config.image_size, config.get("image_aspect_ratio") == "pad", tower.folder)
    processor = processor_of(tokenizer, pictures, wanted)
    own = [path for name in _FILES if (path := folder / name).is_file()]
    return model, processor, [*own, *shards(folder), *tower.files]


def _check(config: Mapping[str, object]) -> None:
    """Raise ModelError for the first thing that stands in the way of opening a checkpoint of this configuration."""
    for key, readable in _READABLE.items():
        if config.get(key) not in readable:
            known = " or ".join(str(value) for value in readable if value is not None)
            raise ModelError(
                f"config.json gives {key}={config.get(key)!r}, and of original checkpoints only LLaVA-1.5's {known}"
                " is opened; take the model in its Hugging Face form"
            )
    for key in (*_COUNTS, "mm_vision_select_layer"):
        if not isinstance(config.get(key), int):
            raise ModelError(f"config.json gives {key}={config.get(key)!r}; wanted a whole number")


def _renamed(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under their names in transformers; raises ModelError for one that LLaVA-1.5 does not have."""
    found = {}
    for name, tensor in stored.items():
        begins = next((theirs for theirs in _NAMES if name.startswith(theirs)), None)
        if begins is None:
            raise ModelError(f"the checkpoint holds {name}, and LLaVA-1.5 has nothing of that name")
        if not name.endswith(COMPUTED):
            found[_NAMES[begins] + name.removeprefix(begins)] = tensor
    return found


def _original(name: str) -> str:
    """The name in the original layout of a tensor in transformers."""
    theirs, ours = next(pair for pair in _NAMES.items() if name.startswith(pair[1]))
    return theirs + name.removeprefix(ours)


def _grow(state: dict[str, Tensor], size: int, tokenizer: PreTrainedTokenizerFast) -> int:
    """Give a vocabulary of ``size`` room for <image> and <pad>; returns its new size."""
    known = len(tokenizer) - 2
    if known > size:
        raise ModelError(f"its tokenizer knows {known} tokens and its config.json {size}; they are of different models")
    grown = -(-max(size, len(tokenizer)) // MULTIPLE) * MULTIPLE
    for name in _VOCABULARY:
        rows = state.get(name)
        if rows is None:
            continue  # told with everything else that is lacking
        if len(rows) != size:
            raise ModelError(f"{_original(name)} has {len(rows)} rows and config.json gives vocab_size={size}")
        mean = rows.mean(dim=0, keepdim=True, dtype=torch.float32).to(rows.dtype)
        state[name] = torch.cat([rows, mean.expand(grown - size, -1)])
    return grown


def _configuration(
    config: Mapping[str, object], tower: Tower, tokenizer: PreTrainedTokenizerFast, size: int
) -> LlavaConfig:
    """The model's configuration in transformers."""
    from transformers import LlamaConfig, LlavaConfig

    text = LlamaConfig(
        **{key: config[key] for key in _TEXT if config.get(key) is not None},
        vocab_size=size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    strategy = STRATEGIES[str(config.get("mm_vision_select_feature") or "patch")]
    patches = (tower.config.image_size // tower.config.patch_size) ** 2
    return LlavaConfig(
        text_config=text,
        vision_config=tower.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=patches + (strategy == "full"),
        vision_feature_layer=config["mm_vision_select_layer"],
        vision_feature_select_strategy=strategy,
        projector_hidden_act="gelu",
    )


def _model(
    config: LlavaConfig, state: Mapping[str, Tensor], dtype: torch.dtype, attention: str
) -> LlavaForConditionalGeneration:
    """The model of a configuration and its tensors, which must be all it has, and of its shapes."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        wanted = LlavaForConditionalGeneration(config).state_dict()
    lacking = [_original(name) for name in wanted if name not in state]
    if lacking:
        raise ModelError(f"the weights lack {len(lacking)} of the model's tensors, such as {lacking[0]}")
    for name, tensor in state.items():
        if name not in wanted:
            raise ModelError(f"the checkpoint holds {_original(name)}, which its config.json leaves no place for")
        if tensor.shape != wanted[name].shape:
            shapes = " and ".join(str(tuple(shape)) for shape in (tensor.shape, wanted[name].shape))
            raise ModelError(f"{_original(name)} is stored and configured in different shapes: {shapes}")
    return LlavaForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=dict(state), dtype=dtype, attn_implementation=attention
    )
