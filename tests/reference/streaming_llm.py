"""StreamingLLM written from the paper (Xiao et al. 2023), slowly: keys are cached before rotary embeddings.

One token at a time. A query at step t meets what is cached and itself; keys get the positions 0, 1, 2, ... that they
have within the cache, and the query the position after the last of them. Afterwards the first ``sinks`` and the last
``recent`` entries stay. Works on the weights alone: no attention, cache or rotary code of transformers or headwise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def turned(states: Tensor, positions: Tensor, base: float, size: int) -> Tensor:
    """Rotary embeddings on the first ``size`` numbers of states (..., n, d): pairs are (j, j + size / 2)."""
    out = states.clone()
    for j in range(size // 2):
        angle = positions.double() * base ** (-2 * j / size)
        cos, sin = angle.cos().to(states), angle.sin().to(states)
        first, second = states[..., j], states[..., j + size // 2]
        out[..., j] = first * cos - second * sin
        out[..., j + size // 2] = second * cos + first * sin
    return out


class Stream:
    """A model read token by token; ``recent`` cached entries beside ``sinks``, the same for every head."""

    def __init__(self, model, sinks: int, recent: int) -> None:
        self.model, self.sinks, self.recent = model, sinks, recent
        self.keys: dict[int, Tensor] = {}  # layer -> (heads, n, d), before rotary embeddings
        self.values: dict[int, Tensor] = {}

    def read(self, ids: Tensor) -> Tensor:
        """Logits (n, vocabulary) of ids (n,)."""
        step = self._neox if self.model.config.model_type == "gpt_neox" else self._llama
        return torch.stack([step(token) for token in ids])

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, base: float, size: int) -> Tensor:
        """query (heads, d); key, value (kv_heads, d): (heads * d,)."""
        if layer in self.keys:
            keys = torch.cat([self.keys[layer], key[:, None]], dim=1)
            values = torch.cat([self.values[layer], value[:, None]], dim=1)
        else:
            keys, values = key[:, None], value[:, None]
        count, shared = keys.shape[1], query.shape[0] // key.shape[0]
        placed = turned(keys, torch.arange(count), base, size)
        asked = turned(query[:, None], torch.tensor([count - 1]), base, size)
        heads = []
        for head in range(query.shape[0]):
            weights = (asked[head] @ placed[head // shared].T / query.shape[1] ** 0.5).softmax(dim=-1)
            heads.append((weights @ values[head // shared])[0])
        if count > self.sinks + self.recent:
            stay = [*range(self.sinks), *range(count - self.recent, count)]
            keys, values = keys[:, stay], values[:, stay]
        self.keys[layer], self.values[layer] = keys, values
        return torch.cat(heads)

    def _llama(self, token: Tensor) -> Tensor:
        config, inner = self.model.config, self.model.model
        base, size = config.rope_parameters["rope_theta"], config.hidden_size // config.num_attention_heads
        x = inner.embed_tokens.weight[token]
        for number, layer in enumerate(inner.layers):
            attention, normed = layer.self_attn, layer.input_layernorm(x)
            q, k, v = (
                (p.weight @ normed).view(-1, size) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            x = x + attention.o_proj.weight @ self._attend(number, q, k, v, base, size)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.lm_head(inner.norm(x))

    def _neox(self, token: Tensor) -> Tensor:
        config, inner = self.model.config, self.model.gpt_neox
        size = config.hidden_size // config.num_attention_heads
        rotary = int(size * config.rope_parameters["partial_rotary_factor"])
        x = inner.embed_in.weight[token]
        for number, layer in enumerate(inner.layers):
            fused = layer.attention.query_key_value(layer.input_layernorm(x)).view(-1, 3, size)
            q, k, v = fused.unbind(dim=1)
            mixed = self._attend(number, q, k, v, config.rope_parameters["rope_theta"], rotary)
            attended, fed = layer.attention.dense(mixed), layer.mlp(layer.post_attention_layernorm(x))
            x = x + attended + fed
        return self.model.get_output_embeddings()(inner.final_layer_norm(x))
