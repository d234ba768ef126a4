"""A tiny random LLaVA-1.5 as its authors would save it: config.json, tensors by their names, a Llama tokenizer.

Nothing here knows headwise. The vision tower's heads are 64 wide, as those of OpenAI's CLIP are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 32, 48, 3, 4, 2
VISION, VISION_INNER, VISION_LAYERS, SIDE, PATCH = 128, 96, 2, 24, 6
VISUAL = (SIDE // PATCH) ** 2
TOWER = "model.vision_tower.vision_tower.vision_model."

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = [*"▁ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.,:?'"]
WORDS = ["▁USER", "▁ASSISTANT", "▁▁", "▁What", "▁the", "▁a", "▁is", "▁in", "What", "the", "USER", "color"]


def merges() -> list[tuple[str, str]]:
    """Pairs that grow each word from its front, letter by letter."""
    pairs = [(word[:end], word[end]) for word in WORDS for end in range(1, len(word))]
    return list(dict.fromkeys(pairs))


VOCABULARY = list(dict.fromkeys([*SPECIAL, *BYTES, *LETTERS, *(left + right for left, right in merges())]))
IMAGE, PAD = len(VOCABULARY), len(VOCABULARY) + 1
GROWN = -(-(len(VOCABULARY) + 2) // 64) * 64


def config(**changes: Any) -> dict[str, Any]:
    """``config.json`` of the checkpoint; a change to None takes a key away."""
    told = {
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": 512, "max_length": 512, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "vocab_size": len(VOCABULARY), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "torch_dtype": "float16", "transformers_version": "4.31.0", "tie_word_embeddings": False, "use_cache": True,
        "image_aspect_ratio": "pad", "mm_hidden_size": VISION, "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False, "mm_use_im_start_end": False, "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2, "mm_vision_tower": "openai/clip-vit-tiny-patch6-24", "use_mm_proj": True,
    } | changes  # fmt: skip
    return {key: value for key, value in told.items() if value is not None or key == "rope_scaling"}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint, its vision tower included, buffers that were stored once as well."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(VOCABULARY), HIDDEN), "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (len(VOCABULARY), HIDDEN), "model.mm_projector.0.weight": (HIDDEN, VISION),
        "model.mm_projector.0.bias": (HIDDEN,), "model.mm_projector.2.weight": (HIDDEN, HIDDEN),
        "model.mm_projector.2.bias": (HIDDEN,), f"{TOWER}embeddings.class_embedding": (VISION,),
        f"{TOWER}embeddings.patch_embedding.weight": (VISION, 3, PATCH, PATCH),
        f"{TOWER}embeddings.position_embedding.weight": (VISUAL + 1, VISION),
        f"{TOWER}embeddings.position_ids": (1, VISUAL + 1),
    }  # fmt: skip
    for norm in ("pre_layrnorm", "post_layernorm"):
        found |= {f"{TOWER}{norm}.weight": (VISION,), f"{TOWER}{norm}.bias": (VISION,)}
    kv = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        own = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (kv, HIDDEN),
               "self_attn.v_proj": (kv, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
               "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
               "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}  # fmt: skip
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
        found[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = (HIDDEN // HEADS // 2,)
    for layer in range(VISION_LAYERS):
        own = {f"self_attn.{name}_proj": (VISION, VISION) for name in ("q", "k", "v", "out")}
        own |= {"mlp.fc1": (VISION_INNER, VISION), "mlp.fc2": (VISION, VISION_INNER),
                "layer_norm1": (VISION,), "layer_norm2": (VISION,)}  # fmt: skip
        for name, shape in own.items():
            found |= {f"{TOWER}encoder.layers.{layer}.{name}.weight": shape,
                      f"{TOWER}encoder.layers.{layer}.{name}.bias": shape[:1]}  # fmt: skip
    return found


def tensors(dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Random weights, so large that attention is far from flat; norms near one."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes().items():
        drawn = torch.randn(shape, generator=generator) * (0.2 if len(shape) > 1 else 0.1)
        is_norm = "norm" in name and name.endswith("weight")
        found[name] = (drawn + is_norm).to(dtype)
    return found


def write_tokenizer(folder: Path) -> None:
    """A Llama tokenizer as LLaVA-1.5 configures it: no prefix behind </s>, bytes for what has no token."""
    backend = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(VOCABULARY)},
            merges=merges(),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(SPECIAL)
    backend.save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder)


def write_tokenizer_config(folder: Path, **changes: Any) -> None:
    told = {"add_bos_token": True, "add_eos_token": False, "legacy": False, "tokenizer_class": "LlamaTokenizer",
            "model_max_length": 2048, "padding_side": "right", "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "pad_token": None}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(told | changes), encoding="utf-8")


def write_weights(folder: Path, stored: dict[str, Tensor], kind: str = "safetensors", parts: int = 2) -> None:
    """In ``parts`` files with an index, or in one without."""
    ending = {"safetensors": "safetensors", "bin": "bin"}[kind]
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    names, weight_map = list(stored), {}
    for part in range(parts):
        file = f"{stem}-{part + 1:05}-of-{parts:05}.{ending}" if parts > 1 else f"{stem}.{ending}"
        chosen = {name: stored[name] for name in names[part::parts]}
        weight_map |= dict.fromkeys(chosen, file)
        save_file(chosen, folder / file) if kind == "safetensors" else torch.save(chosen, folder / file)
    if parts > 1:
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write(folder: Path, stored: dict[str, Tensor] | None = None, kind: str = "safetensors", parts: int = 2, **changes):
    """A whole checkpoint; returns its folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    write_weights(folder, tensors() if stored is None else stored, kind, parts)
    write_tokenizer(folder)
    return folder


