"""Dense attention of grouped queries over the entries of some KV heads.

Shapes: b rows, g KV heads, r query heads that share each of them, q queries, n entries, d head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped(query: Tensor, kv_heads: int) -> Tensor:
    """Queries (b, heads, q, d) by KV head: (b, kv_heads, r, q, d)."""
    batch, heads, length, size = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads, length, size)


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Queries (b, g, r, n, d) over entries (b, g, n, d) of the same tokens, each seeing itself and those before."""
    shared = query.shape[2] > 1
    out = F.scaled_dot_product_attention(
        query.flatten(1, 2), key, value, is_causal=query.shape[3] > 1, scale=scaling, enable_gqa=shared
    )
    return out.reshape(query.shape)


def masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Queries (b, g, r, q, d) over entries (b, g, n, d); ``mask`` bool (b|1, g|1, q, n), True where visible."""
    if mask is not None and query.shape[2] > 1:
        mask = mask.unsqueeze(2).expand(-1, -1, query.shape[2], -1, -1).flatten(2, 3)
    out = F.scaled_dot_product_attention(query.flatten(2, 3), key, value, attn_mask=mask, scale=scaling)
    return out.reshape(query.shape)


def logits(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Scaled products (b, g, r, q, n) in float32."""
    products = (query * scaling).flatten(2, 3) @ key.transpose(-1, -2)  # far fewer numbers to scale than products
    return products.reshape(*query.shape[:4], key.shape[2]).float()


def weighted(attention: Tensor, value: Tensor) -> Tensor:
    """Attention (b, g, r, q, n) applied to values (b, g, n, d): (b, g, r, q, d)."""
    out = attention.to(value.dtype).flatten(2, 3) @ value
    return out.reshape(*attention.shape[:4], value.shape[3])


def softmax(products: Tensor, mask: Tensor | None) -> Tensor:
    """Attention from products (b, g, r, q, n), used up here; ``mask`` bool (b|1, g|1, q, n), True where visible."""
    if mask is not None:
        products = products.masked_fill_(~mask.unsqueeze(2), float("-inf"))
    return torch.softmax(products, dim=-1)
