"""PyramidDrop in plain Python, written from the published description: counts, and one stage's choice."""

from __future__ import annotations

from collections.abc import Sequence


def counts(visual: int, ratios: Sequence[float]) -> list[int]:
    """Tokens after each stage: shares of the original number, rounded down."""
    return [int(visual * ratio) for ratio in ratios]


def compounded(visual: int, share: float, stages: int) -> list[int]:
    """Tokens after each stage where a share of what is there stays each time, rounded down each time."""
    found = []
    for _ in range(stages):
        visual = int(visual * share)
        found.append(visual)
    return found


def average(visual: int, depth: int, layers: Sequence[int], left: Sequence[int]) -> float:
    """Visual tokens processed per layer, counted layer by layer."""
    total = 0
    for layer in range(depth):
        here = visual
        for start, count in zip(layers, left, strict=True):
            if layer >= start:
                here = count
        total += here
    return total / depth


def kept(scores: Sequence[float], keep: int) -> list[int]:
    """The highest scores, lower positions first where they are equal; ascending."""
    return sorted(sorted(range(len(scores)), key=lambda token: (-scores[token], token))[:keep])
