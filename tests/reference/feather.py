"""FEATHER from the paper and its code's schedule, with lists and loops."""

from __future__ import annotations

from collections.abc import Sequence


def counts(share: float, uniform: float, visual: int) -> tuple[float, float]:
    """Tokens after both stages, unrounded, where ``share`` is kept by score and ``uniform`` as cover."""
    by_chance = share * uniform  # of the cover, those that are among the best anyway
    first = (share + uniform - by_chance) * visual
    return first, share * share * first


def cover(count: int, visual: int) -> list[int]:
    """The token in the middle of each of ``count`` equal parts."""
    return [int((part + 0.5) * visual / count + 1e-9) for part in range(count)]


def first_stage(scores: Sequence[float], keep: int, uniform: float) -> list[int]:
    """Places kept: the cover, then the best of the others one by one, the lower of equals."""
    kept = cover(min(keep, round(uniform * len(scores))), len(scores))
    while len(kept) < keep:
        best = None
        for place, score in enumerate(scores):
            if place not in kept and (best is None or score > scores[best]):
                best = place
        kept.append(best)
    return sorted(kept)


def second_stage(scores: Sequence[float], keep: int) -> list[int]:
    """Places kept: the best one by one."""
    return first_stage(scores, keep, 0.0)
