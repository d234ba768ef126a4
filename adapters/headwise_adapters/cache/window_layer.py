"""A cache layer for plans that follow from positions alone: sinks and a window per KV head, in a ring.

KV heads with equal sinks and windows share one dense tensor of min(seen, sinks + window) entries. Token p is written to
slot p while there is room, and to slot sinks + (p - sinks) mod window afterwards, whose token has just left the window.
So a decoding step writes one entry and copies nothing, and no slot is empty. Sinks that are out of reach of
the model's own sliding window are removed, and the entries behind them move to lower slots.

Any number of tokens may come at once: each query sees exactly what it would see had they come one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor

from headwise.attention_math import taken
from headwise.errors import ModelError
from headwise.eviction import UNBOUNDED, WindowPlan, distinct
from headwise_adapters.attention.attend import causal, grouped, logits, masked, softmax, weighted
from headwise_adapters.attention.gradients import ended
from headwise_adapters.attention.rotary import Rotary
from headwise_adapters.cache.ragged_cache import EvictingLayer, New

_BLOCK = 512  # queries attended at once, at most: memory stays bounded however many tokens come
_NOTHING = torch.empty(0)


@attrs.define(eq=False)
class _Group:
    """KV heads that share sinks and window, and their entries (b, heads, entries, d).

    ``own``: the model's own sliding window. ``reach``: how many tokens back sinks are visible. ``lost``: how many sinks
    were removed because no later token sees them. ``cut``: the entries were computed with gradients, which would have
    to flow back through them, and no graph of them is kept.
    """

    sinks: int
    window: int
    heads: list[int]
    own: int
    reach: int
    lost: int = 0
    cut: bool = False
    keys: Tensor = _NOTHING
    values: Tensor = _NOTHING

    @property
    def room(self) -> int:
        """Entries that a query sees at most."""
        return self.sinks + self.window

    @property
    def left(self) -> int:
        """Sinks that are not lost."""
        return self.sinks - self.lost

    @property
    def size(self) -> int:
        """Entries held."""
        return self.keys.shape[2] if self.keys.ndim == 4 else 0

    def remembered(self) -> tuple[Tensor, Tensor]:
        """Keys and values held; a backward pass that reaches them raises ModelError where ``cut``."""
        if not (self.cut and torch.is_grad_enabled()):
            return self.keys, self.values
        return ended(self.keys), ended(self.values)

    def write(self, tokens: list[int], key: Tensor, value: Tensor) -> None:
        """Write one token of each row, (b, heads, 1, d): into a new slot while there is room, else into the ring.

        ``tokens``: which token of its row each one is.
        """
        if max(tokens) < self.room:
            keys, values = key.detach(), value.detach()
            held = self.size > 0  # asked once: what is held changes in between
            self.keys = torch.cat([self.keys, keys], dim=2) if held else keys.clone()
            self.values = torch.cat([self.values, values], dim=2) if held else values.clone()
            if min(tokens) == max(tokens):
                return
        if self.keys.is_inference() and not torch.is_inference_mode_enabled():  # those may not be written any more
            self.keys, self.values = self.keys.clone(), self.values.clone()
        slots = [(t if t < self.sinks else self.sinks + (t - self.sinks) % self.window) - self.lost for t in tokens]
        if min(slots) == max(slots):
            self.keys[:, :, slots[0]] = key[:, :, 0].detach()
            self.values[:, :, slots[0]] = value[:, :, 0].detach()
            return
        rows, where = torch.arange(len(slots), device=key.device), torch.tensor(slots, device=key.device)
        self.keys[rows, :, where] = key[:, :, 0].detach()
        self.values[rows, :, where] = value[:, :, 0].detach()

    @contextmanager
    def moved_sinks(self, rotary: Rotary, distance: int) -> Iterator[None]:
        """Inside, sinks are turned by ``distance``: that costs less than attending to them separately."""
        sinks = self.keys[:, :, : self.sinks]
        own = sinks.clone()
        sinks.copy_(rotary.by(own, distance))
        try:
            yield
        finally:
            sinks.copy_(own)

    def passed(self, count: int) -> int:
        """How many sinks token number ``count`` does not see, nor any after it."""
        return max(self.lost, min(self.sinks, count - self.reach))

    def lose(self, lost: int) -> None:
        """Remove the first ``lost`` sinks."""
        if lost > self.lost:
            self.keys, self.values = (held[:, :, lost - self.lost :].clone() for held in (self.keys, self.values))
            self.lost = lost

    def slots(self, tokens: Tensor) -> Tensor:
        """The slot of each token."""
        ring = self.sinks + (tokens - self.sinks) % self.window
        return torch.where(tokens < self.sinks, tokens, ring) - self.lost

    def tokens(self, counts: Tensor, size: int, lost: int | None = None) -> Tensor:
        """The token in each of ``size`` slots after ``counts`` (r, 1) tokens, -1 where there is none: (r, size)."""
        slot = torch.arange(size, device=counts.device) + (self.lost if lost is None else lost)
        latest = counts - 1 - (counts - 1 - slot) % self.window
        return torch.where(slot < counts, torch.where(slot < self.sinks, slot, latest), -1)


@attrs.frozen(eq=False)
class _Step:
    """New tokens of r rows; r is 1 where all rows are at the same place, without padding.

    ``before``, ``after`` int64 (r, 1): real tokens read. ``tokens`` int64 (r, q): which token each new one is, -1 for
    padding; ``numbers`` (r, q): the same, counting what was dropped. ``order`` (r, q): new columns, real ones first.
    ``offset`` (r, q): how far each stands, by its position id, behind the row's first token.
    """

    before: Tensor
    after: Tensor
    tokens: Tensor
    numbers: Tensor
    order: Tensor
    offset: Tensor

    @property
    def alike(self) -> bool:
        """Whether one row stands for all."""
        return self.tokens.shape[0] == 1


class WindowLayer(EvictingLayer):
    """Holds what a window plan leaves of one layer.

    ``contiguous`` says that position ids count the tokens, which they do unless tokens were dropped on the way.
    """

    def __init__(self, plan: WindowPlan, layer: int, rotary: Rotary | None, contiguous: bool = True) -> None:
        own, reach = int(plan.own[layer, 0]), int(plan.reach[layer, 0])
        self._groups = [
            _Group(sinks, window, list(heads), own, reach) for sinks, window, heads in distinct(plan, layer)
        ]
        self._kv_heads = plan.geometry.kv_heads
        self._rotary = rotary if plan.positions == "relative" else None
        self._contiguous = contiguous
        super().__init__()

    def _begin(self) -> None:
        super()._begin()
        self._first: Tensor | None = None  # position id of each row's first token, where ids do not count tokens
        self._origin = 0  # position ids of new tokens are this much less than their count
        for group in self._groups:
            group.keys, group.values, group.lost, group.cut = _NOTHING, _NOTHING, 0, False

    def attend(self, new: New) -> Tensor:
        """Attention (b, heads, q, d) over sinks, window and new tokens; groups then keep what their last query saw."""
        alike = new.real is None and len(set(self.counts)) == 1 and (self.missing is None or new.batch == 1)
        queries = grouped(new.query, self._kv_heads)
        learns = torch.is_grad_enabled() and (new.key.requires_grad or new.value.requires_grad or self._groups[0].cut)
        if new.length == 1 and new.real is None and not learns:
            parts = [self._decode(group, queries, new, alike) for group in self._groups]
        else:
            step = self._step(new, alike)
            parts = [self._read(group, step, queries, new) for group in self._groups]
        for group in self._groups:
            group.cut = learns
        self._count(new)
        return self._joined(parts).flatten(1, 2)

    def _decode(self, group: _Group, queries: Tensor, new: New, alike: bool) -> Tensor:
        """One token of every row: one slot of each is written, and then everything that is held is visible."""
        q, k, v = (self._of(group, states) for states in (queries, new.key, new.value))
        group.lose(group.passed(min(self.counts) + 1))
        group.write(self.counts, k, v)
        visible = None
        empty = min(self.counts) + 1 - group.lost < group.size  # slots of shorter rows
        if self._hides(group) or (not alike and (empty or (group.left and group.reach < UNBOUNDED))):
            asking = torch.tensor(self.counts, device=q.device).unsqueeze(1)
            held = group.tokens(asking + 1, group.size)
            visible = _visible(group, (asking, self.number(asking)), (held, self.number(held)))
        if self._rotary is None or max(self.counts) < group.room or not group.sinks:
            return masked(q, group.keys, group.values, visible, new.scaling)
        if alike and self._contiguous:
            distance = self.counts[0] - self._origin - (group.room - 1)  # by which the sinks come nearer
            with group.moved_sinks(self._rotary, distance):
                return masked(q, group.keys, group.values, None, new.scaling)
        step = self._step(new, alike)
        near = self._near(group, step.tokens, step.offset, q)
        products = logits(q, group.keys, new.scaling)
        products[..., : group.sinks] = logits(near, group.keys[:, :, : group.sinks], new.scaling)
        return weighted(softmax(products, visible), group.values)

    def _hides(self, group: _Group) -> bool:
        """Whether the model's own window may end before the group's, because it counts dropped tokens, too."""
        return self.missing is not None and group.own < UNBOUNDED

    def _step(self, new: New, alike: bool) -> _Step:
        device, counts = new.query.device, self.counts[:1] if alike else self.counts
        before, tokens = torch.tensor(counts, device=device).unsqueeze(1), self._tokens(new, len(counts))
        if new.real is None:
            order, after = torch.arange(new.length, device=device).expand(len(counts), -1), before + new.length
        else:
            order = (~new.real).to(torch.uint8).argsort(dim=-1, stable=True)
            after = before + new.real.sum(dim=-1, keepdim=True)
        return _Step(before, after, tokens, self.number(tokens), order, self._offset(tokens, new, alike))

    def _offset(self, tokens: Tensor, new: New, alike: bool) -> Tensor:
        """How far new tokens stand, by position id, behind their row's first token, int64 (r, q)."""
        if self._contiguous or new.positions is None:
            return tokens - self._origin
        positions = new.positions.expand(new.batch, -1)
        if self._first is None:  # the row's first token is new, so its place is known now
            first = (tokens == 0).expand(new.batch, -1).int().argmax(dim=-1, keepdim=True)
            self._first = positions.gather(1, first)
        offset = positions - self._first
        self._check_sinks(tokens, offset)
        return offset[:1] if alike else offset

    def _check_sinks(self, tokens: Tensor, offset: Tensor) -> None:
        """Raise ModelError where visual tokens were dropped among the sinks, from which relative positions count."""
        sinks = max(group.sinks for group in self._groups)
        new_sinks = self._rotary is not None and min(self.counts) < sinks  # not so while decoding
        if new_sinks and bool(((tokens >= 0) & (tokens < sinks) & (tokens != offset)).any()):
            raise ModelError(
                f"positions=relative counts from the first {sinks} tokens (sinks), and visual tokens were dropped among"
                " them; use positions=original, or fewer sinks"
            )

    def _read(self, group: _Group, step: _Step, queries: Tensor, new: New) -> Tensor:
        """One group's attention (b, heads, r, q, d); on the way out it holds what its last query saw."""
        q, k, v = (self._of(group, states) for states in (queries, new.key, new.value))
        held = group.tokens(step.before, group.size)
        if group.size:
            keys, values = group.remembered()
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        sees_all = new.length <= min(group.room, group.reach) and not self._hides(group)
        if step.alike and not group.size and sees_all:
            out = causal(q, k, v, new.scaling)
        else:
            numbers = torch.cat([self.number(held), step.numbers], dim=1)
            columns = _Columns(k, v, torch.cat([held, step.tokens], dim=1), numbers)
            out = self._in_blocks(group, step, q, columns, new.scaling)
        self._keep(group, step, k, v)
        return out

    def _in_blocks(self, group: _Group, step: _Step, query: Tensor, columns: _Columns, scaling: float) -> Tensor:
        """Attention block by block of queries, each over the columns it can see."""
        length, block = query.shape[3], min(_BLOCK, max(128, group.window))
        parts = []
        for start in range(0, length, block):
            end = min(length, start + block)
            seen = columns.picked(_runs(group, step, start, end)) if step.alike else columns
            asking = step.tokens[:, start:end]
            visible = _visible(group, (asking, step.numbers[:, start:end]), (seen.tokens, seen.numbers))
            q = query[:, :, :, start:end]
            if self._rotary is None or not group.sinks or int(asking.max()) < group.room:
                parts.append(masked(q, seen.keys, seen.values, visible, scaling))
                continue
            near = self._near(group, asking, step.offset[:, start:end], q)
            sinks = seen.keys[:, :, : group.sinks] if step.alike else seen.keys
            products = _with_sinks(group, logits(q, seen.keys, scaling), logits(near, sinks, scaling), seen.tokens)
            parts.append(weighted(softmax(products, visible), seen.values))
        return torch.cat(parts, dim=3) if len(parts) > 1 else parts[0]

    def _near(self, group: _Group, asking: Tensor, offset: Tensor, query: Tensor) -> Tensor:
        """Queries (b, g, r, q, d) turned so that their distances to the sinks are those within the cache.

        Distances to the window are the same in the cache and in the text. So are those to the sinks until something is
        evicted; from then on, the query's position within the cache is room - 1.
        """
        assert self._rotary is not None
        distance = torch.where(asking < group.room, 0, group.room - 1 - offset)
        return self._rotary.rotate(query, distance[:, None, None, :])

    def _keep(self, group: _Group, step: _Step, key: Tensor, value: Tensor) -> None:
        """Hold what the last query saw, in its slots, out of what was held and the new."""
        learns, key, value = key.requires_grad or value.requires_grad, key.detach(), value.detach()
        lost = group.passed(int(step.after.min()))
        size = min(int(step.after.max()), group.room) - lost
        if step.alike and size == key.shape[2]:
            fresh = group.size > 0 and not learns  # then `key` was made by concatenation, and nobody needs it
            group.keys, group.values = (key, value) if fresh else (key.clone(), value.clone())
            return
        wanted = group.tokens(step.after, size, lost)
        new = group.size + step.order.gather(1, (wanted - step.before).clamp(0, step.order.shape[1] - 1))
        column = torch.where(wanted < step.before, group.slots(wanted.clamp_min(0)), new).masked_fill(wanted < 0, 0)
        group.keys, group.values = (_gathered(states, column) for states in (key, value))
        group.lost = lost

    def rebase(self, distance: int) -> None:
        """Lower the position ids of later tokens, and those of the windows, by ``distance`` tokens; sinks keep theirs.

        Angles of positions beyond some ten thousand are imprecise in float32, so an endless stream lowers its position
        ids now and then. Raises ModelError unless positions are relative and every window is full.
        """
        if self._rotary is None or not self._contiguous or any(self.counts[0] < group.room for group in self._groups):
            raise ModelError("position ids can be lowered only under relative positions, once every window is full")
        self._origin += distance
        for group in self._groups:
            window = group.keys[:, :, group.sinks :]
            window.copy_(self._rotary.by(window, -distance))

    def _of(self, group: _Group, states: Tensor) -> Tensor:
        """The group's KV heads of states (b, kv_heads, ...)."""
        return states if len(group.heads) == self._kv_heads else states[:, group.heads]

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs of all groups (b, heads of the group, ...) in the order of the KV heads."""
        if len(parts) == 1:
            return parts[0]
        order = [head for group in self._groups for head in group.heads]
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return torch.cat(list(parts), dim=1)[:, inverse]

    def held(self) -> list[Tensor]:
        """Keys and values of every group."""
        return [states for group in self._groups for states in (group.keys, group.values)]

    def stacked(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values of all groups, out of their slots."""
        sizes = {group.size for group in self._groups}
        if len(sizes) > 1 or any(min(self.counts) - group.lost < group.size for group in self._groups):
            return None
        before = torch.tensor(self.counts, device=self._groups[0].keys.device).unsqueeze(1)
        orders = [group.tokens(before, group.size).argsort(dim=-1) for group in self._groups]
        pairs = list(zip(self._groups, orders, strict=True))
        keys = self._joined([_gathered(group.keys, order) for group, order in pairs])
        return keys, self._joined([_gathered(group.values, order) for group, order in pairs])

    def bookkeeping(self) -> list[Tensor]:
        """Position ids of first tokens and what is missing, where they are needed."""
        return [one for one in (self._first, self.missing) if one is not None]

    def entries(self) -> list[int]:
        """Entries each KV head holds of the first row."""
        found = [0] * self._kv_heads
        for group in self._groups:
            for head in group.heads:
                found[head] = min(group.size, self.counts[0] - group.lost if self.counts else 0)
        return found

    def select_rows(self, index: Tensor) -> None:
        """Make the batch the rows ``index`` of what it is now."""
        for group in self._groups:
            rows = index.to(group.keys.device)
            group.keys, group.values = group.keys.index_select(0, rows), group.values.index_select(0, rows)
        if self._first is not None:
            self._first = self._first.index_select(0, index.to(self._first.device))


