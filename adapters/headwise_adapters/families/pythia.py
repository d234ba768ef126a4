"""Pythia and other GPT-NeoX models: fused query-key-value projection, partial rotary embeddings, ``layer_past``."""

from __future__ import annotations

from typing import Any

from headwise.errors import ModelError
from headwise_adapters.families.causal_lm import CausalLmAdapter
from headwise_adapters.parts import TextParts


class PythiaAdapter(CausalLmAdapter):
    """Evicts KV entries of a ``GPTNeoXForCausalLM``."""

    def _find(self, model: Any) -> TextParts:
        inner: Any = getattr(model, "gpt_neox", None)
        if not hasattr(inner, "layers"):
            raise ModelError(f"{type(model).__name__} has no gpt_neox.layers; attach to a GPTNeoXForCausalLM")
        return TextParts(text=inner, layers=inner.layers, attention="attention", cache="layer_past")
