"""Slow query weights for one unpadded prompt, in plain Python, written from the published description.

``kinds`` spells a prompt, one letter per token: s system, i image, t text. ``seen[head][token][visual]`` is the
attention of every token of the prompt. Each rule returns token -> weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Seen = Sequence[Sequence[Sequence[float]]]


def _text(kinds: str) -> list[int]:
    return [token for token, kind in enumerate(kinds) if kind == "t"]


def _even(tokens: Sequence[int]) -> dict[int, float]:
    return {token: 1 / len(tokens) for token in tokens}


def _strength(seen: Seen, token: int) -> float:
    return sum(sum(head[token]) for head in seen)


def last_token(kinds: str, seen: Seen) -> dict[int, float]:
    return {len(kinds) - 1: 1.0}


def last_n_tokens(kinds: str, seen: Seen, n: int = 3) -> dict[int, float]:
    text = _text(kinds)
    return _even(text[-min(n, len(text)) :]) if text else last_token(kinds, seen)


def last_5_tokens(kinds: str, seen: Seen) -> dict[int, float]:
    return last_n_tokens(kinds, seen, n=5)


def text_tokens_only(kinds: str, seen: Seen) -> dict[int, float]:
    text = _text(kinds)
    return _even(text) if text else last_token(kinds, seen)


def weighted_recent(kinds: str, seen: Seen, window: int = 5) -> dict[int, float]:
    text = _text(kinds)
    if not text:
        return last_token(kinds, seen)
    count = min(window, len(text))
    ramp = [0.5 + 0.5 * i / (count - 1) for i in range(count)] if count > 1 else [0.5]
    return {token: weight / sum(ramp) for token, weight in zip(text[-count:], ramp, strict=True)}


def system_and_text(kinds: str, seen: Seen) -> dict[int, float]:
    if not _text(kinds):
        return last_token(kinds, seen)
    return _even([token for token, kind in enumerate(kinds) if kind != "i"])


def attention_weighted(kinds: str, seen: Seen, form: str = "strength") -> dict[int, float]:
    if not _text(kinds):
        return last_token(kinds, seen)
    strengths = {token: _strength(seen, token) for token, kind in enumerate(kinds) if kind != "i"}
    if sum(strengths.values()) == 0:
        return _even(_text(kinds))
    if form == "softmax":
        strengths = {token: math.exp(strength) for token, strength in strengths.items()}
    return {token: strength / sum(strengths.values()) for token, strength in strengths.items()}


def max_attention_token(kinds: str, seen: Seen) -> dict[int, float]:
    text = _text(kinds)
    if not text:
        return last_token(kinds, seen)
    return {max(text, key=lambda token: (_strength(seen, token), token)): 1.0}


def adaptive_by_length(kinds: str, seen: Seen) -> dict[int, float]:
    length = len(_text(kinds))
    if length == 0:
        return last_token(kinds, seen)
    if length <= 3:
        return text_tokens_only(kinds, seen)
    if length <= 10:
        return weighted_recent(kinds, seen, window=min(5, length))
    return attention_weighted(kinds, seen)