@attrs.frozen(eq=False)
class _Columns:
    """What queries may see: ``keys`` and ``values`` (b, g, columns, d), and which ``tokens`` (r, columns) they are.

    ``numbers`` (r, columns): the same, counting what was dropped.
    """

    keys: Tensor
    values: Tensor
    tokens: Tensor
    numbers: Tensor

    def picked(self, runs: list[tuple[int, int]]) -> _Columns:
        """Only the columns of some runs."""
        fields = ((self.keys, 2), (self.values, 2), (self.tokens, 1), (self.numbers, 1))
        cut = [[states.narrow(dim, start, stop - start) for start, stop in runs] for states, dim in fields]
        one = len(runs) == 1
        return _Columns(*(part[0] if one else torch.cat(part, dim) for part, (_, dim) in zip(cut, fields, strict=True)))


def _runs(group: _Group, step: _Step, start: int, end: int) -> list[tuple[int, int]]:
    """Runs of columns that queries ``start`` to ``end`` can see where all rows are alike: sinks first, then the window.

    Columns are what is held, in its slots, and then the new tokens.
    """
    before, size = int(step.before), group.size
    oldest = before + start - group.window + 1  # the first token in the window of the first query
    if oldest < before:
        return [(0, size + end)]
    last_sink, first = size + max(0, group.sinks - before), size + oldest - before
    if last_sink >= first:
        return [(0, min(group.left, size)), (size, size + end)] if size > group.left else [(0, size + end)]
    runs = [(0, min(group.left, size)), (size, last_sink), (first, size + end)]
    return [(low, high) for low, high in runs if low < high]


