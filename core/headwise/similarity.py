"""Numbers exact enough to tell like from unlike: cosines of tokens, and values that differ by little."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_DIGITS = 14  # of these float64 is sure after some thousand products, so equal cosines tie
_FACTOR = 0x9E3779B97F4A7C15 - 2**64  # an odd number whose bits have no pattern: the golden ratio


def exact(values: Tensor) -> Tensor:
    """The values in float64, where the device has it, so that what differs is not lost in rounding."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def rounding(values: Tensor) -> float:
    """The share of a value below which a difference is rounding: 2e-12 in float64."""
    return float(torch.finfo(values.dtype).eps ** 0.75)


def cosines(states: Tensor, others: Tensor | None = None) -> Tensor:
    """Cosines of all pairs of the tokens (b, n, c), float64 (b, n, n), symmetric; 0 with a token of length 0.

    With ``others`` (b, m, c), of each token with each of those alone: (b, n, m).

    Tokens that are equal in every number have the very same cosines, 1 with each other, so that a rule for equals
    applies to them, and so have pairs whose cosines agree to 14 digits. (On devices without float64, float32 as it
    comes.)
    """
    unit = normalize(exact(states), dim=-1)
    rows = columns = _first_of_equals(states)
    if others is None:
        found = unit @ unit.mT
        found = _rounded((found + found.mT) / 2)
        found.diagonal(dim1=1, dim2=2).round_()  # of unit vectors: 1, or 0 where there is no direction
    else:
        found = _rounded(unit @ normalize(exact(others), dim=-1).mT)
        columns = _first_of_equals(others)
    return _of_first(_of_first(found, rows).mT, columns).mT


def _of_first(found: Tensor, first: Tensor | None) -> Tensor:
    """Each row of (b, n, m) replaced by that of the first token that equals its own."""
    return found if first is None else found.gather(1, first.unsqueeze(-1).expand_as(found))


def _rounded(values: Tensor) -> Tensor:
    return values.round(decimals=_DIGITS) if values.dtype == torch.float64 else values


def _first_of_equals(states: Tensor) -> Tensor | None:
    """The first token that each one equals in every number, int64 (b, n); None where no token equals another.

    Equal tokens have the same hash, whose sums are of whole numbers and so exact; what the hash finds is compared.
    """
    numbers = exact(states) + 0.0  # turns -0 into 0: they are equal, and their bits are not
    bits = numbers.contiguous().view(torch.int32 if numbers.dtype == torch.float32 else torch.int64).long()
    places = torch.arange(1, 2 * bits.shape[-1], 2, device=bits.device) * _FACTOR
    hashes, order = ((bits ^ (bits >> 29)) * places).sum(dim=-1).sort(dim=-1, stable=True)
    repeats = torch.zeros_like(hashes, dtype=torch.bool)
    repeats[:, 1:] = hashes[:, 1:] == hashes[:, :-1]
    if not repeats.any():
        return None
    here = torch.arange(hashes.shape[-1], device=hashes.device).expand_as(hashes)
    group = torch.where(repeats, 0, here).cummax(dim=-1).values  # where the group of each token begins
    first = torch.empty_like(order).scatter_(1, order, order.gather(1, group))
    same = (states.gather(1, first.unsqueeze(-1).expand_as(states)) == states).all(dim=-1)
    first = torch.where(same, first, here)
    return None if torch.equal(first, here) else first
