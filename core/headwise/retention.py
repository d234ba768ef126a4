"""Which entries stay, given scores: protection, budgets per head or pooled over a layer, ties. One place, one rule."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.attention_math import ranking
from headwise.eviction import ScorePlan


def retained(scores: Tensor, positions: Tensor, seen: Tensor, plan: ScorePlan, layer: int) -> Tensor:
    """Entries that stay: bool (b, kv_heads, n); what the model's own sliding window hides from all that comes does not.

    ``scores`` (b, kv_heads, n); ``positions`` int64 alike, -1 where empty; ``seen`` int64 (b,): tokens read so far.
    Of equal scores the earlier entry stays.
    """
    sliding = plan.geometry.sliding[layer] if plan.geometry.sliding else None
    filled = positions >= (0 if sliding is None else (seen - sliding + 1).clamp_min(0)[:, None, None])
    protected = (positions < plan.sinks) | (positions >= (seen - plan.recent)[:, None, None])
    scores = scores.float().clamp_min(torch.finfo(torch.float32).min)  # minus infinity marks empty entries alone
    scores = scores.masked_fill(protected, float("inf")).masked_fill(~filled, float("-inf"))
    capacity = seen.new_tensor([int(plan.per_layer(tokens)[layer]) for tokens in seen.tolist()])
    order = ranking(scores)
    rank = order.argsort(dim=-1)
    if not plan.pooled:
        return filled & (rank < capacity[:, None, None])
    counts = _pooled_counts(scores, rank, filled, capacity, plan)
    return filled & (rank < counts.unsqueeze(-1))


def _pooled_counts(scores: Tensor, rank: Tensor, filled: Tensor, capacity: Tensor, plan: ScorePlan) -> Tensor:
    """Entries each head keeps when the heads of a layer compete for one budget: int64 (b, kv_heads).

    The best entries of the layer stay, whichever head they are in, after each head's own best ``floor`` share
    (Feng et al. 2024, Ada-KV).
    """
    batch, heads, entries = scores.shape
    floors = capacity.new_tensor([int(plan.floor * count + 1e-9) for count in capacity.tolist()])
    guaranteed = (rank < floors[:, None, None]) & filled
    pool = scores.masked_fill(guaranteed, float("inf")).reshape(batch, -1)
    order = ranking(pool)
    best = order.argsort(dim=-1) < (capacity * heads).unsqueeze(-1)
    counts = (best.view(batch, heads, entries) & filled).sum(dim=-1)
    needed = torch.isposinf(pool.view(batch, heads, entries)).sum(dim=-1)
    rows = zip(counts.tolist(), needed.tolist(), filled.sum(dim=-1).tolist(), strict=True)
    return torch.tensor([levelled(*row, plan.levels) for row in rows], device=scores.device)


def levelled(counts: list[int], fewest: list[int], most: list[int], levels: int) -> list[int]:
    """``counts`` moved to few different values, at most ``levels`` (2 or more) and one, without changing their sum.

    ``fewest`` and ``most`` bound each count, and their values may stay as further levels. Counts are rounded down to
    a grid; what that frees goes, one step of the grid at a time, to those that lost most, and the rest to one of them.
    """
    if len(set(counts)) <= levels:
        return counts
    low = min(counts)
    step = -(-(max(counts) - low) // (max(2, levels) - 1))
    rounded = [low + (count - low) // step * step for count in counts]
    grid = [max(value, least) for value, least in zip(rounded, fewest, strict=True)]
    spare = sum(counts) - sum(grid)
    losers = sorted(range(len(counts)), key=lambda head: (grid[head] - counts[head], head))
    for head in losers:
        on_grid = grid[head] == rounded[head] < counts[head]  # a step up from a bound would give one more level
        if on_grid and spare >= step and grid[head] + step <= most[head]:
            grid[head] += step
            spare -= step
    for head in losers:
        given = max(0, min(spare, most[head] - grid[head]))
        grid[head] += given
        spare -= given
    return _reclaimed(grid, fewest, spare)


def _reclaimed(counts: list[int], fewest: list[int], spare: int) -> list[int]:
    """Counts cut where bounds from below have given out more than there was (``spare`` < 0)."""
    for head in sorted(range(len(counts)), key=lambda head: -counts[head]):
        taken = max(0, min(-spare, counts[head] - fewest[head]))
        counts[head] -= taken
        spare += taken
    return counts
