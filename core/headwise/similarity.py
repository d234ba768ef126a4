"""Numbers exact enough to tell like from unlike: cosines of tokens, and values that differ by little."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_PERHAPS_EQUAL = 1 - 1e-6  # pairs above it are looked at number by number
_DIGITS = 14  # as far as float64 carries sums of some thousand products: equal cosines tie, others do not


def exact(values: Tensor) -> Tensor:
    """The values in float64, where the device has it, so that what differs is not lost in rounding."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def rounding(values: Tensor) -> float:
    """The share of a value below which a difference is rounding: 2e-12 in float64."""
    return float(torch.finfo(values.dtype).eps ** 0.75)


def cosines(states: Tensor) -> Tensor:
    """Cosines of all pairs of the tokens (b, n, c), float64 (b, n, n), symmetric; 0 with a token of length 0.

    Tokens that are equal in every number have the very same cosines, 1 with each other, so that a rule for equals
    applies to them, and so have pairs whose cosines agree to 14 digits. (On devices without float64, float32 as it
    comes.)
    """
    unit = normalize(exact(states), dim=-1)
    found = unit @ unit.mT
    found = (found + found.mT) / 2
    if found.dtype == torch.float64:
        found = found.round(decimals=_DIGITS)
    first = _first_of_equals(states, found)
    found.diagonal(dim1=1, dim2=2).round_()  # of unit vectors: 1, or 0 where there is no direction
    if first is None:
        return found
    rows = found.gather(1, first.unsqueeze(-1).expand_as(found))
    return rows.gather(2, first.unsqueeze(1).expand_as(found))


def _first_of_equals(states: Tensor, found: Tensor) -> Tensor | None:
    """The first token that each one equals in every number, int64 (b, n); None where none equals another."""
    row, later, earlier = (found > _PERHAPS_EQUAL).tril(-1).nonzero(as_tuple=True)
    same = (states[row, later] == states[row, earlier]).all(dim=-1)
    if not bool(same.any()):
        return None
    batch, count = states.shape[:2]
    first = torch.arange(count, device=states.device).repeat(batch)
    first.scatter_reduce_(0, row[same] * count + later[same], earlier[same], "amin")
    return first.view(batch, count)
