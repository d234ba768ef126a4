"""The families under test as tiny random models, and prompts of words and images for them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import attrs
import torch
from tests.adapters import decoders
from tests.adapters.conftest import prompt as words_and_images
from tests.adapters.conftest import tiny_llava
from tests.adapters.vision_models import Prompt, ids_of, next_prompt, qwen_prompt, scattered, tiny_next, tiny_qwen
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig, Qwen2Config

WINDOW = 19
"""Of the families whose layers have a sliding window of their own."""

SLIDES = "sliding_attention"
SOME = (None, WINDOW, None, WINDOW)
"""The windows of a family in which some layers have one."""

Parts = tuple[int | str, ...]
"""A prompt: integers are that many random words, "a" and "b" are images of two sizes."""


def llava_on_mistral(attention: str = "eager"):
    """LLaVA whose language model sees no further back than ``WINDOW`` tokens."""
    return _llava_on(MistralConfig, attention, sliding_window=WINDOW)


def llava_on_qwen(attention: str = "eager"):
    """LLaVA some of whose layers see no further back than ``WINDOW`` tokens."""
    kinds = [SLIDES if window else "full_attention" for window in SOME]
    return _llava_on(Qwen2Config, attention, sliding_window=WINDOW, use_sliding_window=True, layer_types=kinds)


def _llava_on(kind, attention: str, **sliding):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    text = kind(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sliding,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, image_seq_length=16)
    config._attn_implementation = attention
    return scattered(LlavaForConditionalGeneration(config))


def llava_prompt(_, *parts, seed: int = 0) -> Prompt:
    count = sum(not isinstance(part, int) for part in parts)
    ids = words_and_images(*(part if isinstance(part, int) else "image" for part in parts), seed=seed)
    pixels = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(100 + seed))
    return Prompt(ids, (16,) * count, {"pixel_values": pixels} if count else {})


def text_prompt(_, *parts, seed: int = 0) -> Prompt:
    return Prompt(ids_of(tuple(part for part in parts if isinstance(part, int)), [], seed), (), {})


@attrs.frozen
class Family:
    """``make`` from an attention implementation to a model, ``prompt`` from a model and parts to a prompt.

    ``sizes`` of the images "a" and "b"; none: a language model. ``sliding``: the model's own window in each layer.
    """

    name: str
    make: Callable[..., torch.nn.Module]
    prompt: Callable[..., Prompt]
    sizes: tuple[object, ...] = ()
    sliding: tuple[int | None, ...] = ()

    @property
    def sees(self) -> bool:
        """Whether it takes images."""
        return bool(self.sizes)

    def of(self, parts: Parts, seed: int) -> Prompt:
        """A prompt; images are dropped from those of language models."""
        named = {"a": 0, "b": 1}
        known = [part for part in parts if self.sees or isinstance(part, int)]
        sized = [part if isinstance(part, int) else self.sizes[named[part]] for part in known]
        return self.prompt(model_of(self.name, "eager", torch.float32), *sized, seed=seed)


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", functools.partial(decoders.tiny, "llama"), text_prompt),
        Family("gpt_neox", functools.partial(decoders.tiny, "neox"), text_prompt),
        Family("qwen3", functools.partial(decoders.tiny, "qwen3"), text_prompt),
        Family("mistral", functools.partial(decoders.tiny, "sliding"), text_prompt, sliding=(WINDOW,) * 3),
        Family("mixed", functools.partial(decoders.tiny, "mixed"), text_prompt, sliding=(None, WINDOW, WINDOW)),
        Family("llava", tiny_llava, llava_prompt, ("image", "image")),
        Family("llava_mistral", llava_on_mistral, llava_prompt, ("image", "image"), (WINDOW,) * 4),
        Family("llava_mixed", llava_on_qwen, llava_prompt, ("image", "image"), SOME),
        Family("llava_next", tiny_next, next_prompt, ((30, 20), (16, 40))),
        Family("qwen2_5_vl", tiny_qwen, qwen_prompt, ((8, 6), (6, 10))),
    )
}


_making = threading.RLock()  # threads that make a model at once would share one random generator


def _once(make):
    """``functools.cache`` for threads: only one of them makes, and the others wait."""
    cached = functools.cache(make)

    @functools.wraps(make)
    def held(*args):
        with _making:
            return cached(*args)

    return held


@_once
def model_of(name: str, attention: str, dtype: torch.dtype):
    """A model whose weights are those of half precision where ``dtype`` is such a type; shared by all tests."""
    model = FAMILIES[name].make(attention).to(dtype)
    model.generation_config.suppress_tokens = [4]  # a random model may say the placeholder of an image
    return model


@_once
def truth_of(name: str, dtype: torch.dtype):
    """The same weights, computed in float32 by eager attention: what the oracle runs."""
    return FAMILIES[name].make("eager").to(dtype).float()