def write_tower(folder: Path, stored: dict[str, Tensor], kind: str = "safetensors", **preprocessor: Any) -> Path:
    """The vision tower alone, as OpenAI's folder on the hub: a CLIP model with other tensors beside it."""
    folder.mkdir(parents=True)
    part = {"hidden_size": VISION, "intermediate_size": VISION_INNER, "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": part}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": SIDE, "crop_size": SIDE} | preprocessor))
    own = {name.removeprefix(TOWER): tensor for name, tensor in stored.items() if name.startswith(TOWER)}
    held = {f"vision_model.{name}": tensor for name, tensor in own.items()}
    write_weights(folder, {**held, "logit_scale": torch.zeros(()), "visual_projection.weight": torch.eye(3)}, kind, 1)
    return folder


def without_tower(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in stored.items() if not name.startswith(TOWER)}


def twin(stored: dict[str, Tensor], layer: int = -2, strategy: str = "default") -> LlavaForConditionalGeneration:
    """The Hugging Face model of the same tensors, put together by hand."""
    vision = CLIPVisionConfig(
        hidden_size=VISION, intermediate_size=VISION_INNER, num_hidden_layers=VISION_LAYERS, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=GROWN, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=512, rms_norm_eps=1e-5,
        bos_token_id=1, eos_token_id=2, pad_token_id=PAD,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=VISUAL,
        vision_feature_layer=layer, vision_feature_select_strategy=strategy,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    own = {
        _twins_name(name): tensor.float() for name, tensor in stored.items() if not name.endswith(("inv_freq", "ids"))
    }
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        mean = own[name].mean(dim=0, keepdim=True).half().float()
        own[name] = torch.cat([own[name], *[mean] * (GROWN - len(own[name]))])
    model.load_state_dict(own, strict=True)
    return model.eval()


def _twins_name(name: str) -> str:
    for theirs, ours in ((TOWER, "model.vision_tower."), ("mm_projector.0", "multi_modal_projector.linear_1"),
                         ("mm_projector.2", "multi_modal_projector.linear_2")):  # fmt: skip
        if theirs in name:
            return name.replace(theirs, ours)
    return name.replace("model.", "model.language_model.")
