"""Blocks of consecutive tokens: the unit of a test where tokens of one text depend on each other.

An evicted entry is missing for many of the tokens that follow, so their losses rise and fall together. A test that
counts every token as new evidence then finds differences too often. Therefore the text is cut into blocks of
consecutive tokens, and the mean loss of a block is one unit: only the ends of neighbouring blocks still depend on each
other. A block has 2 cube roots of the text's tokens (20 tokens of 1000). With blocks of this order the block bootstrap
estimates a variance best (Künsch 1989, "The jackknife and the bootstrap for general stationary observations"; Hall,
Horowitz and Jing 1995, "On blocking rules for the bootstrap with dependent data").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping


def block_length(tokens: int) -> int:
    """The number of consecutive tokens in a block of a text with ``tokens`` tokens."""
    return max(1, round(2 * math.cbrt(tokens)))


def in_blocks(losses: Mapping[str, float]) -> dict[str, float]:
    """Block -> value, from token -> value, where tokens are named by their position. Both have the same mean.

    Block lengths differ by one token at most. A block's value is the mean over all tokens, plus the sum of its tokens'
    deviations from that mean, divided by the mean block length. Where all blocks are equally long, this is their mean.
    """
    if not losses:
        return {}
    order = sorted(losses, key=lambda token: (len(token), token))
    mean = math.fsum(losses.values()) / len(order)
    count = max(1, round(len(order) / block_length(len(order))))
    ends = [len(order) * number // count for number in range(count + 1)]
    share = count / len(order)
    return {
        f"{order[start]}-{order[end - 1]}": mean + share * math.fsum(losses[token] - mean for token in order[start:end])
        for start, end in itertools.pairwise(ends)
    }
