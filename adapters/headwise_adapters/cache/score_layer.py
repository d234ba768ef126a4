"""A cache layer for plans that score entries: tokens attend to all entries; then those with the lowest scores go."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.attention_math import taken
from headwise.eviction import UNBOUNDED, ScorePlan
from headwise.pipeline import Pipeline
from headwise_adapters.attention.attend import causal, grouped, logits, masked, softmax, weighted
from headwise_adapters.attention.rotary import Rotary
from headwise_adapters.cache.entry_groups import EntryGroup, empty, rectangle, regrouped
from headwise_adapters.cache.ragged_cache import EvictingLayer, New

_LOOSE = 64  # queries of single steps that are held one by one before they are put together
_BLOCK = 512  # queries attended at once where a mask or their attention is needed


class ScoreLayer(EvictingLayer):
    """Holds what a score plan leaves of one layer.

    ``sliding``: the model's own sliding window in this layer, beyond which nothing is visible.
    """

    shows_at_once = False

    def __init__(
        self, plan: ScorePlan, layer: int, pipeline: Pipeline, rotary: Rotary | None, sliding: int | None = None
    ) -> None:
        self._plan, self._layer, self._pipeline = plan, layer, pipeline
        self._rotary, self._sliding = rotary, sliding
        self._kv_heads = plan.geometry.kv_heads
        super().__init__()

    def __deepcopy__(self, memo: dict[int, object]) -> ScoreLayer:
        """A copy with entries of its own; plan and pipeline are shared, they hold no state of a text."""
        twin = ScoreLayer(self._plan, self._layer, self._pipeline, self._rotary, self._sliding)
        memo[id(self)] = twin
        twin.__dict__.update(self.__dict__)
        twin.counts = list(self.counts)
        twin._groups = [_copied(found) for found in self._groups]
        twin._asked = list(self._asked)
        return twin

    def _begin(self) -> None:
        super()._begin()
        self._groups: list[EntryGroup] = []
        self._asked: list[tuple[Tensor, Tensor]] = []  # last queries (b, heads, q, d), and their numbers (b, q)
        self._since = 0  # tokens decoded since the last eviction
        self._has_padding = False  # whether padding is among the entries, as it is until the end of its forward

    def attend(self, new: New) -> Tensor:
        """Attention over everything held and the new tokens; then, when it is due, eviction."""
        tokens = self._tokens(new, new.batch)
        numbers = self.number(tokens)
        self._has_padding |= new.real is not None
        first = not self._groups
        if first:
            shared = new.query.shape[1] // self._kv_heads
            self._groups = [empty(new.batch * self._kv_heads, new.key, shared, self._plan.accumulates)]
        self._append(new.key, new.value, tokens)
        queries = grouped(new.query, self._kv_heads)
        if first and new.real is None and not self._plan.accumulates and not self._hides(new.length):
            out = causal(queries, new.key, new.value, new.scaling)
        else:
            out = self._over_groups(queries, numbers, new.scaling)
        self._remember(new.query, numbers)
        self._count(new)
        self._forget()
        if self._due(new.length):
            self._evict(new.scaling)
        return out.flatten(1, 2)

    def _hides(self, longest: int) -> bool:
        """Whether the model's own sliding window hides anything."""
        if self._sliding is None:
            return False
        missing = 0 if self.missing is None else int(self.missing.max())
        return max(self.counts) + missing + longest > self._sliding

    def _append(self, key: Tensor, value: Tensor, tokens: Tensor) -> None:
        """Every unit gets the new tokens' entries."""
        keys, values = key.flatten(0, 1), value.flatten(0, 1)
        labels = tokens.repeat_interleave(self._kv_heads, dim=0).to(torch.int32)
        for found in self._groups:
            found.keys = torch.cat([found.keys, found.of(keys)], dim=1)
            found.values = torch.cat([found.values, found.of(values)], dim=1)
            found.tokens = torch.cat([found.tokens, found.of(labels)], dim=1)
            found.places = torch.cat([found.places, found.of(labels)], dim=1)
            if found.accumulated_attention is not None:
                new = found.accumulated_attention.new_zeros(*found.accumulated_attention.shape[:2], key.shape[2])
                found.accumulated_attention = torch.cat([found.accumulated_attention, new], dim=2)

    def _numbers(self, found: EntryGroup) -> Tensor:
        """The numbers of a group's entries in the whole text of their rows, (m, n)."""
        return self.number(found.tokens, found.index // self._kv_heads)

    def _over_groups(self, query: Tensor, numbers: Tensor, scaling: float) -> Tensor:
        """Attention of queries (b, kv_heads, r, q, d), numbered (b, q), group by group, each of them dense."""
        units = query.flatten(0, 1)
        asking = numbers.repeat_interleave(self._kv_heads, dim=0)
        parts = [self._over_group(found, found.of(units), found.of(asking), scaling) for found in self._groups]
        out = parts[0] if self._groups[0].whole else parts[0].new_empty(units.shape)
        if not self._groups[0].whole:
            for found, part in zip(self._groups, parts, strict=True):
                out[found.where] = part
        return out.view_as(query)

    def _over_group(self, found: EntryGroup, query: Tensor, asking: Tensor, scaling: float) -> Tensor:
        """Attention (m, r, q, d) of one group's units, block by block of queries."""
        keys, values = self.placed(found).unsqueeze(1), found.values.unsqueeze(1)
        parts = []
        blocks = torch.split(query.unsqueeze(1), _BLOCK, dim=3), torch.split(asking, _BLOCK, dim=1)
        for q, numbers in zip(*blocks, strict=True):
            visible = self._visible(found, numbers)
            if found.accumulated_attention is None:
                parts.append(masked(q, keys, values, visible, scaling)[:, 0])
                continue
            attention = softmax(logits(q, keys, scaling), visible)
            of_padding = (numbers < 0)[:, None, None, :, None]
            new = attention.masked_fill(of_padding, 0.0).sum(dim=3)[:, 0]
            found.accumulated_attention = found.accumulated_attention + new
            parts.append(weighted(attention, values)[:, 0])
        return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]

    def _visible(self, found: EntryGroup, asking: Tensor) -> Tensor | None:
        """Bool (m, 1, q, n): entries that queries see; None where they see all.

        Padded queries are unmasked, because softmax needs a key; their output is ignored.
        """
        if asking.shape[1] == 1 and not self._has_padding:
            return None
        asking, numbers = asking.unsqueeze(2), self._numbers(found).unsqueeze(1)
        visible = (found.tokens.unsqueeze(1) >= 0) & (numbers <= asking)
        if self._sliding is not None:
            visible &= asking - numbers < self._sliding
        return (visible | (asking < 0)).unsqueeze(1)

    def _remember(self, query: Tensor, numbers: Tensor) -> None:
        """Keep the last queries that were no padding, as far as the plan asks for them."""
        if not self._plan.queries:
            return
        if not self._has_padding:  # padding may stand behind the last real ones
            query, numbers = query[:, :, -self._plan.queries :], numbers[:, -self._plan.queries :]
        self._asked.append((query, numbers))
        if self._has_padding or query.shape[2] > 1 or len(self._asked) > _LOOSE:
            self._asked = [self.asked(self._plan.queries)]

    def asked(self, count: int) -> tuple[Tensor, Tensor]:
        """The last ``count`` queries (b, heads, at most count, d) and their numbers in the text, -1 for padding."""
        query = torch.cat([part for part, _ in self._asked], dim=2)
        numbers = torch.cat([part for _, part in self._asked], dim=1)
        if self._has_padding:  # real ones to the end, in their order
            order = (numbers >= 0).to(torch.uint8).argsort(dim=-1, stable=True)
            numbers = numbers.gather(1, order)
            query = taken(query, order, 2)
        return query[:, :, -count:].clone(), numbers[:, -count:].clone()

    def _due(self, new: int) -> bool:
        """Whether to evict now: after a prefill, after each chunk of one, and after ``every`` decoded tokens."""
        self._since = self._since + 1 if new == 1 else 0
        if new == 1 and (not self._plan.every or self._since < self._plan.every):
            return False
        self._since = 0
        return True

    def _forget(self) -> None:
        """Remove entries that no later token can see: padding, and those beyond the model's own sliding window."""
        if not self._has_padding and not self._hides(1):
            return
        full = self.whole()
        asking = self.number(torch.tensor(self.counts, device=full.tokens.device).unsqueeze(1))
        first = (asking + 1 - (self._sliding or UNBOUNDED)).repeat_interleave(self._kv_heads, dim=0)
        seen = (full.tokens >= 0) & (self._numbers(full) >= first)
        if not bool(seen.all()):
            self._groups = regrouped(full, seen)
        self._has_padding = False

    def _evict(self, scaling: float) -> None:
        room = [int(self._plan.per_layer(count)[self._layer]) for count in self.counts]
        if all(held <= most for held, most in zip(self._most_held(), room, strict=True)):
            return
        evidence = LayerEvidence(self, scaling)
        self._groups = regrouped(evidence.full, self._pipeline.retained(self._plan, evidence).flatten(0, 1))
        if self._plan.rerotate:
            self._close_gaps()

    def _most_held(self) -> list[int]:
        """The most entries a head of each row holds."""
        filled = [(found.index // self._kv_heads, (found.tokens >= 0).sum(dim=1)) for found in self._groups]
        most = [0] * len(self.counts)
        for rows, counts in filled:
            for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
                most[row] = max(most[row], count)
        return most

    def _close_gaps(self) -> None:
        """Renumber the kept keys without gaps, so that the last of them is one position in front of the next query.

        Attention depends on distances only, so this equals renumbering the entries 0, 1, 2, ... and the next query
        after them (kvpress: KeyRerotation). Keys are stored as they came, and turned to their places when they are
        read (``placed``), because each turn would round them once more.
        """
        counts = torch.tensor(self.counts, dtype=torch.int32, device=self._groups[0].places.device)
        for found in self._groups:
            size = found.places.shape[1]
            steps = torch.arange(size, 0, -1, dtype=torch.int32, device=counts.device)
            found.places = counts[found.index // self._kv_heads].unsqueeze(1) - steps

    def whole(self) -> EntryGroup:
        """All entries as one group, shorter units filled up at the end."""
        groups, units = self._groups, len(self.counts) * self._kv_heads
        fields = {name: rectangle(groups, units, name, filler) for name, filler in _FILLERS.items()}
        accumulated = (
            None if groups[0].accumulated_attention is None else rectangle(groups, units, "accumulated_attention", 0.0)
        )
        index = torch.arange(units, device=fields["keys"].device)
        return EntryGroup(index=index, **fields, accumulated_attention=accumulated, whole=True)

    def placed(self, found: EntryGroup) -> Tensor:
        """Keys (m, n, d) of a group, turned to their places."""
        if not self._plan.rerotate:
            return found.keys
        assert self._rotary is not None
        return self._rotary.rotate(found.keys, found.places - found.tokens)

    def seen_next(self, length: int) -> Tensor:
        """Entries that each of the next ``length`` tokens of the first row sees, itself included, float64 (length,)."""
        count = self.counts[0] if self.counts else 0
        asking = count + torch.arange(length, dtype=torch.float64)
        reach = float(self._sliding or UNBOUNDED)
        own = (asking - count + 1).clamp_max(reach)
        parts = [found.tokens[found.index < self._kv_heads].flatten().cpu() for found in self._groups]
        held = torch.cat(parts).sort().values.double() if parts else own[:0]
        hidden = torch.searchsorted(held, asking - reach, right=True)
        return own + (len(held) - hidden) / self._kv_heads

    def held(self) -> list[Tensor]:
        """Keys and values of every group."""
        return [states for found in self._groups for states in (found.keys, found.values)]

    def stacked(self) -> tuple[Tensor, Tensor] | None:
        """Keys, turned to their places, and values, (b, kv_heads, n, d) each; None where heads differ in number."""
        if not self._groups[0].whole:
            return None
        held = self.placed(self._groups[0]), self._groups[0].values
        keys, values = (states.view(len(self.counts), self._kv_heads, *states.shape[1:]) for states in held)
        return keys, values

    def bookkeeping(self) -> list[Tensor]:
        """Tokens and places of entries, attention received, and the queries remembered."""
        found = [tensor for each in self._groups for tensor in each.tensors()]
        found += [] if self.missing is None else [self.missing]
        return found + [tensor for part in self._asked for tensor in part]

    def entries(self) -> list[int]:
        """Entries each KV head holds of the first row."""
        found = [0] * self._kv_heads
        for each in self._groups:
            for unit, count in zip(each.index.tolist(), (each.tokens >= 0).sum(dim=1).tolist(), strict=True):
                if unit < self._kv_heads:
                    found[unit] = count
        return found

    def select_rows(self, index: Tensor) -> None:
        """Make the batch the rows ``index`` of what it is now."""
        full = self.whole()
        rows = index.to(full.keys.device)
        units = (rows.unsqueeze(1) * self._kv_heads + torch.arange(self._kv_heads, device=rows.device)).flatten()
        filled = rectangle(self._groups, len(self.counts) * self._kv_heads, "tokens", -2) > -2
        accumulated = None if full.accumulated_attention is None else full.accumulated_attention[units]
        moved = EntryGroup(
            torch.arange(len(units), device=rows.device), full.keys[units], full.values[units], full.tokens[units],
            full.places[units], accumulated, True,
        )  # fmt: skip
        self._groups = regrouped(moved, filled[units])
        self._asked = [(query.index_select(0, rows), numbers.index_select(0, rows)) for query, numbers in self._asked]


class LayerEvidence:
    """The evidence of one layer (:class:`headwise.eviction.CacheEvidence`): units with fewer entries are filled up."""

    def __init__(self, layer: ScoreLayer, scaling: float) -> None:
        self._owner, self._scaling, self.layer = layer, scaling, layer._layer
        self.full = layer.whole()
        self.shape = (len(layer.counts), layer._kv_heads)
        self._held, self.values = self._by_row(layer.placed(self.full)), self._by_row(self.full.values)
        self.keys = self._held
        if layer.missing is not None and layer._rotary is not None:  # so that the next query stands at ``seen``
            self.keys = self.rotate(self._held, -layer.missing[:, None, -1:])
        self.positions = self._by_row(self.full.tokens).long()
        self.seen = torch.tensor(layer.counts, device=self.full.index.device)

    def _by_row(self, states: Tensor) -> Tensor:
        """States (units, ...) as (b, kv_heads, ...)."""
        return states.view(*self.shape, *states.shape[1:])

    def attention(self, queries: int) -> Tensor:
        """Softmax attention of the last ``queries`` tokens read, float32 (b, heads, queries, n); 0 for missing queries.

        Raises ValueError where the plan remembers fewer queries.
        """
        asked, tokens = self._last(queries)
        found = self._attention(asked, tokens)
        missing = queries - asked.shape[2]
        return torch.nn.functional.pad(found, (0, 0, missing, 0)) if missing else found

    def _attention(self, asked: Tensor, numbers: Tensor) -> Tensor:
        products = logits(grouped(asked, self._held.shape[1]), self._held, self._scaling)
        asking, there = numbers[:, None, :, None], self._by_row(self._owner._numbers(self.full)).unsqueeze(2)
        visible = (self.positions.unsqueeze(2) >= 0) & (there <= asking)
        if self._owner._sliding is not None:
            visible &= asking - there < self._owner._sliding
        attention = softmax(products, visible | (asking < 0))
        hidden = ~visible.unsqueeze(2)
        return attention.masked_fill(hidden, 0.0).flatten(1, 2)

    def accumulated_attention(self) -> Tensor:
        """Attention each entry has received since it arrived, float32 (b, heads, n).

        Raises ValueError where the plan does not accumulate it.
        """
        if self.full.accumulated_attention is None:
            raise ValueError("attention received was asked for, and the plan does not accumulate it")
        return self._by_row(self.full.accumulated_attention).flatten(1, 2)

    def queries(self, count: int) -> Tensor:
        """The last ``count`` queries read, rotary embeddings undone, (b, heads, at most count, head_dim).

        Raises ValueError where the plan remembers fewer queries, or does not say that it rotates.
        """
        asked, numbers = self._last(count)
        return self.rotate(asked, -numbers[:, None]).masked_fill((numbers < 0)[:, None, :, None], 0.0)

    def _last(self, count: int) -> tuple[Tensor, Tensor]:
        """The last ``count`` queries and their numbers; raises ValueError where the plan remembers fewer."""
        if count > self._owner._plan.queries:
            raise ValueError(f"{count} queries were asked for, and the plan remembers {self._owner._plan.queries}")
        return self._owner.asked(count)

    def unrotated(self) -> Tensor:
        """The keys with rotary embeddings undone, (b, k, n, head_dim)."""
        return self.rotate(self._by_row(self.full.keys), -self._by_row(self._owner._numbers(self.full)))

    def rotate(self, states: Tensor, distance: Tensor) -> Tensor:
        """``states`` (..., head_dim) turned by ``distance``, integers that broadcast against (...), in tokens.

        Raises ValueError where the plan does not say that it rotates.
        """
        if self._owner._rotary is None:
            raise ValueError("rotary embeddings were to be turned, and the plan does not say that it rotates")
        return self._owner._rotary.rotate(states, distance)


_FILLERS = {"keys": 0.0, "values": 0.0, "tokens": -1, "places": 0}


def _copied(found: EntryGroup) -> EntryGroup:
    accumulated = None if found.accumulated_attention is None else found.accumulated_attention.clone()
    return EntryGroup(
        found.index, found.keys.clone(), found.values.clone(), found.tokens.clone(), found.places.clone(), accumulated,
        found.whole,
    )  # fmt: skip
