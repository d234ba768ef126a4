"""Muon: momentum whose matrices are made orthogonal before each step (Jordan 2024; step size after Liu 2025)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz coefficients
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For 2-D weights only. Matrices of one shape are updated together."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for weights in by_shape.values():
                self._step_together(weights, **{k: group[k] for k in ("lr", "momentum", "weight_decay")})

    def _step_together(self, weights: list[Tensor], *, lr: float, momentum: float, weight_decay: float) -> None:
        gradients = torch.stack([weight.grad for weight in weights if weight.grad is not None])
        memory = torch.stack([self._memory(weight) for weight in weights]).mul_(momentum).add_(gradients)
        for weight, kept in zip(weights, memory, strict=True):
            self.state[weight]["momentum"].copy_(kept)
        nesterov = gradients + momentum * memory
        updates = orthogonalize(nesterov.to(self.dtype)).to(memory.dtype)
        scale = 0.2 * max(weights[0].shape) ** 0.5  # the size of a typical AdamW step
        for weight, update in zip(weights, updates, strict=True):
            weight.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)

    def _memory(self, weight: Tensor) -> Tensor:
        if "momentum" not in self.state[weight]:
            self.state[weight]["momentum"] = torch.zeros_like(weight)
        return self.state[weight]["momentum"]  # type: ignore[no-any-return]


def orthogonalize(matrices: Tensor) -> Tensor:
    """Move the singular values of (count, rows, columns) matrices close to 1, by Newton-Schulz."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(x.dtype)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result
