"""Neighbouring tokens are averaged: the control of every method that merges (average pooling)."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.plan import Evidence, Merged


@attrs.frozen(eq=False)
class Pooling:
    """Before the language model: the picture is cut into as many cells as tokens are kept, and each cell averaged.

    Rows of the picture form bands, as many as give square cells; each band is cut into cells across its columns. Bands
    are equally high and cells of a band equally wide, or differ by one token where that does not come out even: of
    24 x 24 tokens 144 are left by averaging 2 x 2. A cell stands at the token in its middle. Tokens that form no single
    grid are averaged in runs along the reading order. No model is asked.
    """

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads nothing of the model."""
        keep = budget.one_stage(geometry, 0)
        merged = min(keep, geometry.visual_tokens - keep)
        return PruningPlan(geometry, (Stage(0, keep, _pooled, merged=merged, per_image=True),))


def _pooled(evidence: Evidence) -> Merged:
    """The same cells in every row."""
    height, width = evidence.grid or (1, evidence.visual)
    members = one_hot(_cells(height, width, evidence.keep), evidence.keep).T
    weights = members / members.sum(dim=-1, keepdim=True)
    places = _middles(members, width)
    return Merged(places.repeat(evidence.batch, 1), weights.repeat(evidence.batch, 1, 1))


def _cells(height: int, width: int, keep: int) -> Tensor:
    """Which of ``keep`` cells each token of a grid belongs to, int64 (height * width,); none of them is empty."""
    bands = _bands(height, width, keep)
    band = torch.arange(height) * bands // height
    first = band * keep // bands
    cells = (band + 1) * keep // bands - first  # how many cells the band of each row is cut into
    column = torch.arange(width) * cells.unsqueeze(-1) // width
    return (first.unsqueeze(-1) + column).flatten()


def _bands(height: int, width: int, keep: int) -> int:
    """Bands that make cells square, but no more than rows or cells, and enough that no cell is below a column."""
    square = int(math.sqrt(keep * height / width) + 0.5)
    return min(height, keep, max(square, math.ceil(keep / width)))


def _middles(members: Tensor, width: int) -> Tensor:
    """The token in the middle of each cell, of two the lower: int64 (keep,), from members 1 or 0, (keep, v)."""
    token = torch.arange(members.shape[-1])
    row, column = ((members * part).sum(dim=-1) // members.sum(dim=-1) for part in (token // width, token % width))
    return row * width + column
