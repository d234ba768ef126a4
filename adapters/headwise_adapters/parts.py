"""The parts of a loaded model that pruning and eviction touch, as its family finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from torch import nn

from headwise_adapters.patching import uncompiled
from headwise_adapters.vision.images import Pictures, Tower

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@attrs.frozen(eq=False, kw_only=True)
class TextParts:
    """The parts of a language model that pruning and eviction touch.

    ``text`` runs the decoder ``layers``, each with an ``attention`` child; ``cache`` is the keyword under which a layer
    gets the KV cache.
    """

    text: PreTrainedModel = attrs.field(converter=uncompiled)
    layers: nn.ModuleList
    attention: str = "self_attn"
    cache: str = "past_key_values"

    def attention_of(self, layer: int) -> nn.Module:
        """The attention module of one decoder layer."""
        module: nn.Module = uncompiled(getattr(self.layer(layer), self.attention))
        return module

    def layer(self, layer: int) -> nn.Module:
        """One decoder layer, by itself where it is compiled."""
        module: nn.Module = uncompiled(self.layers[layer])
        return module

    def modules(self) -> list[nn.Module]:
        """All that pruning and eviction touch."""
        numbers = range(len(self.layers))
        return [self.text, *map(self.layer, numbers), *map(self.attention_of, numbers)]


@attrs.frozen(eq=False, kw_only=True)
class VisionParts(TextParts):
    """The parts of a vision-language model: ``outer`` receives input ids and pixels, ``tower`` sees the pixels.

    ``head`` is the model that users call, which knows what of the output is read. ``pictures`` tells the images of a
    call of ``outer.get_image_features``. ``sliding``: the model's own sliding window in each layer, None where it has
    none; empty where no layer has one.
    """

    head: PreTrainedModel = attrs.field(converter=uncompiled)
    outer: PreTrainedModel = attrs.field(converter=uncompiled)
    tower: Tower
    image_token: int
    pictures: Pictures
    sliding: tuple[int | None, ...] = ()

    def window(self, layer: int) -> int | None:
        """The model's own sliding window in one layer."""
        return self.sliding[layer] if self.sliding else None
