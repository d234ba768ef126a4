"""What visual-pruning strategies hand back: queries and pruning plans; and what observers are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from headwise.budget import processed_per_layer
from headwise.errors import BudgetError
from headwise.geometry import Geometry
from headwise.hints import within
from headwise.numbers import counted

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


class Embeddings(Protocol):
    """What the language model was given for each token of a batch, before its first layer."""

    def visual(self, row: int) -> Tensor:
        """(v, d): all visual tokens the row entered the model with."""
        ...

    def at(self, row: int, positions: npt.NDArray[np.int64]) -> Tensor:
        """(n, d): the tokens at some positions of the row's layout."""
        ...


ATTENTION = ("attention", "unbiased", "unrotated", "own")
"""Kinds of attention a stage can ask for. ``attention``: of the layer in front of the stage, as the model computed it.
``unbiased``: the same, divided by what rotary positions alone would give (SparseVLM+). ``unrotated``: the same layer's
queries and keys without rotary positions. ``own``: the queries and keys of the stage's own layer, computed ahead."""

READS = (*ATTENTION, "keys", "vision", "clip")
"""Evidence that has to be announced in ``Stage.reads``, because collecting it starts before the stage does."""


class Evidence(Protocol):
    """What a stage may look at, computed only when asked for: b rows with v visual tokens each.

    A row is a prompt with all its images, or one image of a prompt where the stage is ``per_image``. What is named in
    ``READS`` must stand in the stage's ``reads``.
    """

    def attention(self, kind: str = "attention") -> Tensor:
        """Token scores float32 (b, v): attention of the chosen queries, averaged over the chosen heads.

        ``kind`` is one of ``ATTENTION``.
        """
        ...

    def head_attention(self, kind: str = "attention") -> Tensor:
        """Attention of the chosen queries by head, before any head is chosen: float32 (b, h, v)."""
        ...

    def hidden(self) -> Tensor:
        """Hidden states (b, v, d) of the visual tokens, entering the stage's layer."""
        ...

    def text(self) -> tuple[Tensor, Tensor]:
        """Hidden states (b, t, d) of the tokens after the first image, entering the stage's layer, and bool (b, t)."""
        ...

    def keys(self) -> Tensor:
        """Keys (b, v, kv_heads * head_dim) of the visual tokens in the layer in front of the stage (``keys``)."""
        ...

    def text_keys(self) -> tuple[Tensor, Tensor]:
        """Keys (b, t, kv_heads * head_dim) of the tokens after the first image, and which are real, bool (b, t)."""
        ...

    def features(self) -> Tensor:
        """Output (b, v, c) of the vision layer that the model reads, before the projector (``vision``).

        Where the projector merges several patches into one token, their features stand side by side.
        """
        ...

    def saliency(self) -> Tensor:
        """Attention float32 (b, v) in that vision layer, averaged over heads (``vision``).

        From the CLS token, or where there is none, from all patches on average.
        """
        ...

    def vision_keys(self) -> Tensor:
        """Keys (b, v, head_dim) of that vision layer, averaged over heads (``vision``)."""
        ...

    def clip_similarity(self, folder: str | None = None) -> Tensor:
        """Cosine float32 (b, v) of each visual token with the question in CLIP's common space (``clip``).

        ``folder`` holds a CLIP model whose vision tower is the model's; None takes the one the model's config names.
        A long question is cut into segments, whose cosines are averaged. Raises ModelError where there is none.
        """
        ...

    @property
    def clip(self) -> str | None:
        """The CLIP model that the model's config names, where it is to be had, else None."""
        ...

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the row's visual tokens in reading order; None where they form no single grid."""
        ...

    def note(self, key: str, values: Sequence[object]) -> None:
        """Put one value per row into the run's record."""
        ...

    def seeds(self) -> Tensor:
        """int64 (b,): a number that depends on each row's images alone, not on the rest of the batch."""
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
        """How many tokens this stage leaves, already scaled to v."""
        ...


