"""The strategy under test, called the way a run calls it."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import Registry, Strategy


@attrs.frozen(eq=False)
class Subject:
    """A strategy behind the facade of a run that has no other."""

    registry: Registry
    strategy: Strategy
    pipeline: Pipeline

    @classmethod
    def of(cls, registry: Registry, text: str) -> Subject:
        """The strategy that a text names, in a run of its own."""
        strategy = registry.build(text)
        return cls(registry, strategy, Pipeline(Recipe(strategies={strategy.hook: strategy})))

    @property
    def who(self) -> str:
        """The strategy with its options, and whose it is."""
        return f"{self.strategy.hook} strategy {self.strategy.text!r} ({self.strategy.owner})"

    def again(self) -> Subject:
        """The same strategy built anew from its own text."""
        return Subject.of(self.registry, self.strategy.text)

    def answer(self, **arguments: object) -> object:
        """What the strategy returns, before core has checked it; a None is refused already."""
        return self.pipeline.ask(self.strategy.hook, **arguments)


def same(expected: Tensor, found: Tensor, what: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless two tensors agree, infinities and all, relative to the size of the expected values."""
    finite = expected[torch.isfinite(expected)].double().abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    close = torch.allclose(found.double(), expected.double(), rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    assert close, f"{what}: wanted {_short(expected)}, got {_short(found)}"


def devices() -> list[torch.device]:
    """Every kind of device there is here."""
    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def _short(values: Tensor) -> str:
    shown = [f"{float(value):.6g}" for value in values.flatten()[:8]]
    return f"[{', '.join(shown)}{', ...' if values.numel() > len(shown) else ''}]"
