"""The windows of another strategy, shuffled over the heads: the control that says what knowing heads is worth."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from attrs import validators

from headwise import Geometry, HeadProfile, StrategyError, WindowPlan, hookimpl
from headwise.composition import Inner, kv_eviction_named
from headwise.numbers import seed as as_seed


@attrs.frozen(eq=False)
class Permuted:
    """The windows that ``of`` gives, each with its sinks, shuffled over the KV heads by ``seed``.

    The null control of every assignment of windows to heads: budgets, effective context and cost are those of ``of``,
    and nothing is known about heads any more. An assignment that does not beat several seeds of this one has learned
    nothing from its classes. ``within``: ``model`` deals over all layers, ``layer`` within each, which leaves every
    layer its budget. Layers exchange nothing with those that have another sliding window of the model's own, or none.
    ``of`` is a strategy of windows, in brackets if it has several options:
    ``permuted:of=[head_windows:positional=256,mixed=64],seed=1``.
    """

    of: str = attrs.field(default="head_windows", converter=kv_eviction_named)
    seed: int = attrs.field(default=0, converter=as_seed, validator=validators.ge(0))
    within: str = attrs.field(default="model", validator=validators.in_(("model", "layer")))
    _inner: Inner = attrs.field(init=False, factory=Inner)

    @hookimpl
    def kv_eviction(self, geometry: Geometry, profile: HeadProfile | None) -> WindowPlan:
        """The plan of ``of`` with its places exchanged."""
        plan = self._inner.run(kv_eviction=self.of, profile=profile).eviction(geometry)
        if not isinstance(plan, WindowPlan):
            raise StrategyError(
                f"kv_eviction strategy 'permuted' deals windows at random, but {self.of!r} scores entries and has none;"
                " give a strategy of windows such as of=head_windows"
            )
        places = self._places(plan)
        return attrs.evolve(plan, sinks=plan.sinks.take(places), windows=plan.windows.take(places))

    def _places(self, plan: WindowPlan) -> npt.NDArray[np.int64]:
        """Where each KV head takes its window from, as flat indices (layers, kv_heads)."""
        rng = np.random.default_rng(self.seed)
        places = np.arange(plan.windows.size).reshape(plan.windows.shape)
        if self.within == "layer":
            return rng.permuted(places, axis=1)
        for own in np.unique(plan.own):  # layers with the same sliding window exchange theirs
            alike = plan.own[:, 0] == own
            places[alike] = rng.permutation(places[alike].ravel()).reshape(places[alike].shape)
        return places
