"""What a KV-eviction strategy hands back: windows that follow from positions alone, or scores with a budget.

An *entry* is the key and value of one token in one KV head. What a query sees counts the query's own entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Protocol

import attrs
import numpy as np
import numpy.typing as npt
from attrs import validators

from headwise.errors import BudgetError
from headwise.geometry import Geometry
from headwise.numbers import counted, number, number_or_none

if TYPE_CHECKING:
    from torch import Tensor

UNBOUNDED = 2**40
"""A window that no sequence outgrows."""

POSITIONS = ("original", "relative")

Integers = npt.NDArray[np.int64]


def _integers(values: object) -> Integers:
    return np.array(values, dtype=np.int64)


def _counts(values: object) -> Integers:
    """Whole numbers, those beyond ``UNBOUNDED`` as that, so that sums of them are whole numbers, too.

    Raises ValueError for what would have to be rounded.
    """
    given = np.array(values, dtype=object)
    wrong = [one for one in given.flat if isinstance(one, bool) or not isinstance(one, Integral)]
    if wrong:
        raise ValueError(f"sinks and windows are whole numbers, and {wrong[0]!r} is none")
    return _integers(np.minimum(given, UNBOUNDED))


@attrs.frozen(eq=False, kw_only=True)
class WindowPlan:
    """Which entries a query sees, from positions alone: the first ``sinks`` and the last ``windows`` tokens.

    ``sinks`` and ``windows`` are integers (layers, kv_heads); the window ends with the query itself. A head holds what
    its last query saw, ``min(seen, sinks + window)`` entries. ``positions``: ``original`` leaves distances to the
    sinks as they are in the text; ``relative`` counts them within the cache, as StreamingLLM does (Xiao et al. 2023).
    What the model's own sliding window hides stays hidden: sinks at their distance in the text are not seen any more
    once it has gone past them; those counted within the cache stand in it (:func:`clamp_to_sliding_window`).
    Raises BudgetError for shapes that do not fit the geometry, and for windows below 1.
    """

    geometry: Geometry
    sinks: Integers = attrs.field(converter=_counts)
    windows: Integers = attrs.field(converter=_counts)
    positions: str = attrs.field(default="original")

    def __attrs_post_init__(self) -> None:
        wanted = (self.geometry.layers, self.geometry.kv_heads)
        for name, values in (("sinks", self.sinks), ("windows", self.windows)):
            if values.shape != wanted:
                raise BudgetError(f"{name} of shape {values.shape} do not fit {wanted} (layers, KV heads)")
        if self.sinks.min() < 0:
            raise BudgetError(f"{self.sinks.min()} sinks are impossible; give 0 or more")
        if self.windows.min() < 1:
            raise BudgetError(f"a window of {self.windows.min()} hides the query from itself; give at least 1")
        if self.positions not in POSITIONS:
            raise BudgetError(f"positions={self.positions!r} is not one of {', '.join(POSITIONS)}")

    @classmethod
    def uniform(cls, geometry: Geometry, sinks: int, window: int, positions: str = "original") -> WindowPlan:
        """The same sinks and window for every head."""
        shape = (geometry.layers, geometry.kv_heads)
        return cls(geometry=geometry, sinks=np.full(shape, sinks), windows=np.full(shape, window), positions=positions)

    @classmethod
    def by_head(cls, geometry: Geometry, windows: Integers, sinks: int, positions: str = "original") -> WindowPlan:
        """The same sinks for all, and of the windows of the query heads, (layers, heads), the largest for each KV head.

        Raises BudgetError as the plan itself does.
        """
        largest = heads_to_kv(windows, geometry)
        return cls(geometry=geometry, sinks=np.full_like(largest, sinks), windows=largest, positions=positions)

    @property
    def own(self) -> Integers:
        """The model's own sliding window in each layer, ``UNBOUNDED`` where there is none: (layers, 1)."""
        return _integers([[window or UNBOUNDED] for window in self.geometry.sliding or [None] * self.geometry.layers])

    @property
    def reach(self) -> Integers:
        """How far back sinks are seen, (layers, 1): the model's own window where their distance is that in the text."""
        return self.own if self.positions == "original" else np.full_like(self.own, UNBOUNDED)

    @property
    def keeps_everything(self) -> bool:
        """Whether no entry is ever evicted but those that the model's own sliding window hides."""
        return bool((self.windows >= self.own).all())

    def visible(self, seen: int) -> Integers:
        """Entries that token number ``seen`` sees, itself included, and that are held after it: (layers, kv_heads)."""
        return visible(seen, self.sinks, self.windows, self.reach)

    def context(self, seen: int = UNBOUNDED) -> float:
        """Effective context: visible entries averaged over layers and KV heads, for a text of ``seen`` tokens."""
        return float(self.visible(seen).mean())

    def kv_bytes(self, seen: int, *, batch: int = 1, itemsize: int = 2) -> int:
        """Bytes of keys and values held after ``seen`` tokens, ``itemsize`` bytes a number (2 = fp16)."""
        return int(self.visible(seen).sum()) * 2 * self.geometry.head_dim * itemsize * batch


