"""How far a head looks, sinks set aside: positional, mixed, gathering or idle, each with a real probability.

Headwise's own: what the classes of the head-aware cache study mean, measured with probabilities.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
from attrs import validators

from headwise import HeadLabels, HeadStatistics, hookimpl
from headwise.attention_math import phi
from headwise.heads import AttentionShares, Floats
from headwise.numbers import number, whole

CLASSES = ("positional", "mixed", "gathering", "idle")

WITHIN = (16, 64, 256)

LOW = 0.333333  # thirds, in as many digits as the text of a strategy shows
HIGH = 0.666667


@attrs.frozen(eq=False)
class Locality:
    """Positional, mixed or gathering by the share of a head's attention that goes far; idle where it goes to sinks.

    The far share x is the attention more than ``window`` tokens back, of all that is not on the first ``sinks`` tokens.
    With the normal distribution Phi and the standard error s of x over segments of text, at least ``min_se``:
    P(positional) = Phi((``low`` - x) / s), P(gathering) = Phi((x - ``high``) / s), P(mixed) is the rest. A head that
    puts the share ``idle`` on sinks shows little of itself: P(idle) = Phi((sink - ``idle``) / its s), and the other
    three divide what is left. A head on a boundary has confidence 0.5, and more text makes it surer.

    Statistics: ``far`` and ``far_se``, ``sink``, ``within_16``, ``within_64`` and ``within_256`` (shares, sinks not
    counted), ``w95`` (smallest window that with the sinks holds 95% of the attention; as long as the text where none
    does), ``determinism`` (1 - entropy of the mean profile over distances / its largest value: 1 a fixed distance, 0
    every distance alike, or nothing but sinks). How much a head's distances depend on what it reads needs single rows,
    which mean profiles do not hold; it is left out.
    """

    window: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    low: float = attrs.field(default=LOW, converter=number, validator=[validators.ge(0), validators.le(1)])
    high: float = attrs.field(default=HIGH, converter=number, validator=[validators.ge(0), validators.le(1)])
    idle: float = attrs.field(default=0.9, converter=number, validator=[validators.ge(0), validators.le(1)])
    min_se: float = attrs.field(default=0.02, converter=number, validator=validators.gt(0))

    @high.validator
    def _in_order(self, _: object, high: float) -> None:
        if high < self.low:
            raise ValueError(f"high={high:g} is below low={self.low:g}; give low <= high")

    @hookimpl
    def head_classification(self, statistics: HeadStatistics) -> HeadLabels:
        """Four probabilities for every head, from where its attention goes."""
        shares = statistics.attention(self.sinks)
        far, far_se = self._far(shares)
        sink, sink_se = shares.sink.mean(axis=0), _error(shares.sink)
        positional = phi((self.low - far) / np.maximum(far_se, self.min_se))
        gathering = phi((far - self.high) / np.maximum(far_se, self.min_se))
        idle = phi((sink - self.idle) / np.maximum(sink_se, self.min_se))
        mixed = np.clip(1 - positional - gathering, 0, 1)
        active = np.stack([positional, mixed, gathering], axis=-1)
        active *= ((1 - idle) / active.sum(axis=-1))[..., None]
        return HeadLabels.most_probable(
            CLASSES, np.concatenate([active, idle[..., None]], axis=-1), _statistics(shares, far, far_se)
        )

    def _far(self, shares: AttentionShares) -> tuple[Floats, Floats]:
        """The far share of each head over the whole text, and its standard error over segments: (l, h) each."""
        far = shares.distance[..., self.window :].sum(axis=-1)
        beyond_sinks = np.maximum(shares.distance.sum(axis=-1), np.finfo(np.float64).tiny)
        return far.mean(axis=0) / beyond_sinks.mean(axis=0), _error(far / beyond_sinks)


def _error(values: Floats) -> Floats:
    """Standard error of the mean over segments (k, l, h); unknown, and so no reason to be sure, from a single one."""
    if len(values) < 2:
        return np.ones(values.shape[1:])
    return np.asarray(values.std(axis=0, ddof=1) / math.sqrt(len(values)))


def _statistics(shares: AttentionShares, far: Floats, far_se: Floats) -> dict[str, Floats]:
    sink, profile = shares.sink.mean(axis=0), shares.distance.mean(axis=0)
    within = {f"within_{window}": profile[..., :window].sum(axis=-1) for window in WITHIN}
    held = sink[..., None] + profile.cumsum(axis=-1)
    w95 = np.minimum((held < 0.95).sum(axis=-1) + 1, profile.shape[-1]).astype(np.float64)
    return {"far": far, "far_se": far_se, "sink": sink, **within, "w95": w95, "determinism": _determinism(profile)}


def _determinism(profile: Floats) -> Floats:
    """1 - H / log n of profiles (l, h, n) over distances, and 0 for an empty one."""
    mass = profile.sum(axis=-1, keepdims=True)
    p = np.where(mass > 0, profile / np.where(mass > 0, mass, 1), 1 / profile.shape[-1])
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1)
    return np.asarray(np.clip(1 - entropy / math.log(max(2, profile.shape[-1])), 0, 1))
