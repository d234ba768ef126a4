"""What visual-pruning strategies hand back: queries and pruning plans; and what observers are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from headwise.budget import processed_per_layer
from headwise.errors import BudgetError
from headwise.geometry import Geometry

if TYPE_CHECKING:
    from torch import Tensor

UNUSED = -1
"""Fills the query slots of rows that ask fewer tokens than their neighbours."""

Weights = npt.NDArray[np.float64]


@attrs.frozen(eq=False)
class Queries:
    """Query tokens of a batch: ``positions`` int (b, q), ``UNUSED`` where a row has fewer, and their weights.

    ``weights`` is float (b, q), 0 where unused, else a function from attention, float32 (b, h, q, v), to such a
    tensor. An unused query's attention is all zero. Weights sum to 1 over a row.
    """

    positions: npt.NDArray[np.int64]
    weights: Weights | Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[int] | npt.NDArray[np.int64]],
        weights: Callable[[Tensor], Tensor] | Sequence[Sequence[float] | Weights] | None = None,
    ) -> Queries:
        """From one list of positions per row; ``weights`` likewise, or a function, or None for a plain mean."""
        width = max((len(row) for row in rows), default=0)
        positions = np.full((len(rows), width), UNUSED, dtype=np.int64)
        for padded, row in zip(positions, rows, strict=True):
            padded[: len(row)] = row
        if callable(weights):
            return cls(positions, weights)
        values = np.zeros(positions.shape)
        shares = [1 / max(len(row), 1) for row in rows] if weights is None else weights
        for padded_values, row, share in zip(values, rows, shares, strict=True):
            padded_values[: len(row)] = share
        return cls(positions, values)


class Evidence(Protocol):
    """What a stage may look at, computed only when asked for. b rows with v visual tokens each."""

    def attention(self) -> Tensor:
        """Token scores float32 (b, v): attention of the chosen queries, averaged over the chosen heads."""
        ...

    def hidden(self) -> Tensor:
        """Hidden states (b, v, d) of the visual tokens, entering the stage's layer."""
        ...

    def seeds(self) -> Tensor:
        """int64 (b,): a number that depends on each row's image alone, not on the rest of the batch."""
        ...

    @property
    def batch(self) -> int:
        """b, the rows."""
        ...

    @property
    def visual(self) -> int:
        """v, the visual tokens of each row."""
        ...

    @property
    def keep(self) -> int:
        """How many of them this stage keeps, already scaled to v."""
        ...


@attrs.frozen(eq=False)
class Stage:
    """One place where visual tokens leave the model.

    ``layer``: tokens are dropped before this decoder layer; 0 drops before the language model.
    ``keep``: visual tokens kept of one image's ``geometry.visual_tokens``; scaled where a row has more or fewer.
    ``select``: from evidence to token scores, float (b, v), or to kept positions, integer (b, keep) in 0..v-1.
    Of equal scores the lower position stays.
    """

    layer: int
    keep: int
    select: Callable[[Evidence], Tensor]
    reads_attention: bool = False

    def keep_of(self, visual: int, geometry: Geometry) -> int:
        """Tokens kept of a row that entered the model with ``visual`` tokens; at least 1 where there is any."""
        scaled = int(self.keep * visual / geometry.visual_tokens + 0.5)
        return min(visual, max(1, scaled))


@attrs.frozen(eq=False)
class PruningPlan:
    """A token-pruning method spelled out for one geometry: its stages, inspectable before anything runs."""

    geometry: Geometry
    stages: tuple[Stage, ...] = ()

    def __attrs_post_init__(self) -> None:
        kept, last = self.geometry.visual_tokens, -1
        for stage in self.stages:
            if not last < stage.layer < self.geometry.layers:
                raise BudgetError(
                    f"a stage before layer {stage.layer} does not follow layer {last} within the"
                    f" {self.geometry.layers} layers of {self.geometry.name}; order stages by layer"
                )
            if not 1 <= stage.keep <= kept:
                raise BudgetError(
                    f"a stage before layer {stage.layer} keeps {stage.keep} of {kept} visual tokens; keep 1..{kept}"
                )
            kept, last = stage.keep, stage.layer

    @property
    def processed(self) -> tuple[int, ...]:
        """Visual tokens of one image that each decoder layer processes."""
        return processed_per_layer(self.geometry, [(stage.layer, stage.keep) for stage in self.stages])

    @property
    def average(self) -> float:
        """Visual tokens processed per decoder layer, on average."""
        return sum(self.processed) / self.geometry.layers

    @property
    def kept(self) -> int:
        """Visual tokens left after the last stage."""
        return self.processed[-1]

    @property
    def share(self) -> float:
        """The processed average as a share of all visual tokens."""
        return self.average / self.geometry.visual_tokens


@attrs.frozen(eq=False, kw_only=True)
class HeadChoice:
    """Which heads decided: ``scores`` (b, h), ``kept`` bool (b, h), and the notes strategies left, one per row."""

    scores: Tensor
    kept: Tensor
    notes: Mapping[str, Sequence[Any]]


@attrs.frozen(eq=False, kw_only=True)
class Selection:
    """One stage's outcome for rows of equal visual count, as observers see it.

    ``rows``: batch rows. ``kept`` int64 (rows, keep): surviving visual tokens, ascending, counted among the visual
    tokens the row entered the model with. ``attention`` (rows, h, v), ``token_scores`` (rows, v) over the tokens that
    entered this stage, and ``heads`` are None where the stage did not read them.
    """

    layer: int
    rows: tuple[int, ...]
    entered: Tensor
    kept: Tensor
    attention: Tensor | None
    token_scores: Tensor | None
    heads: HeadChoice | None