def visible(seen: Integers | int, sinks: Integers, windows: Integers, reach: Integers) -> Integers:
    """Entries that token number ``seen`` sees: its window, and the sinks in front of it that are within ``reach``.

    All are integers of any shape that broadcast, such as (layers, kv_heads).
    """
    near = np.minimum(seen, np.minimum(windows, reach))
    found: Integers = near + np.maximum(np.minimum(sinks, seen - near) - np.maximum(seen - reach, 0), 0)
    return found


class CacheEvidence(Protocol):
    """What a score may look at, computed only when asked for: one layer, b rows, k KV heads, n entries each.

    Rows and heads may hold different numbers of entries; they are filled up to n with empty ones, whose position is
    -1 and whose keys and values are zero. Entries are in ascending order of position, empty ones last.
    """

    @property
    def layer(self) -> int:
        """Which decoder layer, counted from 0."""
        ...

    @property
    def keys(self) -> Tensor:
        """Keys with rotary embeddings as cached, (b, k, n, head_dim); the next query stands at position ``seen``."""
        ...

    @property
    def values(self) -> Tensor:
        """Values, (b, k, n, head_dim)."""
        ...

    @property
    def positions(self) -> Tensor:
        """int64 (b, k, n): which token of its row an entry is, counted from 0 without padding; -1 where empty."""
        ...

    @property
    def seen(self) -> Tensor:
        """int64 (b,): tokens read so far in each row, without padding."""
        ...

    def attention(self, queries: int) -> Tensor:
        """Softmax attention of the last ``queries`` tokens read, float32 (b, heads, queries, n).

        At most ``plan.queries`` of them are remembered. Rows that a batch row does not have are all zero and come
        first; entries that a query cannot see have attention 0.
        """
        ...

    def accumulated_attention(self) -> Tensor:
        """Attention each entry has received from all queries since it arrived, float32 (b, heads, n), and from none
        before ``plan.accumulates``."""
        ...

    def queries(self, count: int) -> Tensor:
        """The last ``count`` queries read, rotary embeddings undone, (b, heads, at most count, head_dim).

        Rows that a batch row does not have are all zero and come first.
        """
        ...

    def unrotated(self) -> Tensor:
        """The keys with rotary embeddings undone, (b, k, n, head_dim)."""
        ...

    def rotate(self, states: Tensor, distance: Tensor) -> Tensor:
        """``states`` (..., head_dim) with rotary embeddings for positions ``distance``, broadcast against (...)."""
        ...


Score = Callable[[CacheEvidence], "Tensor"]


