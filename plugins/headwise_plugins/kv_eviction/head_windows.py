"""A window for every class of heads: how far back a head sees depends on what kind of head it is.

Windows by class are those of the head-aware cache study of Pythia-2.8b.
"""

from __future__ import annotations

import attrs
from attrs import validators

from headwise import Geometry, HeadProfile, WindowPlan, hookimpl
from headwise.eviction import POSITIONS
from headwise.heads import required
from headwise.numbers import whole, whole_or_none

_WHO = "kv_eviction strategy 'head_windows'"
_given = validators.optional(validators.ge(1))


@attrs.frozen(eq=False)
class HeadWindows:
    """The first ``sinks`` tokens and a window by the head's class, which the head profile of the model tells.

    One option per class that the shipped classifications know: positional, mixed, gathering and idle (``locality``,
    ``entropy``), retrieval and other (``retrieval``), sensitive and insensitive (``sensitivity``). Without ``idle``,
    idle heads are treated as mixed. Any other class that has heads and no window is a StrategyError. A KV head gets
    the largest window of the query heads that share it. ``positions`` as in ``streaming``.

    Groups I, J and K of the head-aware cache study: ``positional=256,mixed=128,gathering=128`` is its
    I_pos256_mix128_g128. Windows come on top of the sinks there, so ``positional=64,mixed=64,gathering=64``
    (K_uniform64) is ``streaming`` with 68 entries, not with 64. To tell what classes contribute, compare with
    ``permuted`` windows, at equal context.
    """

    positional: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    mixed: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    gathering: int = attrs.field(default=128, converter=whole, validator=validators.ge(1))
    idle: int | None = attrs.field(default=None, converter=whole_or_none, validator=_given)
    retrieval: int | None = attrs.field(default=None, converter=whole_or_none, validator=_given)
    other: int | None = attrs.field(default=None, converter=whole_or_none, validator=_given)
    sensitive: int | None = attrs.field(default=None, converter=whole_or_none, validator=_given)
    insensitive: int | None = attrs.field(default=None, converter=whole_or_none, validator=_given)
    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    positions: str = attrs.field(default="relative", validator=validators.in_(POSITIONS))

    @hookimpl
    def kv_eviction(self, geometry: Geometry, profile: HeadProfile | None) -> WindowPlan:
        """The window of each KV head's classes."""
        labels = required(profile, _WHO).labels
        windows = labels.per_head(self._by_class(), _WHO)
        return WindowPlan.by_head(geometry, windows, self.sinks, self.positions)

    def _by_class(self) -> dict[str, int | None]:
        return {
            "positional": self.positional,
            "mixed": self.mixed,
            "gathering": self.gathering,
            "idle": self.idle or self.mixed,
            "retrieval": self.retrieval,
            "other": self.other,
            "sensitive": self.sensitive,
            "insensitive": self.insensitive,
        }
