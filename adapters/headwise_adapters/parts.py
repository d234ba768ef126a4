"""Where a model family keeps its decoder layers, attention modules and counts. The only file that knows their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from torch import nn

from headwise.errors import ModelError
from headwise.geometry import Geometry
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


def text_geometry(config: Any, name: str, there: int, visual_tokens: int = 0, *, gated: bool = True) -> Geometry:
    """Geometry of a decoder's config; grouped-query attention where it names ``num_key_value_heads``.

    ``there``: the layers that the model has, which runs as many of them as its config says. Raises ModelError where
    those are fewer, as after somebody cut some off: a budget would be planned for layers that never run.
    """
    if there < config.num_hidden_layers:
        raise ModelError(
            f"{name} has {there} layers, and its config says {config.num_hidden_layers}; set the config's"
            f" num_hidden_layers to {there}"
        )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Geometry(
        name=name,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=head_dim,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        visual_tokens=visual_tokens,
        gated=gated,
        sliding=_sliding_windows(config),
    )


def _sliding_windows(config: Any) -> tuple[int | None, ...]:
    """The model's own sliding window in each layer, empty where attention is full everywhere."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    found = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return found if any(found) else ()


def patches(config: Any) -> int:
    """Visual tokens of one image, from a vision config with a square image and square patches."""
    side = config.image_size // config.patch_size
    if side < 1:
        raise ModelError(f"an image of {config.image_size} px holds no patch of {config.patch_size} px")
    return int(side * side)
