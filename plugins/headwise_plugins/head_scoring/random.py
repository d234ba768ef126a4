"""A control: heads chosen by lot, which is what every other strategy has to beat."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from attrs import validators
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import seed as as_seed


@attrs.frozen(eq=False)
class Random:
    """Scores drawn evenly from 0..1, by the image and ``seed``; the same image and seed give the same heads.

    Looks at no attention. Scores belong to head positions, so this is the declared exception from the law that scores
    follow heads when heads are reordered, and that equal heads score equally.
    """

    seed: int = attrs.field(default=0, converter=as_seed, validator=validators.ge(0))

    @hookimpl
    def head_scoring(self, attention: Tensor, seeds: Tensor) -> Tensor:
        """Random scores, each row by its own generator on the CPU, whatever the device and the batch: (b, h)."""
        rows = [self._row(int(seed), attention.shape[1]) for seed in seeds.tolist()]
        return torch.stack(rows).to(attention.device)

    def _row(self, image: int, heads: int) -> Tensor:
        # torch's generator heeds only the low 32 bits of a seed, so both seeds are mixed into those
        mixed = np.random.SeedSequence((image % 2**64, self.seed)).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        return torch.rand(heads, generator=generator, device="cpu", dtype=torch.float32)  # not the user's defaults