@attrs.frozen(eq=False, kw_only=True)
class ScorePlan:
    """Which entries stay once there are too many: those with the highest scores.

    ``score``: from evidence to scores (b, kv_heads, n), higher stays; of equal scores the earlier token stays.
    ``budget``: entries kept per KV head, averaged over layers; or ``ratio``: that as a share of the tokens read.
    ``shares`` (layers,): how what is left of the budget after the protected tokens is divided over layers; only their
    proportions count, and what a layer has no tokens for goes to the others. ``pooled``: the heads of a layer compete
    for one budget, each keeping at least the share ``floor`` of its own; at most ``levels`` + 1 different counts arise
    in a layer, so that attention stays a few dense products. ``sinks`` first and ``recent`` last tokens stay, always.
    Eviction follows every forward of more than one token, and in decoding every ``every``-th token (0: never).
    What the model's own sliding window hides from all tokens to come leaves at once, protected or not.
    ``queries``: how many last queries are remembered for ``attention`` and ``queries``. ``accumulates``: attention
    received is summed up. ``rerotate``: the keys kept are moved together, as if the evicted tokens had never been.
    ``rotates``: the score asks for ``queries``, ``unrotated`` or ``rotate``, which some rotary embeddings do not allow.

    Raises BudgetError unless exactly one of ``budget`` and ``ratio`` is given and holds what is protected, and for
    layer shares that are not above 0.
    """

    geometry: Geometry
    score: Score = attrs.field(validator=validators.is_callable())
    budget: int | None = attrs.field(default=None, validator=validators.optional(counted(0)))
    ratio: float | None = attrs.field(default=None, converter=number_or_none)
    shares: npt.NDArray[np.float64] | None = None
    pooled: bool = attrs.field(default=False, validator=validators.instance_of(bool))
    floor: float = attrs.field(default=0.2, converter=number, validator=[validators.ge(0), validators.le(1)])
    levels: int = attrs.field(default=8, validator=counted(1))
    sinks: int = attrs.field(default=0, validator=counted(0))
    recent: int = attrs.field(default=0, validator=counted(0))
    every: int = attrs.field(default=16, validator=counted(0))
    queries: int = attrs.field(default=0, validator=counted(0))
    accumulates: bool = attrs.field(default=False, validator=validators.instance_of(bool))
    rerotate: bool = attrs.field(default=False, validator=validators.instance_of(bool))
    rotates: bool = attrs.field(default=False, validator=validators.instance_of(bool))

    def __attrs_post_init__(self) -> None:
        check_budget(self.budget, self.ratio)
        protected = self.sinks + self.recent
        if self.budget is not None and self.budget < max(1, protected):
            raise BudgetError(
                f"budget={self.budget} cannot hold {self.sinks} sinks and {self.recent} recent tokens, which are never"
                f" evicted; give at least budget={max(1, protected)}"
            )
        if self.shares is not None and self.shares.shape != (self.geometry.layers,):
            raise BudgetError(f"layer shares of shape {self.shares.shape} do not fit {self.geometry.layers} layers")
        if self.shares is not None and not np.isfinite(self.shares).all():
            raise BudgetError("a layer share is not a finite number; give numbers above 0")
        if self.shares is not None and self.shares.min() <= 0:
            raise BudgetError(f"a layer share of {self.shares.min():g} is impossible; give numbers above 0")

    @property
    def keeps_everything(self) -> bool:
        """Whether no entry is ever evicted: never, as a budget is one for texts of any length."""
        return False

    def per_layer(self, seen: int) -> Integers:
        """Entries kept per KV head of each layer after ``seen`` tokens, (layers,); protected ones always are.

        They sum to the budget times layers, unless layers have fewer tokens than that: those that were read, and that
        the model's own sliding window leaves to the next one.
        """
        wanted = self.budget if self.budget is not None else int((self.ratio or 1) * seen + 1e-9)
        shares = np.ones(self.geometry.layers) if self.shares is None else self.shares
        bounds = self.geometry.sliding or (None,) * len(shares)
        there = _integers([seen if bound is None else min(seen, bound - 1) for bound in bounds])
        protected = np.minimum(there, max(1, self.sinks + self.recent))
        total = min(int(there.sum()), max(int(protected.sum()), wanted * len(shares)))
        return protected + divided(total - int(protected.sum()), shares, there - protected)

    def context(self, seen: int) -> float:
        """Entries kept per KV head after ``seen`` tokens, averaged over layers."""
        return float(self.per_layer(seen).mean())

    def kv_bytes(self, seen: int, *, batch: int = 1, itemsize: int = 2) -> int:
        """Bytes of keys and values kept right after an eviction, ``itemsize`` bytes a number (2 = fp16)."""
        entries = int(self.per_layer(seen).sum()) * self.geometry.kv_heads
        return entries * 2 * self.geometry.head_dim * itemsize * batch


