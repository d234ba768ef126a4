"""Ends of autograd graphs at what a cache remembers: a gradient that arrives there is refused instead of lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from headwise.errors import ModelError


class _End(torch.autograd.Function):
    """Hands on states that have no graph. ``wants`` requires a gradient, so that autograd calls ``backward`` here."""

    @staticmethod
    def forward(_: FunctionCtx, states: Tensor, wants: Tensor) -> Tensor:
        return states.view_as(states)

    @staticmethod
    def backward(_: FunctionCtx, *given: Tensor) -> NoReturn:
        """Raises ModelError: the stock model would go on into earlier forwards, of which no graph is kept."""
        raise ModelError(
            "gradients do not flow back through what a cache that evicts holds of earlier forwards; read the text in"
            " one forward, and under torch.no_grad() what is no part of the training"
        )


def ended(states: Tensor) -> Tensor:
    """The same states (any shape); a backward pass that reaches them raises ModelError."""
    end: Callable[[Tensor, Tensor], Tensor] = _End.apply
    return end(states, torch.zeros((), device=states.device, requires_grad=True))
