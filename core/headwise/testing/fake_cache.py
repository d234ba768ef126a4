"""A made-up KV cache: what scores of entries look at, computed the slow and plain way from random tokens."""

from __future__ import annotations

from functools import cached_property, lru_cache

import attrs
import numpy as np
import torch
from torch import Tensor

from headwise.eviction import ScorePlan
from headwise.geometry import Geometry
from headwise.heads import HeadLabels, HeadProfile
from headwise.testing.samples import Sample

CLASSES = ("positional", "mixed", "gathering")
WINDOWS = (1, 4, 16, 64, 256, 1024)


@attrs.define(eq=False, slots=False)
class FakeCacheEvidence:
    """Evidence of one layer after some tokens (:class:`headwise.eviction.CacheEvidence`), the same for one sample.

    Rows have ``tokens`` tokens or fewer, the first one has them all; of those before the last, heads hold a share
    ``held`` (1: a cache that nothing was evicted from). ``empty`` more slots are added behind. ``rows`` and ``order``
    of KV heads cut and permute what there is; ``exact`` gives the numbers of ``dtype`` in float32. What is asked for
    beyond what ``plan`` declares is refused, and ``asked`` remembers the rest.
    """

    sample: Sample
    geometry: Geometry
    plan: ScorePlan
    layer: int = 0
    tokens: int = 24
    held: float = 1.0
    empty: int = 0
    dtype: torch.dtype = torch.float32
    exact: bool = False
    rows: slice = slice(None)
    order: tuple[int, ...] | None = None
    asked: set[str] = attrs.field(factory=set)

    @cached_property
    def seen(self) -> Tensor:
        """int64 (b,): tokens read so far in each row."""
        counts = self._rng.integers(1, self.tokens + 1, self.sample.rows)
        counts[0] = self.tokens
        return torch.from_numpy(counts)[self.rows]

    @cached_property
    def positions(self) -> Tensor:
        """int64 (b, k, n), ascending, -1 where empty."""
        rng = self._rng
        rng.integers(1, self.tokens + 1, self.sample.rows)
        shape = (self.sample.rows, self.geometry.kv_heads, self.tokens)
        holds = torch.from_numpy(rng.random(shape) < self.held)[self.rows][:, self._kv_order]
        places = torch.arange(self.tokens).expand_as(holds)
        last = self.seen[:, None, None] - 1
        filled = (places <= last) & (holds | (places == last))
        slots = places.masked_fill(~filled, self.tokens).sort(dim=-1).values
        slots = slots[..., : int(filled.sum(dim=-1).max())]
        return torch.nn.functional.pad(slots.masked_fill(slots == self.tokens, -1), (0, self.empty), value=-1)

    @cached_property
    def keys(self) -> Tensor:
        """Rotated keys (b, k, n, d)."""
        return self._held(self.rotate(self._states[1], self._places))

    @cached_property
    def values(self) -> Tensor:
        """Values (b, k, n, d)."""
        return self._held(self._states[2])

    def unrotated(self) -> Tensor:
        """Keys without rotary embeddings (b, k, n, d)."""
        self._may_rotate()
        return self._held(self._states[1])

    def queries(self, count: int) -> Tensor:
        """The last ``count`` queries without rotary embeddings, (b, heads, at most count, d)."""
        self._declared("queries", count)
        self._may_rotate()
        asked = self._numbers(min(count, int(self.seen.max())))
        states = self._states[0].gather(
            2, asked.clamp_min(0)[:, None, :, None].expand(*self._states[0].shape[:2], -1, self.geometry.head_dim)
        )
        return self._given(states.masked_fill((asked < 0)[:, None, :, None], 0.0))

    def attention(self, queries: int) -> Tensor:
        """Attention of the last queries to the entries held, float32 (b, heads, q, n)."""
        self._declared("attention", queries)
        return self._attention(self._numbers(queries))

    def accumulated_attention(self) -> Tensor:
        """Attention received from all queries so far, float32 (b, heads, n)."""
        assert self.plan.accumulates, "the score asks for attention received; say accumulates=True in the plan"
        self.asked.add("accumulated_attention")
        return self._attention(self._numbers(self.tokens)).sum(dim=2)

    def rotate(self, states: Tensor, distance: Tensor) -> Tensor:
        """Rotary embeddings on the first half of the numbers of a head, the rest passes."""
        half = max(1, self.geometry.head_dim // 4)
        angles = distance.double().unsqueeze(-1) * 100.0 ** -(torch.arange(half) / half).double()
        cos, sin = angles.cos().float(), angles.sin().float()
        first, second, rest = states[..., :half], states[..., half : 2 * half], states[..., 2 * half :]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(states.dtype)
        return torch.cat([turned, rest.expand(*turned.shape[:-1], -1)], dim=-1)

    @property
    def _rng(self) -> np.random.Generator:
        return np.random.default_rng((self.sample.seed, self.layer, self.tokens))

    @property
    def _kv_order(self) -> list[int]:
        return list(range(self.geometry.kv_heads) if self.order is None else self.order)

    @property
    def _places(self) -> Tensor:
        return torch.arange(self.tokens)

    @cached_property
    def _states(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, heads, tokens, d), keys and values (b, k, tokens, d), in numbers that ``dtype`` has."""
        group = self.geometry.heads // self.geometry.kv_heads
        heads = [kv_head * group + member for kv_head in self._kv_order for member in range(group)]
        queries, keys, values = _drawn(self.sample, self.geometry, self.layer, self.tokens)
        orders = ((queries, heads), (keys, self._kv_order), (values, self._kv_order))
        cut = [states[self.rows][:, order].to(self.dtype).float() for states, order in orders]
        return cut[0], cut[1], cut[2]

    def _numbers(self, count: int) -> Tensor:
        """Numbers of the last ``count`` tokens of each row, (b, count); below 0 where a row is shorter."""
        return self.seen[:, None] - count + torch.arange(count)

    def _attention(self, asked: Tensor) -> Tensor:
        rotated = self.rotate(self._states[0], self._places)
        place = asked.clamp_min(0)[:, None, :, None].expand(*rotated.shape[:2], -1, rotated.shape[-1])
        group = self.geometry.heads // self.geometry.kv_heads
        keys, positions = (of.repeat_interleave(group, dim=1) for of in (self.keys.float(), self.positions))
        logits = rotated.gather(2, place) @ keys.transpose(-1, -2) / self.geometry.head_dim**0.5
        visible = (positions >= 0).unsqueeze(2) & (positions.unsqueeze(2) <= asked[:, None, :, None])
        # a query sees nothing where its own entry and all earlier ones are evicted
        shares: Tensor = logits.masked_fill(~visible, torch.finfo(torch.float32).min).softmax(dim=-1)
        return shares.masked_fill(~visible, 0.0)

    def _held(self, states: Tensor) -> Tensor:
        """The states of the entries that are held, zero where empty."""
        place = self.positions.clamp_min(0).unsqueeze(-1).expand(-1, -1, -1, states.shape[-1])
        return self._given(states.gather(2, place).masked_fill((self.positions < 0).unsqueeze(-1), 0.0))

    def _given(self, states: Tensor) -> Tensor:
        rounded = states.to(self.dtype)
        return rounded.float() if self.exact else rounded

    def _may_rotate(self) -> None:
        assert self.plan.rotates, "the score asks for states without rotary embeddings; say rotates=True in the plan"

    def _declared(self, what: str, count: int) -> None:
        declared = self.plan.queries
        assert 1 <= count <= declared, f"the score asks for {what} of {count} queries; its plan remembers {declared}"
        self.asked.add("queries")


@lru_cache(maxsize=4)
def _drawn(sample: Sample, geometry: Geometry, layer: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries (rows, heads, tokens, d), keys and values (rows, k, tokens, d) around a mean of their own."""
    generator = torch.Generator().manual_seed(sample.seed + layer)
    scale = 1.0 if sample.kind == "diffuse" else 3.0
    states = []
    for heads in (geometry.heads, geometry.kv_heads, geometry.kv_heads):
        shape = (sample.rows, heads, tokens, geometry.head_dim)
        mean = torch.randn(geometry.head_dim, generator=generator)
        states.append(torch.randn(shape, generator=generator) * scale + mean)
    return states[0], states[1], states[2]


@lru_cache(maxsize=8)
def fake_profile(sample: Sample, geometry: Geometry) -> HeadProfile:
    """A head profile at random: classes, probabilities, and attention that falls with distance."""
    rng = np.random.default_rng((sample.seed, geometry.layers))
    probabilities = rng.dirichlet((0.5, 0.5, 0.5), (geometry.layers, geometry.heads))
    reach = rng.uniform(1, 300, (geometry.layers, geometry.heads, 1))
    return HeadProfile(
        model=geometry.name,
        labels=HeadLabels.most_probable(CLASSES, probabilities),
        windows=WINDOWS,
        mass=0.9 * (1 - np.exp(-np.array(WINDOWS) / reach)),
        strategy="made-up",
        text="made-up",
    )
