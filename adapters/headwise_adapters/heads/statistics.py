"""What the heads of a decoder do on a text: measured when asked for, in bounded memory, leaving no trace on the model.

Attention comes from probes (never ``output_attentions``), reduced block of rows by block of rows right after each layer
ran: no more than one block of one layer's attention exists at a time. The copy score is that of induction heads on
repeated random tokens (Olsson et al., "In-context Learning and Induction Heads", 2022; Tang et al., "RazorAttention",
2024).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import attrs
import numpy as np
import torch
from torch import Tensor

from headwise.adapter import Decoder
from headwise.attachment import adapter_for
from headwise.errors import DataError
from headwise.eviction import UNBOUNDED, WindowPlan
from headwise.geometry import Geometry
from headwise.heads import AttentionShares, Floats
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_adapters import patching
from headwise_adapters.attention.probe import Probe, probing
from headwise_adapters.eviction.streaming import read_plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 2**22
"""Attention weights of one layer that are held at once."""

COPIED = 256
"""Random tokens that are repeated once."""

REPEATS = 8
"""Sequences of repeated random tokens, from which the standard error comes."""

Found = TypeVar("Found")

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, steps done, and steps in all."""


def measure(
    model: PreTrainedModel,
    ids: Tensor,
    *,
    segments: int = 8,
    first: int = 256,
    seed: int = 0,
    special: Collection[int] = (),
    progress: Progress | None = None,
) -> ModelStatistics:
    """Statistics of a model's heads on one text ``ids`` int64 (n,); nothing runs before something is asked.

    Attention is averaged over the rows from ``first`` on, from n // 4 on if that is earlier, in ``segments`` runs of
    equally many rows (up to ``segments`` - 1 rows at the front are left out). ``seed`` draws the random tokens of
    ``copying``, never one of ``special`` or of the model's own special tokens. Raises DataError for a text that is too
    short, ModelError for a model no adapter knows.
    """
    if ids.ndim != 1 or ids.is_floating_point():
        raise DataError(f"a text is one row of token ids, not {ids.dtype} of shape {tuple(ids.shape)}")
    adapter = adapter_for(model)
    return ModelStatistics(
        geometry=adapter.geometry,
        model=model,
        decoder=adapter.decoder,
        ids=ids,
        spans=_spans(ids.numel(), segments, first),
        seed=seed,
        special=frozenset(special),
        progress=progress or (lambda what, done, total: None),
    )