EvictionPlan = WindowPlan | ScorePlan


def clamp_to_sliding_window(plan: EvictionPlan) -> EvictionPlan:
    """A window plan in which nothing is longer than the model's own sliding window; any other plan as it is.

    Where distances are counted within the cache, sinks and window stand in it together.
    """
    if not isinstance(plan, WindowPlan) or not any(plan.geometry.sliding):
        return plan
    if plan.positions == "original":
        return attrs.evolve(plan, windows=np.minimum(plan.windows, plan.own))
    sinks = np.minimum(plan.sinks, plan.own - 1)
    room = np.where(plan.own < UNBOUNDED, plan.own - sinks, UNBOUNDED)
    return attrs.evolve(plan, sinks=sinks, windows=np.minimum(plan.windows, room))


def entries_held(plan: EvictionPlan, seen: Sequence[int]) -> list[int]:
    """Entries that all KV heads of each layer hold together after the tokens ``seen`` by that layer."""
    if isinstance(plan, WindowPlan):
        return [int(plan.visible(count)[layer].sum()) for layer, count in enumerate(seen)]
    return [int(plan.per_layer(count)[layer]) * plan.geometry.kv_heads for layer, count in enumerate(seen)]


def check_budget(budget: int | None, ratio: float | None) -> None:
    """Raise BudgetError unless exactly one of ``budget`` and ``ratio`` is given, and in its range."""
    if (budget is None) == (ratio is None):
        raise BudgetError("give either budget (entries per KV head) or ratio (share kept), one of the two")
    if budget is not None and budget < 1:
        raise BudgetError(f"budget={budget} keeps no entry; give at least 1")
    if ratio is not None and not 0 < ratio <= 1:
        raise BudgetError(f"ratio={ratio:g} is not a share of the tokens to keep; give a number above 0, up to 1")


def divided(total: int, shares: npt.NDArray[np.float64], most: int | Integers) -> Integers:
    """``total`` entries in proportion to ``shares`` (n,), none above its ``most`` (n,): the excess goes to the others.

    ``total`` is at most the sum of ``most``. Returns integers (n,) whose sum is ``total``.
    """
    most = np.broadcast_to(_integers(most), shares.shape)
    wanted, free = np.zeros(len(shares)), np.ones(len(shares), dtype=bool)
    while free.any():
        left = total - wanted[~free].sum()
        wanted[free] = left * shares[free] / shares[free].sum()
        above = free & (wanted > most)
        if not above.any():
            break
        wanted[above], free = most[above], free & ~above
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    order = np.argsort(counts - wanted, kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return _integers(counts)


def grouped(values: Tensor, kv_heads: int) -> Tensor:
    """Mean over the query heads that share each KV head: (b, heads, ...) -> (b, kv_heads, ...)."""
    return values.float().reshape(len(values), kv_heads, -1, *values.shape[2:]).mean(dim=2)


def everything(geometry: Geometry) -> WindowPlan:
    """The full cache."""
    return WindowPlan.uniform(geometry, 0, UNBOUNDED)


def heads_to_kv(values: npt.NDArray[np.int64], geometry: Geometry) -> Integers:
    """The largest value of the query heads that share each KV head: (layers, heads) -> (layers, kv_heads)."""
    grouped = values.reshape(geometry.layers, geometry.kv_heads, geometry.heads // geometry.kv_heads)
    return _integers(grouped.max(axis=-1))


def distinct(plan: WindowPlan, layer: int) -> list[tuple[int, int, Sequence[int]]]:
    """(sinks, window, KV heads) for every different window of one layer: one dense group of entries each."""
    groups: dict[tuple[int, int], list[int]] = {}
    for head, pair in enumerate(zip(plan.sinks[layer].tolist(), plan.windows[layer].tolist(), strict=True)):
        groups.setdefault(pair, []).append(head)
    return [(sinks, window, heads) for (sinks, window), heads in sorted(groups.items())]
