"""DART with lists, one prompt at a time."""

from __future__ import annotations

import math


def cosine(left, right):
    norms = math.hypot(*left) * math.hypot(*right)
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / norms if norms else 0.0


def longest(keys, count):
    """Tokens with the largest L1 norm of their key, largest first, of equals the first."""
    lengths = [math.fsum(map(abs, key)) for key in keys]
    return sorted(range(len(keys)), key=lambda token: (-lengths[token], token))[:count]


def kept(hidden, keys, words, word_keys, keep, image_pivots=4, text_pivots=4):
    """Tokens that stay, from states and keys of visual tokens and of the text after them."""
    pivots = longest(keys, min(image_pivots, keep))
    directions = [hidden[token] for token in pivots] + [words[token] for token in longest(word_keys, text_pivots)]
    staying = list(pivots)
    for number, direction in enumerate(directions):
        share = math.ceil((keep - len(staying)) / (len(directions) - number))  # of what is left, equally
        candidates = [token for token in range(len(hidden)) if token not in staying]
        candidates.sort(key=lambda token: (cosine(hidden[token], direction), token))
        staying += candidates[:share]
    return sorted(staying)
