"""Families of language models whose layers are ``model.layers[i].self_attn``; an entry point names the one that fits.

What differs between them, beside their attention (which is judged when attaching), is the feed-forward block, and which
layers have a sliding window where a configuration does not list them.
"""

from __future__ import annotations

from headwise.model_config import ModelConfig
from headwise_adapters.families.family import Family, Slides


def every_layer(_: ModelConfig, layers: int) -> list[bool]:
    """All have the window."""
    return [True] * layers


def from_max_window_layers(config: ModelConfig, layers: int) -> list[bool]:
    """The first ``max_window_layers`` see everything."""
    first = config.count("max_window_layers", least=0)
    return [layer >= first for layer in range(layers)]


def but_every(nth: int, key: str = "") -> Slides:
    """Every ``nth`` layer sees everything; another number may stand in the configuration under ``key``."""

    def slides(config: ModelConfig, layers: int) -> list[bool]:
        step = config.count(key) if key and config.get(key) is not None else nth
        return [(layer + 1) % step != 0 for layer in range(layers)]

    return slides


def every_other(config: ModelConfig, layers: int) -> list[bool]:
    """Of the first ``max_window_layers``, the first, third, fifth and so on have the window."""
    last = config.count("max_window_layers", least=0)
    return [layer % 2 == 0 and layer < last for layer in range(layers)]


_PATTERN = "sliding_window_pattern"

LLAMA = Family(
    shapes={
        "smollm2-135m": {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
                         "hidden_size": 576, "intermediate_size": 1536},
        "llama-3.1-8b": {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                         "hidden_size": 4096, "intermediate_size": 14336},
    }
)  # fmt: skip
"""Gated feed-forward blocks; configurations list the kinds of layers, where there are several."""

UNGATED = Family(gated=False)
"""Feed-forward blocks of two matrices."""

MISTRAL = Family(slides=every_layer)
"""A window, if there is one, is that of all layers."""

STARCODER2 = Family(slides=every_layer, gated=False)
"""As Mistral, with feed-forward blocks of two matrices."""

QWEN2 = Family(slides=from_max_window_layers)
"""The first layers see everything."""

QWEN2_MOE = Family(slides=every_other)
"""Every other layer of the first has the window."""

COHERE2 = Family(slides=but_every(4, _PATTERN))
"""Every fourth layer sees everything."""

OLMO3 = Family(slides=but_every(4))
"""Every fourth layer sees everything, whatever the configuration says."""

GEMMA3 = Family(slides=but_every(6, _PATTERN))
"""Every sixth layer sees everything."""

PYTHIA = Family(
    stock="GPTNeoXForCausalLM",
    text="gpt_neox",
    attention="attention",
    cache="layer_past",
    gated=False,
    shapes={
        "pythia-2.8b": {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 2560,
                        "intermediate_size": 10240},
        "pythia-70m": {"num_hidden_layers": 6, "num_attention_heads": 8, "hidden_size": 512,
                       "intermediate_size": 2048},
        "demo-pythia": {"num_hidden_layers": 6, "num_attention_heads": 8, "hidden_size": 192, "intermediate_size": 768},
    },
)  # fmt: skip
"""Pythia and other GPT-NeoX models: queries, keys and values from one projection, partial rotary embeddings."""
