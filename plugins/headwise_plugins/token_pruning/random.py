"""Visual tokens chosen at random stay: the control every pruning method has to beat."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.numbers import seed as as_seed
from headwise.numbers import whole
from headwise.plan import Evidence


@attrs.frozen(eq=False)
class Random:
    """Once, before decoder layer ``layer``: a random choice, drawn from ``seed`` and the image alone.

    Before layer 0, tokens leave before the language model. The same image keeps the same tokens in any batch, and a
    smaller budget keeps a part of what a larger one keeps.
    """

    layer: int = attrs.field(default=2, converter=whole, validator=attrs.validators.ge(0))
    seed: int = attrs.field(default=0, converter=as_seed, validator=attrs.validators.ge(0))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads nothing of the model."""
        return PruningPlan(geometry, (Stage(self.layer, budget.one_stage(geometry, self.layer), self._drawn),))

    def _drawn(self, evidence: Evidence) -> Tensor:
        """A random order of each row's tokens, as scores (b, v) without ties."""
        orders = [self._order(image, evidence.visual) for image in evidence.seeds().tolist()]
        return torch.tensor(np.array(orders), dtype=torch.float32)

    def _order(self, image: int, visual: int) -> npt.NDArray[np.int64]:
        unsigned = image % 2**64  # NumPy takes no negative seeds
        return np.random.default_rng((unsigned, self.seed)).permutation(visual)
