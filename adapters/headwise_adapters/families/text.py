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
"""Language models built like Llama; where layers differ in their window, configurations list them."""

UNGATED = Family(gated=False)
"""Language models whose feed-forward blocks have two matrices, and otherwise built like Llama."""

MISTRAL = Family(slides=every_layer)
"""Language models with one sliding window for all layers, if there is one: Mistral and others."""

STARCODER2 = Family(slides=every_layer, gated=False)
"""Language models with one sliding window for all layers, and feed-forward blocks of two matrices."""

QWEN2 = Family(slides=from_max_window_layers)
"""Language models whose first layers see everything, and others a sliding window: Qwen and others."""

QWEN2_MOE = Family(slides=every_other)
"""Qwen2-MoE, of whose first layers every other one has a sliding window."""

COHERE2 = Family(slides=but_every(4, _PATTERN))
"""Language models of which every fourth layer sees everything, and others a sliding window."""

OLMO3 = Family(slides=but_every(4))
"""Olmo 3, of which every fourth layer sees everything, whatever a configuration says of a pattern."""

GEMMA3 = Family(slides=but_every(6, _PATTERN))
"""Gemma 3, of which every sixth layer sees everything, and others a sliding window."""

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