def _visible(group: _Group, asking: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> Tensor:
    """Bool (r, 1, q, columns): sinks and the window, nothing after the query.

    ``asking`` and ``held``: tokens and their numbers, (r, q) each and (r, columns) each. Padded queries are unmasked,
    because softmax needs a key; their output is ignored.
    """
    (asks, number), (tokens, numbers) = (one.unsqueeze(2) for one in asking), (one.unsqueeze(1) for one in held)
    back = number - numbers
    near = ((asks - tokens < group.window) & (back < group.own)) | ((tokens < group.sinks) & (back < group.reach))
    return (((tokens >= 0) & (tokens <= asks) & near) | (asks < 0)).unsqueeze(1)


def _with_sinks(group: _Group, products: Tensor, near: Tensor, tokens: Tensor) -> Tensor:
    """Products (b, g, r, q, columns) with ``near``, those of the turned queries, in the sinks' columns.

    Where all rows are alike, sinks are the first columns, and ``near`` has only them.
    """
    if near.shape[-1] == group.sinks:
        products[..., : group.sinks] = near
        return products
    return torch.where((tokens < group.sinks)[:, None, None, None, :], near, products)


def _gathered(states: Tensor, column: Tensor) -> Tensor:
    """States (b, g, columns, d) at ``column`` (r, m): a new tensor (b, g, m, d) that holds nothing else."""
    if column.shape[0] == 1:
        return states.index_select(2, column[0])
    return taken(states, column, 2)
