"""All that a model family supplies, in one record; importing it imports neither torch nor transformers.

A text family says where its decoder is, and how its counts follow from a ``config.json``. A vision-language family says
besides which tokens an image becomes, and how its tower is looked at; what it needs of torch is imported inside.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from headwise.errors import ModelError
from headwise.geometry import Geometry
from headwise.model_config import ModelConfig
from headwise.registry import installed, load
from headwise_adapters.families.class_defaults import class_defaults

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from headwise.adapter import Adapter
    from headwise_adapters.vision.images import Arguments, Picture, Tower

Slides = Callable[[ModelConfig, int], Sequence[bool]]
"""Which of so many layers have the sliding window, where a configuration does not list ``layer_types``."""


@attrs.frozen(eq=False, kw_only=True)
class Family:
    """A family of language models; the defaults are those of Llama and of all that are built like it.

    ``stock`` is what to attach to. ``text``: the path from that model to the module that runs the decoder ``layers``,
    each of which has an ``attention`` module and gets the KV cache as the keyword ``cache``. ``gated``: whether
    feed-forward blocks have three matrices. ``slides``: None where configurations always list ``layer_types``.
    ``shapes``: configurations of published models, by the names that ``headwise plan --shape`` takes. ``adapts``: where
    the class is that is built with a model and this record; it is named, because it needs torch.
    """

    stock: str = "causal language model"
    text: str = "model"
    attention: str = "self_attn"
    cache: str = "past_key_values"
    gated: bool = True
    slides: Slides | None = None
    shapes: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict)
    adapts: str = "headwise_adapters.families.causal_lm:CausalLmAdapter"

    def geometry(self, config: ModelConfig) -> Geometry:
        """Counts of a language model; raises ModelError for those that no model can have.

        Heads share keys and values where the configuration names ``num_key_value_heads``.
        """
        config = completed(config)
        heads, hidden = config.count("num_attention_heads"), config.count("hidden_size")
        kv_heads = config.count("num_key_value_heads") if config.get("num_key_value_heads") else heads
        if heads % kv_heads:
            raise ModelError(
                f"{config.who} gives {heads} heads and {kv_heads} KV heads; wanted as many heads for each KV head"
            )
        if not config.get("head_dim") and hidden % heads:
            raise ModelError(
                f"{config.who} gives hidden_size={hidden} for {heads} heads; wanted a multiple, or a head_dim"
            )
        layers = config.count("num_hidden_layers")
        return Geometry(
            name=config.name,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=config.count("head_dim") if config.get("head_dim") else hidden // heads,
            hidden=hidden,
            intermediate=config.count("intermediate_size"),
            visual_tokens=0,
            gated=self.gated,
            sliding=self._sliding(config, layers),
        )

    def _sliding(self, config: ModelConfig, layers: int) -> tuple[int | None, ...]:
        """The model's own sliding window in each layer, as :class:`headwise.geometry.Geometry` has it."""
        fields = class_defaults(config.model_type)
        known = {key: config.get(key) for key in config.values if fields is None or key in fields}
        kinds = known.get("layer_types")
        if isinstance(kinds, list) and len(kinds) != layers:
            raise ModelError(f"{config.who} gives {len(kinds)} layer_types; wanted one for each of its {layers} layers")
        if known.get("sliding_window") is None or not known.get("use_sliding_window", True):
            return ()
        window = config.count("sliding_window")
        if isinstance(kinds, list):
            slide: Sequence[bool] = [kind == "sliding_attention" for kind in kinds]
        elif self.slides is not None:
            slide = self.slides(config, layers)
        else:
            raise ModelError(
                f"{config.who} gives sliding_window={window} and no layer_types, so which layers have that window is"
                " not known; wanted a configuration saved by a transformers that lists them"
            )
        return tuple(window if has else None for has in slide) if any(slide) else ()

    def adapter(self, model: PreTrainedModel) -> Adapter:
        """What prunes and evicts in a model; raises ModelError for a model that is not of this family."""
        made: Adapter = pkgutil.resolve_name(self.adapts)(model, self)
        return made


@attrs.frozen(eq=False, kw_only=True)
class VisionFamily(Family):
    """A family of vision-language models with a Llama-like language model, named ``name`` in sentences.

    ``eyes``: paths of the vision tower and of what else sees images, such as a projector. ``visual_tokens``: tokens of
    the picture that budgets are given for, from a configuration; other pictures get their share. ``tower``: what looks
    at a model's vision tower. ``pictures``: the images of a call of ``get_image_features``, from the model and the
    bound arguments, in the order of the prompts. ``axes``: what positions count, where it is more than places in the
    text; then nothing may count positions, and survivors keep theirs. ``flat``: the ``model_type`` of the language
    model, in families whose older files have its keys at the top.
    """

    text: str = "model.language_model"
    adapts: str = "headwise_adapters.families.vision_language:VisionLanguageAdapter"
    name: str
    eyes: tuple[str, ...]
    visual_tokens: Callable[[ModelConfig], int]
    tower: Callable[[PreTrainedModel], Tower]
    pictures: Callable[[PreTrainedModel, Arguments], list[Picture]]
    axes: tuple[str, ...] = ()
    flat: str = ""

    def geometry(self, config: ModelConfig) -> Geometry:
        """Counts of the language model, and the tokens of a picture; raises ModelError as for a language model."""
        language = self._language(config)
        visual_tokens = self.visual_tokens(config)
        return attrs.evolve(_of_text(language, self), visual_tokens=visual_tokens)

    def _language(self, config: ModelConfig) -> ModelConfig:
        if self.flat and "text_config" not in config.values:
            return attrs.evolve(config, values={**config.values, "model_type": self.flat})
        return config.part("text_config")


def _of_text(config: ModelConfig, otherwise: Family) -> Geometry:
    """Counts of a language model within another model, by its own family if it has one here."""
    entries = installed("adapter").get(config.model_type, ())
    own = load(entries[0]) if len(entries) == 1 else None
    return Family.geometry(own if type(own) is Family else otherwise, config)


def completed(config: ModelConfig) -> ModelConfig:
    """A configuration with the defaults of its class in transformers for what it does not say."""
    return attrs.evolve(config, values={**(class_defaults(config.model_type) or {}), **config.values})


def config_of(model: PreTrainedModel) -> ModelConfig:
    """The configuration of a loaded transformers model, as it is now."""
    name = model.config.name_or_path or "this model"
    return ModelConfig(values=model.config.to_dict(), name=name, who=name)


def patches(config: ModelConfig) -> int:
    """Patches of one picture, where ``vision_config`` is of a tower with square pictures and square patches.

    Raises ModelError where it is missing, or a picture holds no patch.
    """
    vision = completed(config.part("vision_config"))
    side = vision.count("image_size") // vision.count("patch_size")
    if side < 1:
        raise ModelError(
            f"{vision.who} gives pictures of {vision.get('image_size')} px, which hold no patch of"
            f" {vision.get('patch_size')} px"
        )
    return side * side