def _spans(length: int, segments: int, first: int) -> list[range]:
    """Query rows of each segment; the last row is the text's last token. Raises DataError for a text too short."""
    rows = (length - min(first, length // 4)) // segments
    if rows < 1:
        raise DataError(
            f"a text of {length} tokens is too short for {segments} segments of attention rows; give a longer one"
        )
    ends = [length - rows * step for step in reversed(range(segments))]
    return [range(end - rows, end) for end in ends]


@attrs.define(eq=False, kw_only=True)
class ModelStatistics:
    """Heads of one model on one text (:class:`headwise.heads.HeadStatistics`); what was measured is remembered.

    ``asked``: names of the measurements made so far.
    """

    geometry: Geometry
    asked: set[str] = attrs.field(factory=set, init=False)
    _model: PreTrainedModel
    _decoder: Decoder
    _ids: Tensor
    _spans: list[range]
    _seed: int
    _special: frozenset[int]
    _progress: Progress
    _found: dict[tuple[str | int, ...], object] = attrs.field(factory=dict, init=False)

    def attention(self, sinks: int) -> AttentionShares:
        """Where attention goes, with the first ``sinks`` tokens counted apart; one forward of the decoder."""
        return self._once("attention", self._attention, sinks)

    def copying(self) -> tuple[Floats, Floats]:
        """Attention of repeated random tokens on what followed their first copy: mean and SE over sequences, (l, h)."""
        return self._once("copying", self._copying)

    def sensitivity(self, sinks: int, window: int) -> tuple[Floats, Floats]:
        """Rise of the loss, in nats, of tokens predicted where one KV head alone hides entries: mean and SE, (l, h).

        One pass over the text for every KV head of every layer; the query heads of a KV head share its value. The SE
        is that of paired differences, token by token. Raises DataError for a text that never outgrows the window.
        """
        return self._once("sensitivity", self._sensitivity, sinks, window)

    def _once(self, name: str, make: Callable[..., Found], *arguments: int) -> Found:
        key: tuple[str | int, ...] = (name, *arguments)
        if key not in self._found:
            with torch.no_grad():
                self._found[key] = make(*arguments)
            self.asked.add(name)
        return cast("Found", self._found[key])

    def _attention(self, sinks: int) -> AttentionShares:
        shape = (len(self._spans), self.geometry.layers, self.geometry.heads)
        sink, entropy = np.zeros(shape), np.zeros(shape)
        distance = np.zeros((*shape, self._ids.numel()))
        rows = len(self._spans[0])

        def read(layer: int, probe: Probe) -> None:
            for segment, span in enumerate(self._spans):
                for block in self._blocks(span):
                    weights = self._rows(probe, block)
                    sink[segment, layer] += _total(weights[..., :sinks])
                    entropy[segment, layer] += _total(_relative_entropy(weights, block))
                    distance[segment, layer, :, : block.stop] += _by_distance(weights, block, sinks)
            self._progress("attention", layer + 1, self.geometry.layers)

        self._run(self._ids, read)
        return AttentionShares(
            sinks=sinks, sink=sink / rows, distance=distance / rows, entropy=entropy / rows, rows=rows
        )

    def _copying(self) -> tuple[Floats, Floats]:
        scores = np.zeros((REPEATS, self.geometry.layers, self.geometry.heads))
        special = self._special_tokens()
        opening = self._ids[:1] if int(self._ids[0]) in special else self._ids[:0]  # begin as the text does
        for repeat, tokens in enumerate(self._random_tokens(special)):
            copied, end = tokens.numel(), opening.numel() + 2 * tokens.numel()
            queries = range(end - copied, end - 1)  # after the last token's first copy comes the second, no copy

            def read(layer: int, probe: Probe, repeat: int = repeat, queries: range = queries) -> None:
                for block in self._blocks(queries):
                    followers = range(block.start - len(queries), block.stop - len(queries))  # of the first copies
                    copies = self._rows(probe, block, followers).diagonal(dim1=-2, dim2=-1)
                    scores[repeat, layer] += _total(copies.unsqueeze(-1)) / len(queries)

            self._run(torch.cat([opening.cpu(), tokens, tokens]), read)
            self._progress("copying", repeat + 1, REPEATS)
        return scores.mean(axis=0), scores.std(axis=0, ddof=1) / math.sqrt(REPEATS)

    def _special_tokens(self) -> set[int]:
        """Those the caller names and those of the model's configuration."""
        config = self._model.config.get_text_config()
        own = [getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
        return {int(one) for given in own for one in np.atleast_1d([] if given is None else given)} | self._special

    def _random_tokens(self, special: set[int]) -> Iterator[Tensor]:
        """Sequences of tokens of which none comes twice, as many as the vocabulary and the model's length allow."""
        config = self._model.config.get_text_config()
        allowed = torch.tensor([token for token in range(config.vocab_size) if token not in special], device="cpu")
        count = min(COPIED, allowed.numel(), (config.max_position_embeddings - 1) // 2)
        generator = torch.Generator().manual_seed(self._seed)
        for _ in range(REPEATS):
            yield allowed[torch.randperm(allowed.numel(), generator=generator, device="cpu")[:count]]

    def _sensitivity(self, sinks: int, window: int) -> tuple[Floats, Floats]:
        """Means and standard errors (l, h); raises DataError for a text that never outgrows the window."""
        shape, tokens = (self.geometry.layers, self.geometry.kv_heads), self._ids.numel()
        if tokens < sinks + window + 3:  # two paired differences at the least
            raise DataError(f"a text of {tokens} tokens never outgrows {sinks} sinks and a window of {window}")
        mean, error = np.zeros(shape), np.zeros(shape)
        full = self._losses(WindowPlan.uniform(self.geometry, 0, UNBOUNDED))
        for step, place in enumerate(itertools.product(*map(range, shape))):
            plan = WindowPlan.uniform(self.geometry, 0, UNBOUNDED)
            plan.sinks[place], plan.windows[place] = sinks, window
            rise = (self._losses(plan) - full)[sinks + window :]  # the queries before it see everything
            mean[place], error[place] = rise.mean(), rise.std(ddof=1) / math.sqrt(rise.size)
            self._progress("sensitivity", step + 1, mean.size)
        group = self.geometry.heads // self.geometry.kv_heads
        return mean.repeat(group, axis=1), error.repeat(group, axis=1)

    def _losses(self, plan: WindowPlan) -> Floats:
        """Nats of tokens 1..n-1, float64 (n - 1,)."""
        nll = read_plan(self._model, Pipeline(Recipe(strategies={})), plan, self._ids).nll
        return np.asarray(nll.double().cpu().numpy())

    def _run(self, ids: Tensor, read: Callable[[int, Probe], None]) -> None:
        """One forward over ``ids`` (n,) without the head; ``read`` gets each layer's probe right after it ran."""
        with reading(self._decoder, read):
            self._decoder.text(input_ids=ids[None].to(self._model.device), use_cache=False)

    def _rows(self, probe: Probe, rows: range, columns: range | None = None) -> Tensor:
        """Attention float32 (h, q, v) of some rows, on all they can see or on some columns."""
        wanted = columns or range(rows.stop)
        row = torch.zeros(1, dtype=torch.long)
        queries, keys = (torch.arange(some.start, some.stop)[None] for some in (rows, wanted))
        weights: Tensor = probe.rows(*(index.to(self._model.device) for index in (row, queries, keys)))[0]
        return weights

    def _blocks(self, rows: range) -> Iterator[range]:
        """Rows in runs so short that their attention fits the room."""
        size = max(1, ROOM // (self.geometry.heads * rows.stop))
        for start in range(rows.start, rows.stop, size):
            yield range(start, min(start + size, rows.stop))


@contextmanager
def reading(decoder: Decoder, read: Callable[[int, Probe], None]) -> Iterator[None]:
    """Inside, every attention module hands its probe to ``read(layer, probe)`` after it ran, and forgets at once."""
    with ExitStack() as stack:
        for layer in range(len(decoder.layers)):
            module = decoder.attention_of(layer)
            probe = stack.enter_context(probing(module))

            def ran(_: object, layer: int = layer, probe: Probe = probe) -> None:
                read(layer, probe)
                probe.forget()

            stack.enter_context(patching.after(module, ran))
        stack.enter_context(patching.memory())
        yield


def _total(weights: Tensor) -> Floats:
    """Sum over all but the heads: (h, q, v) -> (h,)."""
    return np.asarray(weights.sum(dim=(1, 2), dtype=torch.float64).cpu().numpy())


def _relative_entropy(weights: Tensor, rows: range) -> Tensor:
    """Entropy of each row as a share of that of an even one: (h, q, v) -> (h, q, 1)."""
    largest = torch.arange(rows.start + 1, rows.stop + 1, device=weights.device).clamp_min(2).log()
    entropy: Tensor = torch.special.entr(weights).sum(dim=-1, keepdim=True)
    return entropy / largest[:, None]


def _by_distance(weights: Tensor, rows: range, sinks: int) -> Floats:
    """Sum over rows of the weight ``d`` tokens back, sinks left out: (h, q, v) -> (h, v)."""
    back = torch.arange(weights.shape[-1], device=weights.device)
    columns = torch.arange(rows.start, rows.stop, device=weights.device)[:, None] - back
    moved = weights.gather(-1, columns.clamp_min(0).expand_as(weights))
    moved = moved.masked_fill(columns < sinks, 0.0)
    return np.asarray(moved.sum(dim=1, dtype=torch.float64).cpu().numpy())
