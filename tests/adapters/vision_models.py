"""Tiny random LLaVA-NeXT and Qwen2.5-VL models in float32, and prompts for them without any processor.

Both: 4 layers, 4 heads over 2 KV heads, a vocabulary of 60. An image is named by its size: in pixels for LLaVA-NeXT
(crops of 16 x 16 pixels, 16 tokens each), in patches for Qwen2.5-VL (2 x 2 patches a token).
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.image_processing_utils import select_best_resolution

IMAGE, VIDEO, PAD, VOCAB, TILE = 4, 3, 0, 60, 16
START, END = 58, 59  # what Qwen2.5-VL has before and after an image
PINPOINTS = [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48], [16, 16]]
Size = tuple[int, int]


def scattered(model):
    """The default initialisation is so small that attention is flat and everything ties."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25 if "proj" in name else 0.5)
    return model.eval()


def tiny_next(attention: str = "eager"):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=TILE, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, pad_token_id=PAD, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_grid_pinpoints=PINPOINTS
    )
    config._attn_implementation = attention
    return scattered(LlavaNextForConditionalGeneration(config))


def tiny_qwen(attention: str = "eager"):
    torch.manual_seed(0)
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 2, "window_size": 8,
        "out_hidden_size": 32, "fullatt_block_indexes": [1],
    }  # fmt: skip
    text = {
        "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": PAD,
        "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START,
        vision_end_token_id=END,
    )  # fmt: skip
    config._attn_implementation = attention
    return scattered(Qwen2_5_VLForConditionalGeneration(config))


@attrs.frozen(eq=False)
class Prompt:
    """``ids`` (1, n), and what the images become: ``visual`` tokens each, and the model's arguments."""

    ids: Tensor
    visual: tuple[int, ...]
    images: dict[str, Tensor]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """All arguments of a forward of this prompt alone."""
        return batch([self], "right")

    @property
    def columns(self) -> list[int]:
        """Where the visual tokens stand."""
        return [p for p in range(self.ids.shape[1]) if self.ids[0, p] == IMAGE]


def ids_of(parts: tuple[int | Size, ...], images: list[list[int]], seed: int) -> Tensor:
    """Token ids (1, n): random words, and what stands for each image."""
    generator, found, placeholders = torch.Generator().manual_seed(seed), [torch.tensor([1])], iter(images)
    for part in parts:
        words = torch.randint(5, START, (part,), generator=generator) if isinstance(part, int) else None
        found.append(torch.tensor(next(placeholders)) if words is None else words)
    return torch.cat(found)[None]


def next_prompt(model, *parts: int | Size, seed: int = 0) -> Prompt:
    """Integers are that many random words, pairs are images of that height and width in pixels."""
    sizes = torch.tensor([part for part in parts if not isinstance(part, int)], dtype=torch.long).view(-1, 2)
    best = [select_best_resolution(size, PINPOINTS) for size in sizes.tolist()]
    tiles = [1 + (height // TILE) * (width // TILE) for height, width in best]
    pixels = torch.zeros(len(tiles), max(tiles, default=0), 3, TILE, TILE)
    for number, count in enumerate(tiles):
        generator = torch.Generator().manual_seed(100 * seed + number)
        pixels[number, :count] = torch.randn(count, 3, TILE, TILE, generator=generator)
    images = {"pixel_values": pixels, "image_sizes": sizes} if tiles else {}
    features = model.get_image_features(**images, return_dict=True).pooler_output if images else []
    visual = [len(found) for found in features]
    return Prompt(ids_of(parts, [[IMAGE] * count for count in visual], seed), tuple(visual), images)


def qwen_prompt(_, *parts: int | Size, seed: int = 0) -> Prompt:
    """Integers are that many random words, pairs are images of that height and width in patches."""
    grids = [(1, *part) for part in parts if not isinstance(part, int)]
    generator = torch.Generator().manual_seed(seed)
    pixels = [torch.randn(height * width, 24, generator=generator) for _, height, width in grids]
    images = {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.tensor(grids)} if grids else {}
    visual = [height * width // 4 for _, height, width in grids]
    return Prompt(ids_of(parts, [[START, *[IMAGE] * count, END] for count in visual], seed), tuple(visual), images)


def batch(prompts: list[Prompt], side: str) -> dict[str, Tensor]:
    """All arguments of a forward of several prompts, padded on one side."""
    width = max(prompt.ids.shape[1] for prompt in prompts)
    ids, mask = torch.full((len(prompts), width), PAD), torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        length = prompt.ids.shape[1]
        span = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, span], mask[row, span] = prompt.ids[0], 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    with_images = [prompt.images for prompt in prompts if prompt.images]
    for name in with_images[0] if with_images else ():
        inputs[name] = _stacked([images[name] for images in with_images])
    if "image_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    return inputs


def _stacked(parts: list[Tensor]) -> Tensor:
    """Pixels with different numbers of tiles are filled up with zeros, as the processor does."""
    if parts[0].ndim == 5:
        most = max(part.shape[1] for part in parts)
        parts = [torch.nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, most - part.shape[1])) for part in parts]
    return torch.cat(parts)


@attrs.frozen
class Family:
    """One model family under test."""

    name: str
    make: object
    prompt: object
    sizes: tuple[Size, ...]


NEXT = Family("llava_next", tiny_next, next_prompt, ((30, 20), (16, 40)))
QWEN = Family("qwen2_5_vl", tiny_qwen, qwen_prompt, ((8, 6), (6, 10)))
