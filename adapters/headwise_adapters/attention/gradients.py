"""Where a graph ends that the stock model would go on with: a gradient that comes there is refused, not lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from headwise.errors import ModelError


class _End(torch.autograd.Function):
    """States without a graph, and something that wants a gradient, so that they are asked for theirs."""

    @staticmethod
    def forward(_: FunctionCtx, states: Tensor, wants: Tensor) -> Tensor:
        return states.view_as(states)

    @staticmethod
    def backward(_: FunctionCtx, *given: Tensor) -> NoReturn:
        raise ModelError(
            "gradients do not flow back through what a cache that evicts holds of earlier forwards; read the text in"
            " one forward, and under torch.no_grad() what is no part of the training"
        )


def ended(states: Tensor) -> Tensor:
    """The same states, which raise ModelError in a backward that reaches them."""
    end: Callable[[Tensor, Tensor], Tensor] = _End.apply
    return end(states, torch.zeros((), device=states.device, requires_grad=True))
