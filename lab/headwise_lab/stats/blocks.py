"""Blocks of consecutive tokens: the unit of a test where tokens of one text depend on each other.

An entry that was evicted is missing for many tokens that follow, so their losses rise and fall together, and a test
that takes every token for new evidence calls too many differences one. Therefore the text is cut into blocks of
consecutive tokens, and the mean loss of a block is one unit: only the ends of neighbouring blocks still depend on each
other. Blocks grow with the text, by 2 cube roots of its tokens (20 tokens of 1000): the order in which the block
bootstrap estimates a variance best (Künsch 1989, "The jackknife and the bootstrap for general stationary observations";
Hall, Horowitz and Jing 1995, "On blocking rules for the bootstrap with dependent data").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping


def block_length(tokens: int) -> int:
    """How many consecutive tokens make a block in a text of so many."""
    return max(1, round(2 * math.cbrt(tokens)))


def in_blocks(losses: Mapping[str, float]) -> dict[str, float]:
    """Token -> value, tokens named by their position, as block -> value; the mean over blocks is that over tokens.

    Blocks are as equal as whole tokens allow. The value of one is the mean over all tokens, and what its own tokens lie
    beside that in sum, divided by the mean number of tokens in a block: of equal blocks that is the mean of each.
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
