"""Arithmetic on attention that several strategies share. Axes: b rows, h heads, v visual tokens."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from headwise.heads import Floats
from headwise.similarity import rounding


def shares(attention: Tensor) -> Tensor:
    """Attention renormalised over the image, in the dtype that it comes in: (b, h, v) -> (b, h, v), each row's sum 1.

    A head that ignores the image counts as even: every token has 1 / v.
    """
    mass, tiny = attention.sum(dim=-1, keepdim=True), torch.finfo(torch.float32).tiny
    return torch.where(mass > tiny, attention / mass.clamp_min(tiny), 1 / attention.shape[-1])


def entropy(shares: Tensor) -> Tensor:
    """Shannon entropy in nats of shares (..., v) that sum to 1: (...), from 0 for a single token to log v for all."""
    found: Tensor = torch.special.entr(shares).sum(dim=-1)
    return found


def head_cosines(shares: Tensor) -> Tensor:
    """Cosines of all pairs of heads of a row, by where they look: (b, h, v) -> (b, h, h)."""
    unit = normalize(shares, dim=-1)
    return torch.einsum("bhv,bgv->bhg", unit, unit)


def scaled(values: Tensor, among: Tensor | None = None, *, slack: float | None = None, unit: float = 0.0) -> Tensor:
    """Values (b, n) brought to 0..1 over each row: the lowest is 0, the highest 1.

    ``among``, bool (b, n), says which values count; the others are 0. A row whose values differ by no more than
    rounding is 0 throughout, since rounding would be blown up to the whole range: rounding is a difference of up to
    ``slack`` (by default that of the dtype) times the largest value, which counts as at least ``unit``.
    """
    counts = torch.ones_like(values, dtype=torch.bool) if among is None else among
    low = values.masked_fill(~counts, float("inf")).amin(dim=-1, keepdim=True)
    high = values.masked_fill(~counts, float("-inf")).amax(dim=-1, keepdim=True)
    largest = torch.maximum(high.abs(), low.abs()).clamp_min(unit)
    flat = high - low <= (rounding(values) if slack is None else slack) * largest
    return torch.where(flat | ~counts, 0.0, (values - low) / (high - low).masked_fill(flat, 1))


def ranking(scores: Tensor) -> Tensor:
    """Places of scores (..., n) from the highest to the lowest, int64 (..., n); of equal scores the lower place first.

    A stable sort, because the order ``topk`` gives equal entries is undefined and differs between devices.
    """
    return scores.sort(dim=-1, descending=True, stable=True).indices


def taken(states: Tensor, index: Tensor, dim: int = 1) -> Tensor:
    """The states (b, ..., n, ...) at the places ``index``, integer (b, m), along ``dim``: (b, ..., m, ...).

    Every other axis is taken whole, so all heads of a row, for example, are taken at the same places.
    """
    shape, whole = [1] * states.ndim, list(states.shape)
    shape[0], shape[dim], whole[dim] = len(index), index.shape[1], index.shape[1]
    return states.gather(dim, index.reshape(shape).expand(whole))


def phi(values: Floats) -> Floats:
    """The distribution function of the standard normal distribution, for an array of any shape."""
    return np.array([math.erfc(-z / math.sqrt(2)) / 2 for z in values.flat]).reshape(values.shape)