@attrs.frozen(eq=False)
class Merged:
    """Tokens that go on, each a weighted sum of tokens that entered the stage.

    ``positions``: integer (b, keep), the places in 0..v-1 where they stand, all different. ``weights``: float
    (b, keep, v); the hidden state at place i becomes ``weights[:, i] @ hidden``. A token that stays as it is has a row
    with a single 1.
    """

    positions: Tensor
    weights: Tensor


@attrs.frozen(eq=False)
class Kept:
    """One stage's outcome, checked: ``positions`` int64 (b, keep), ascending, and what led there.

    ``scores`` (b, v) where the stage gave scores, ``weights`` (b, keep, v) where it merged, each else None.
    """

    positions: Tensor
    scores: Tensor | None = None
    weights: Tensor | None = None


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(given)


def _known(_: object, __: object, reads: tuple[str, ...]) -> None:
    unknown = [name for name in reads if name not in READS]
    if unknown:
        raise ValueError(f"a stage reads {unknown[0]!r}; wanted some of {', '.join(READS)}")


@attrs.frozen(eq=False)
class Stage:
    """One place where visual tokens leave the model.

    ``layer``: tokens are dropped before this decoder layer; 0 drops before the language model.
    ``keep``: visual tokens left of one image's ``geometry.visual_tokens``, merged ones included; scaled where a row has
    more or fewer.
    ``select``: from evidence to token scores, float (b, v), to kept positions, integer (b, keep) in 0..v-1, or to
    :class:`Merged`. Of equal scores the lower position stays. Tokens whose output the caller reads (the last of a
    prompt, supervised ones) always stay, as they are: of positions, given best first, they take the places of the last.
    ``reads``: what of ``READS`` it asks for. ``merged``: how many of ``keep`` are merged out of dropped tokens.
    ``per_image``: every image (of a prompt with several, or of one cut into crops) keeps its own share, and evidence
    has a row per image; tokens that belong to no image (newlines) stay.
    """

    layer: int = attrs.field(validator=counted(0))
    keep: int = attrs.field(validator=counted(0))
    select: Callable[[Evidence], Tensor | Merged] = attrs.field(validator=attrs.validators.is_callable())
    reads: tuple[str, ...] = attrs.field(default=(), converter=_names, validator=_known)
    merged: int = attrs.field(default=0, validator=counted(0))
    per_image: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))

    @property
    def reads_attention(self) -> bool:
        """Whether queries and heads have a say."""
        return any(kind in self.reads for kind in ATTENTION)

    def keep_of(self, visual: int, geometry: Geometry) -> int:
        """Tokens left of a row that entered the model with ``visual`` tokens; at least 1 where there is any."""
        scaled = int(self.keep * visual / geometry.visual_tokens + 0.5)
        return min(visual, max(1, scaled))


@attrs.frozen(eq=False)
class PruningPlan:
    """A token-pruning method spelled out for one geometry: its stages, inspectable before anything runs.

    ``reported``: the average that the method's own paper or code would report, where it counts other than what the
    layers process. Raises BudgetError for stages that are out of order, outside the model, or keep more than they get.
    """

    geometry: Geometry
    stages: tuple[Stage, ...] = ()
    reported: float | None = None

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
                    f"a stage before layer {stage.layer} keeps {stage.keep} of {kept} visual tokens; keep"
                    f" {within(1, kept) if kept else 'nothing, and name no stage: the model reads text alone'}"
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
    notes: Mapping[str, Sequence[object]]


@attrs.frozen(eq=False, kw_only=True)
class Selection:
    """One stage's outcome for rows of equal visual count, as observers see it.

    ``rows``: batch rows. ``kept`` int64 (rows, keep): surviving visual tokens, ascending, counted among the visual
    tokens the row entered the model with. ``attention`` (rows, h, v), ``token_scores`` (rows, v) over the tokens that
    entered this stage, and ``heads`` are None where the stage did not read them. ``notes``: what the stage noted, one
    value per row each.
    """

    layer: int
    rows: tuple[int, ...]
    entered: Tensor
    kept: Tensor
    attention: Tensor | None
    token_scores: Tensor | None
    heads: HeadChoice | None
    notes: Mapping[str, Sequence[object]] = attrs.field(factory=dict)
