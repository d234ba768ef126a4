"""Tiny random models of the vision-language families as users have them: folders with weights, processor, tokenizer.

They know the words of the demo model's tokenizer. Pictures become 16 tokens in LLaVA, 16 a crop in LLaVA-NeXT, and
one for every 4 x 4 pixels in Qwen2.5-VL.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tests.adapters.vision_models import PINPOINTS, TILE, scattered, tiny_next, tiny_qwen

FAMILIES = ("llava", "llava_next", "qwen2_5_vl")
VOCAB = 80
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"


def write(family: str, folder: Path) -> Path:
    """A folder of that family, as ``save_pretrained`` leaves it."""
    tokenizer, template = _tokenizer()
    made = {"llava": _llava, "llava_next": _next, "qwen2_5_vl": _qwen}[family]
    model, processor = made(tokenizer, template)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer():
    from headwise_lab.demo.llava.tokenizer import build_processor

    processor = build_processor()
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [VISION_START, VISION_END]})
    return processor.tokenizer, processor.chat_template


def _llava(tokenizer, template):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                              image_size=TILE, patch_size=4)  # fmt: skip
    text = LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, pad_token_id=0,
                       bos_token_id=1, eos_token_id=2)  # fmt: skip
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=4))
    images = CLIPImageProcessorPil(size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE})
    told = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return scattered(model), LlavaProcessor(images, tokenizer, chat_template=template, **told)


def _next(tokenizer, template):
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    model = tiny_next("sdpa")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=PINPOINTS
    )
    told = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _resized(model), LlavaNextProcessor(images, tokenizer, chat_template=template, **told)


def _qwen(tokenizer, template):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from headwise_lab.models.processors import without_videos

    model = tiny_qwen("sdpa")
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in (VISION_START, VISION_END))
    model.config.vision_start_token_id, model.config.vision_end_token_id = start, end
    images = Qwen2VLImageProcessorPil(patch_size=2, size={"shortest_edge": 64, "longest_edge": 1600})
    framed = template.replace("<image>", f"{VISION_START}<image>{VISION_END}")
    return _resized(model), without_videos()(images, tokenizer, chat_template=framed)


def _resized(model):
    """With a row of weights for every word, those of new words as large as the others."""
    model.resize_token_embeddings(VOCAB, mean_resizing=False)
    return scattered(model)
