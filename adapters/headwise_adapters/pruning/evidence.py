"""Evidence of one stage, computed only when its plan asks for it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch import Tensor

from headwise.attention_math import taken
from headwise.errors import ModelError
from headwise.layout import PADDING, Layout
from headwise.pipeline import Pipeline
from headwise.plan import ATTENTION, HeadChoice, Stage
from headwise_adapters.attention.probe import Probe
from headwise_adapters.attention.projections import Asked, Unrotated, own_rows
from headwise_adapters.parts import VisionParts
from headwise_adapters.patching import Kwargs
from headwise_adapters.pruning.choices import Integers
from headwise_adapters.pruning.forward import Forward, overflow
from headwise_adapters.vision.clip import ClipRelevance, find, questions, tokenizer_of
from headwise_adapters.vision.images import Piece, VisionCapture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_BIAS = 0.05
"""The least rotary bias that ``unbiased`` attention is divided by, as a share of the bias at distance 0."""


@attrs.define(eq=False)
class Known:
    """What is read from disk once: the CLIP model that the config names, if any, and the model's tokenizer."""

    clip: str | None = None
    looked_for_clip: bool = False
    tokenizer: PreTrainedTokenizerBase | None = None


@attrs.frozen(eq=False, kw_only=True)
class Instruments:
    """What records evidence for a stage while the recipe is attached; None where the stage does not read it."""

    probe: Probe | None = None
    unrotated: Unrotated | None = None
    looks: bool = False
    clip: ClipRelevance = attrs.field(factory=ClipRelevance)
    known: Known = attrs.field(factory=Known)


@attrs.frozen(eq=False, kw_only=True)
class Scene:
    """A stage in a forward: ``hidden`` (batch, n, d) enters its layer with ``kwargs``; ``share`` is the plan's budget.

    ``looks``: what was read from the vision tower so far, for all pictures at once, so that it is computed once for all
    groups.
    """

    parts: VisionParts
    pipeline: Pipeline
    stage: Stage
    forward: Forward
    instruments: Instruments
    hidden: Tensor
    kwargs: Kwargs
    share: float
    looks: dict[str, list[Tensor]] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Group:
    """Rows of evidence with equally many visual tokens: whole prompts, or single pieces of images.

    ``rows``: the batch row of each. ``columns`` int64 (b, v): where its visual tokens stand among the tokens left.
    ``numbers`` int64 (b, v): the same, counted among the visual tokens the row entered with. ``pieces``: the piece that
    each is and where its tokens begin in the row, or None where each is a whole prompt.
    """

    rows: list[int]
    columns: Integers
    numbers: Integers
    pieces: list[tuple[Piece, int]] | None = None


