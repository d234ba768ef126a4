"""Tiny models of our families for transformers' own modelling tests; copied beside those tests, which it imports."""

from __future__ import annotations

import unittest

import torch
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from transformers import (
    CLIPVisionConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TEXT = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
IMAGE, BATCH = 4, 3


class Words:
    """Inputs of a language model."""

    batch_size, seq_length, is_training = BATCH, 7, True
    num_hidden_layers, num_attention_heads, hidden_size, vocab_size = 2, 4, 32, 99

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self):
        return self.parent.config_of()

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([BATCH, self.seq_length], 90) + 5
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Pictures(Words):
    """Inputs of a vision-language model: one image each."""

    seq_length, image_size, patch_size, num_channels = 23, 16, 4, 3
    vision_config, text_config = VISION, TEXT

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        inputs["input_ids"][:, 2:18] = IMAGE
        return config, {**inputs, "pixel_values": floats_tensor([BATCH, 3, 16, 16])}


def case(name: str, model, config, pictures: bool = False) -> type:
    """A test case of transformers' own tests for one model class."""

    def set_up(self) -> None:
        self.model_tester = (Pictures if pictures else Words)(self)

    body = {"all_model_classes": (model,), "setUp": set_up, "config_of": staticmethod(config), "__module__": __name__,
            "_is_composite": pictures}  # fmt: skip
    return type(name, (ModelTesterMixin, unittest.TestCase), body)


def llava() -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE,
        image_seq_length=16,
    )  # fmt: skip


_NEOX = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
GPTNeoX = case("GPTNeoX", GPTNeoXForCausalLM, lambda: GPTNeoXConfig(**_NEOX))
Llama = case("Llama", LlamaForCausalLM, lambda: LlamaConfig(**TEXT))
Mistral = case("Mistral", MistralForCausalLM, lambda: MistralConfig(**TEXT, sliding_window=None))
Qwen2 = case("Qwen2", Qwen2ForCausalLM, lambda: Qwen2Config(**TEXT))
Qwen3 = case("Qwen3", Qwen3ForCausalLM, lambda: Qwen3Config(**TEXT, head_dim=8))
Llava = case("Llava", LlavaForConditionalGeneration, llava, pictures=True)