class StageEvidence:
    """What a stage may look at (:class:`headwise.plan.Evidence`)."""

    def __init__(self, scene: Scene, group: Group, keep: int) -> None:
        self.keep = keep
        self.notes: dict[str, Sequence[object]] = {}
        self.mean_attention: Tensor | None = None
        self.choice: HeadChoice | None = None
        self._scene, self._group = scene, group
        self._rows = torch.tensor(group.rows, device=scene.hidden.device)
        self.columns = torch.from_numpy(group.columns).to(scene.hidden.device)
        self.read = scene.forward.read(group.rows, group.columns).to(scene.hidden.device)

    @property
    def batch(self) -> int:
        """Rows."""
        return int(self.columns.shape[0])

    @property
    def visual(self) -> int:
        """Visual tokens of each row."""
        return int(self.columns.shape[1])

    @cached_property
    def _layout(self) -> Layout:
        return self._scene.forward.asked.rows(self._group.rows)

    def attention(self, kind: str = "attention") -> Tensor:
        """Token scores (b, v): the chosen queries' attention, averaged over the chosen heads.

        Raises ModelError as :meth:`head_attention`.
        """
        pipeline = self._scene.pipeline
        attention = self.head_attention(kind)
        self.choice = pipeline.choose_heads(attention, self._scene.share, self.seeds)
        return pipeline.token_scores(attention, self.choice)

    def head_attention(self, kind: str = "attention") -> Tensor:
        """Attention by head (b, h, v), of the queries the recipe chooses.

        Raises ModelError for a kind that the stage does not declare, and for attention that is not finite.
        """
        if kind not in ATTENTION or kind not in self._scene.stage.reads:
            raise ModelError(
                f"a stage before layer {self._scene.stage.layer} asks for {kind!r} and does not say so;"
                f" its strategy must name it in the stage's reads, as one of {', '.join(ATTENTION)}"
            )
        pipeline, forward = self._scene.pipeline, self._scene.forward
        embeddings = RowsOf(forward, self._group.rows) if forward.embeddings is not None else None
        queries = pipeline.queries(self._layout, embeddings)
        positions = torch.from_numpy(queries.positions).to(self.columns.device)
        rows = self._rows_of(kind, positions)
        if not bool(torch.isfinite(rows).all()):
            raise ModelError(overflow(f"attention for layer {self._scene.stage.layer}", self._scene.hidden.dtype))
        self.mean_attention = pipeline.attend(rows, queries)
        return self.mean_attention

    def _rows_of(self, kind: str, queries: Tensor) -> Tensor:
        """Attention (b, h, q, v) of one kind."""
        scene, instruments = self._scene, self._scene.instruments
        if kind in ("attention", "unbiased"):
            assert instruments.probe is not None
            rows = instruments.probe.rows(self._rows, queries, self.columns)
            return rows if kind == "attention" else rows / self._rotary_bias(queries).unsqueeze(1)
        real = torch.from_numpy(self._layout.kinds != PADDING).to(self.columns.device)
        places = scene.forward.places(scene.pipeline.recipe.positions == "compact").to(self.columns.device)[self._rows]
        layer = scene.stage.layer - (kind == "unrotated")
        asked = Asked(self._rows, queries, self.columns, real, places, scene.parts.window(layer))
        if kind == "unrotated":
            assert instruments.unrotated is not None
            return instruments.unrotated.rows(asked)
        rotary = self._rotary()
        return own_rows(scene.parts.layers[layer], scene.parts.attention_of(layer), scene.hidden, rotary, asked)

    def _rotary(self) -> tuple[Tensor, Tensor]:
        """Rotary tables (b|1, n, head_dim) of the tokens left, at the positions that layers use here."""
        return self._scene.forward.rotary(self._scene.kwargs, self._scene.pipeline.recipe.positions == "compact")

    def _rotary_bias(self, queries: Tensor) -> Tensor:
        """How much rotary positions alone favour each visual token for queries (b, q): (b, q, v), 1 at distance 0.

        The product of a query and a key of ones, each turned to its position (SparseVLM+, "gravity correction"): the
        mean cosine of the angles between them, whichever numbers a model turns together. The published quotient can
        divide by nothing or change its sign, so small products count as ``LEAST_BIAS``.
        """
        cos, sin = self._rotary()
        turns = torch.cat([cos, sin], dim=-1).float().expand(self._scene.hidden.shape[0], -1, -1)[self._rows]
        asking, seen = (taken(turns, index) for index in (queries.clamp_min(0), self.columns))
        return (asking @ seen.transpose(1, 2) / cos.shape[-1]).clamp_min(LEAST_BIAS)

    def hidden(self) -> Tensor:
        """Hidden states (b, v, d) of the visual tokens, entering the stage's layer."""
        return taken(self._scene.hidden[self._rows], self.columns)

    def text(self) -> tuple[Tensor, Tensor]:
        """Hidden states (b, t, d) of the tokens after the first image, and which are real, bool (b, t)."""
        positions, real = self._text_positions
        return taken(self._scene.hidden[self._rows], positions), real

    def keys(self) -> Tensor:
        """Keys (b, v, kv_heads * head_dim) of the visual tokens in the layer in front of the stage.

        Raises ModelError where the stage does not declare that it reads keys.
        """
        return self._keys_at(self.columns)

    def text_keys(self) -> tuple[Tensor, Tensor]:
        """Keys (b, t, kv_heads * head_dim) of the tokens after the first image, and which are real, bool (b, t)."""
        positions, real = self._text_positions
        return self._keys_at(positions), real

    def _keys_at(self, positions: Tensor) -> Tensor:
        """Keys at ``positions`` (b, k); raises ModelError where no probe remembers them."""
        if self._scene.instruments.probe is None:
            raise ModelError("a stage asks for keys and does not say so; its strategy must name keys in its reads")
        keys = self._scene.instruments.probe.keys()[self._rows].transpose(1, 2).flatten(2)
        return taken(keys, positions)

    @cached_property
    def _text_positions(self) -> tuple[Tensor, Tensor]:
        """Positions (b, t) of the text tokens, 0 where a row has fewer, and which are real."""
        rows = [self._layout.text(row) for row in range(self.batch)]
        positions = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
        real = np.zeros(positions.shape, dtype=bool)
        for row, found in enumerate(rows):
            positions[row, : len(found)], real[row, : len(found)] = found, True
        return torch.from_numpy(positions).to(self.columns.device), torch.from_numpy(real).to(self.columns.device)

    def features(self) -> Tensor:
        """Vision features (b, v, c) of the layer the model reads.

        Raises ModelError where the stage does not declare that it reads them, or the tower ran unrecorded.
        """
        return self._gathered(self._look("features"))

    def saliency(self) -> Tensor:
        """Attention in that layer, float32 (b, v); raises ModelError as :meth:`features`."""
        return self._gathered([found.unsqueeze(-1) for found in self._look("saliency")]).squeeze(-1)

    def vision_keys(self) -> Tensor:
        """Keys (b, v, head_dim) of that layer, averaged over heads; raises ModelError as :meth:`features`."""
        return self._gathered(self._look("keys"))

    def _look(self, what: str) -> list[Tensor]:
        """``features``, ``saliency`` or ``keys`` of every picture (a ``VisionCapture``)."""
        looks = self._scene.looks
        if what not in looks:
            looks[what] = getattr(self._vision, what)()
        return looks[what]

    @property
    def _vision(self) -> VisionCapture:
        """What the vision tower computed; raises ModelError where that was not declared, or not recorded."""
        if not self._scene.instruments.looks:
            raise ModelError("a stage looks at the vision tower and does not say so; name vision or clip in its reads")
        vision = None if self._scene.forward.call is None else self._scene.forward.call.vision
        if vision is None:
            raise ModelError(
                "the image features of this forward were made elsewhere, and this strategy looks at the vision tower;"
                " give the model pixel_values inside the `with` block"
            )
        return vision

    def _gathered(self, pictures: list[Tensor]) -> Tensor:
        """Per-picture values (n, c) at this group's visual tokens: (b, v, c), 0 for tokens of no picture (newlines)."""
        rows = [self._of_row(place, pictures) for place in range(self.batch)]
        return torch.stack(rows).to(self.columns.device)

    def _of_row(self, place: int, pictures: list[Tensor]) -> Tensor:
        numbers, found = self._group.numbers[place], pictures[0].new_zeros(self.visual, pictures[0].shape[-1])
        for piece, start in self._pieces(place):
            own = np.isin(numbers, piece.tokens + start)
            patches = piece.patches[np.searchsorted(piece.tokens + start, numbers[own])]
            found[torch.from_numpy(own).to(found.device)] = pictures[piece.source][
                torch.from_numpy(patches).to(found.device)
            ]
        return found

    def _pieces(self, place: int) -> list[tuple[Piece, int]]:
        """The pieces that one row of evidence consists of, and where their images begin in the prompt."""
        if self._group.pieces is not None:
            return [self._group.pieces[place]]
        return pieces_of(self._scene.forward, self._group.rows[place])

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns, where every row of evidence is one whole picture of that shape."""
        grids = set()
        for place in range(self.batch):
            pieces = self._pieces(place)
            complete = len(pieces) == 1 and len(pieces[0][0].tokens) == self.visual
            grids.add(pieces[0][0].grid if complete else None)
        return grids.pop() if len(grids) == 1 else None

    @property
    def clip(self) -> str | None:
        """Folder of the CLIP model that the model's config names; None where it is not on this machine."""
        known = self._scene.instruments.known
        if not known.looked_for_clip:
            known.clip, known.looked_for_clip = find(self._scene.parts.outer.config), True
        return known.clip

    def clip_similarity(self, folder: str | None = None) -> Tensor:
        """Cosine float32 (b, v) of each visual token with the question in CLIP's common space.

        Raises ModelError where there is no CLIP model, in ``folder`` or as the config names it, or no tokenizer.
        """
        folder = folder or self.clip
        if folder is None:
            raise ModelError(
                "the model's config names no CLIP model that is to be had here; give one with clip=FOLDER,"
                " or relevance=embeddings"
            )
        features = list(self.features().unbind(0))
        return torch.stack(self._scene.instruments.clip.similarity(folder, features, self._questions()))

    def _questions(self) -> list[str]:
        """The question of each row, as text."""
        known = self._scene.instruments.known
        if known.tokenizer is None:
            known.tokenizer = tokenizer_of(self._scene.parts.outer)
        rows = [self._scene.forward.ids(row) for row in self._group.rows]
        return questions(known.tokenizer, rows, self._scene.parts.image_token)

    def note(self, key: str, values: Sequence[object]) -> None:
        """Note one value per row for observers and the run's record."""
        self.notes[key] = list(values)

    def seeds(self) -> Tensor:
        """Seeds int64 (b,) made from each row's images, the same in any batch."""
        forward, seeds = self._scene.forward, []
        for place, row in enumerate(self._group.rows):
            pixels = [forward.checksum(picture) for picture in forward.pictures[row]]
            own = self._group.pieces[place] if self._group.pieces is not None else None
            text = repr(pixels) if own is None else repr((pixels, own[1] + int(own[0].tokens[0])))
            seeds.append(zlib.crc32(text.encode()))
        return torch.tensor(seeds, dtype=torch.int64)


@attrs.frozen(eq=False)
class RowsOf:
    """Embeddings of some rows of a forward (:class:`headwise.plan.Embeddings`)."""

    forward: Forward
    rows: list[int]

    def visual(self, row: int) -> Tensor:
        """(v, d): all visual tokens the row entered with."""
        return self.forward.visual(self.rows[row])

    def at(self, row: int, positions: Integers) -> Tensor:
        """(n, d): tokens at some positions among those left."""
        return self.forward.at(self.rows[row], positions)


def pieces_of(forward: Forward, row: int) -> list[tuple[Piece, int]]:
    """All pieces of a row's images, each with the visual number at which its image begins."""
    found, start = [], 0
    for picture in forward.pictures[row]:
        found += [(piece, start) for piece in picture.pieces]
        start += picture.visual
    return found
