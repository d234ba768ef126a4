"""Dropping visual tokens between decoder layers: hidden states, positions, masks and cache follow.

Before the first layer of a stage, the survivors are gathered out of the hidden states. The model's own loop keeps
handing every later layer what belongs to the full sequence, so each of them gets its positions and mask cut down the
same way. Layers behind a stage cache fewer keys than those in front of it; which ones they hold is remembered on the
cache itself, so decoding, further turns and copies of the cache find it there. The first layer's cache tells
transformers how far the sequence has come, therefore it always reports the full length.

Pruning happens in a forward that carries image tokens, and in no other: decoding steps and later turns without an
image are only kept consistent. Outputs have the length the caller put in; dropped positions come out as zeros.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwise.errors import ModelError
from headwise.layout import IMAGE, Layout
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan, Selection, Stage
from headwise_adapters.anatomy import Anatomy
from headwise_adapters.evidence import StageEvidence, checksum
from headwise_adapters.masks import Tokens, sliced
from headwise_adapters.probe import Probe, probing

_HELD = "_headwise_held"  # attribute of a KV cache: layer -> Tokens it holds
_Kwargs = dict[str, Any]


@contextmanager
def dropping(anatomy: Anatomy, pipeline: Pipeline, plan: PruningPlan) -> Iterator[None]:
    """Prune ``anatomy``'s model by a plan; every hook and probe is gone afterwards, also after an exception."""
    with ExitStack() as stack:
        probes = {
            stage.layer: stack.enter_context(probing(anatomy.attention_of(stage.layer - 1)))
            for stage in plan.stages
            if stage.reads_attention
        }
        dropper = Dropper(anatomy, pipeline, plan, probes)
        for handle in dropper.hooks():
            stack.callback(handle.remove)
        yield


class Dropper:
    """The hooks of one attachment, and the forward they are in."""

    def __init__(self, anatomy: Anatomy, pipeline: Pipeline, plan: PruningPlan, probes: dict[int, Probe]) -> None:
        self._anatomy, self._pipeline, self._plan, self._probes = anatomy, pipeline, plan, probes
        self._signature = inspect.signature(anatomy.outer.forward)
        self._forward: Forward | None = None

    def hooks(self) -> list[Any]:
        """Register everything; returns the handles."""
        anatomy, handles = self._anatomy, []
        handles.append(anatomy.outer.register_forward_pre_hook(self._enter, with_kwargs=True))
        handles.append(anatomy.outer.register_forward_hook(self._leave, always_call=True))
        handles.append(anatomy.text.register_forward_hook(self._restore_length))
        stages = {stage.layer: stage for stage in self._plan.stages}
        for layer in range(self._plan.stages[0].layer, len(anatomy.layers)):
            hook = self._layer_hook(layer, stages.get(layer))
            handles.append(anatomy.layers[layer].register_forward_pre_hook(hook, with_kwargs=True))
        return handles

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: _Kwargs) -> None:
        given = self._signature.bind_partial(*args, **kwargs).arguments
        self._forward = Forward.begin(self._anatomy, {**given, **given.get("kwargs", {})})

    def _leave(self, *_: object) -> None:
        self._forward = None
        for probe in self._probes.values():
            probe.forget()

    def _restore_length(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        """Put surviving hidden states back where their tokens stood, so that the caller's positions still hold."""
        forward = self._forward
        if forward is None or forward.tokens is None or not hasattr(output, "last_hidden_state"):
            return output
        short = output.last_hidden_state
        full = short.new_zeros(short.shape[0], forward.length, short.shape[2])
        states = short * forward.tokens.real.unsqueeze(-1)
        index = forward.tokens.index.unsqueeze(-1).expand_as(short)
        output.last_hidden_state = full.scatter(1, index, states)
        return output

    def _layer_hook(self, layer: int, stage: Stage | None) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: _Kwargs) -> tuple[tuple[Any, ...], _Kwargs] | None:
            forward = self._forward
            if forward is None:
                return None
            cache = kwargs.get(self._anatomy.cache)
            hidden = args[0] if args else kwargs["hidden_states"]
            if stage is not None and forward.has_images:
                hidden = self._drop(forward, stage, hidden)
            view = forward.view(layer, cache, kwargs, self._pipeline.recipe.positions == "compact", hidden)
            if view is None:
                return None
            kwargs = {**kwargs, **view}
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    def _drop(self, forward: Forward, stage: Stage, hidden: Tensor) -> Tensor:
        """Select and gather; returns the hidden states of the tokens that stay."""
        keeps = [stage.keep_of(entered, self._plan.geometry) if entered else 0 for entered in forward.entered]
        counts = forward.layout.image_counts
        groups: dict[tuple[int, int], list[int]] = {}
        for row, (count, keep) in enumerate(zip(counts, keeps, strict=True)):
            if keep < count:
                groups.setdefault((count, keep), []).append(row)
        survivors: dict[int, Tensor] = {}
        for (_, keep), rows in groups.items():
            survivors.update(self._select(forward, stage, hidden, rows, keep))
        if not survivors:
            return hidden
        index = forward.drop(survivors)
        return hidden.gather(1, index.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))

    def _select(self, forward: Forward, stage: Stage, hidden: Tensor, rows: list[int], keep: int) -> dict[int, Tensor]:
        """Row -> positions of the visual tokens that stay, for rows with equally many; observers see it."""
        evidence = StageEvidence(
            pipeline=self._pipeline,
            layout=forward.layout,
            rows=rows,
            hidden_states=hidden,
            probe=self._probes.get(stage.layer),
            image_seeds=forward.seeds,
            share=self._plan.share,
            keep=keep,
        )
        kept, token_scores = self._pipeline.select(stage, evidence, len(rows))
        entered = torch.stack([torch.from_numpy(forward.visual_numbers(row)) for row in rows])
        self._pipeline.observe(
            Selection(
                layer=stage.layer,
                rows=tuple(rows),
                entered=entered,
                kept=entered.gather(1, kept.cpu()),
                attention=evidence.mean_attention,
                token_scores=token_scores,
                heads=evidence.choice,
            )
        )
        return dict(zip(rows, evidence.columns.gather(1, kept.to(evidence.columns.device)), strict=True))


class Forward:
    """One forward of the model: what was put in, and which of its tokens are still there.

    ``length``: tokens put in. ``past``: tokens seen before. ``tokens``: those left, as positions within this forward,
    or None while all of them are. ``layout``: kinds of the tokens left. ``entered``: visual tokens put in, per row.
    """

    def __init__(self, anatomy: Anatomy, given: _Kwargs, layout: Layout, past: int, device: torch.device) -> None:
        self._anatomy, self._given, self.layout, self.past, self.device = anatomy, given, layout, past, device
        self.length = layout.length
        self.entered = layout.image_counts
        self.has_images = any(self.entered)
        self.tokens: Tokens | None = None
        self._numbers = np.where(layout.kinds == IMAGE, np.cumsum(layout.kinds == IMAGE, axis=1) - 1, -1)
        self._dropped = np.zeros((len(layout), self.length), dtype=bool)
        self._views: dict[int, tuple[Tokens, _Kwargs]] = {}  # by identity of what a layer held before
        self._seeds: Tensor | None = None

    @classmethod
    def begin(cls, anatomy: Anatomy, given: _Kwargs) -> Forward:
        """Read the arguments of a forward of the outer model."""
        source = given.get("input_ids")
        if source is None:
            source = given["inputs_embeds"]
        batch, length = source.shape[:2]
        mask, cache = given.get("attention_mask"), given.get("past_key_values")
        valid = np.ones((batch, length), dtype=bool)
        if isinstance(mask, Tensor) and mask.ndim == 2:
            valid = mask[:, -length:].bool().cpu().numpy()
        layout = Layout.of(_image_tokens(anatomy, given, source), valid)
        return cls(anatomy, given, layout, int(cache.get_seq_length()) if cache is not None else 0, source.device)

    def visual_numbers(self, row: int) -> np.ndarray:
        """Which of the row's entered visual tokens are left, ascending."""
        numbers = self._numbers if self.tokens is None else self._numbers_at(self.tokens.index)
        return numbers[row, self.layout.image(row)]

    def _numbers_at(self, index: Tensor) -> np.ndarray:
        """Visual numbers of tokens ``index`` (b, n) of this forward, -1 where they are not visual."""
        return np.take_along_axis(self._numbers, index.cpu().numpy(), axis=1)

    def drop(self, survivors: dict[int, Tensor]) -> Tensor:
        """Drop the visual tokens of some rows that are not among their survivors; returns the gather (b, n).

        The batch stays rectangular: rows that keep more tokens set its length; in the others, padding and then
        dropped visual tokens fill up and are hidden from every query.
        """
        kinds = self.layout.kinds
        keep = kinds > 0
        for row, positions in survivors.items():
            keep[row] &= kinds[row] != IMAGE
            keep[row, positions.cpu().numpy()] = True
        width = int(keep.sum(axis=1).max())
        # A stable sort by (kept, padding, dropped) puts what stays first; what fills up follows it.
        rank = np.where(keep, 0, np.where(kinds == 0, 1, 2))
        index = np.sort(np.argsort(rank, axis=1, kind="stable")[:, :width], axis=1)
        real = np.take_along_axis(keep, index, axis=1)
        gather = torch.from_numpy(index).to(self.device)
        before = self.tokens or Tokens.everything(len(self.layout), self.length, 0, self.device)
        left = before.index.gather(1, gather)
        self._dropped = self._numbers >= 0
        np.put_along_axis(self._dropped, left.cpu().numpy(), ~real & (self._numbers_at(left) >= 0), axis=1)
        gone = torch.from_numpy(self._dropped.sum(axis=1, keepdims=True)).to(self.device)
        self.tokens = Tokens(left, torch.from_numpy(real).to(self.device), gone)
        self.layout = self.layout.take(index, real)
        self._views.clear()
        return gather

    def view(self, layer: int, cache: Any, kwargs: _Kwargs, compact: bool, hidden: Tensor) -> _Kwargs | None:
        """Mask and positions of the tokens this layer sees; None where it sees everything, as the model thinks.

        Layers of one stage hold the same tokens and share their view; the cache is told what they hold from now on.
        """
        earlier: Tokens | None = getattr(cache, _HELD, {}).get(layer)
        if self.tokens is None and earlier is None:
            return None
        if id(earlier) not in self._views:
            now = self.tokens or Tokens.everything(hidden.shape[0], self.length, 0, self.device)
            keys = self._keys(earlier, now)
            self._views[id(earlier)] = keys, self._make_view(now, keys, kwargs, compact, hidden)
        keys, view = self._views[id(earlier)]
        if cache is not None:
            _tell(cache, layer, keys, self.past + self.length)
        return view

    def _keys(self, earlier: Tokens | None, now: Tokens) -> Tokens:
        """What a layer holds after this forward."""
        new = Tokens(now.index + self.past, now.real, now.gone)
        if earlier is None:
            earlier = Tokens.everything(now.index.shape[0], self.past, 0, self.device)
        return earlier.then(new)

    def _make_view(self, now: Tokens, keys: Tokens, kwargs: _Kwargs, compact: bool, hidden: Tensor) -> _Kwargs:
        flash = "flash" in str(self._anatomy.text.config._attn_implementation)
        mask = sliced(kwargs.get("attention_mask"), now.index, keys, past=self.past, flash=flash)
        positions = kwargs["position_ids"].expand(now.index.shape[0], -1).gather(1, now.index)
        if not compact:
            rotary = tuple(_gathered(table, now.index) for table in kwargs["position_embeddings"])
            return {"attention_mask": mask, "position_ids": positions, "position_embeddings": rotary}
        gone_here = torch.from_numpy(np.cumsum(self._dropped, axis=1)).to(self.device).gather(1, now.index)
        positions = positions - gone_here - (keys.gone - now.gone)
        rotary = self._anatomy.text.rotary_emb(hidden, position_ids=positions)
        return {"attention_mask": mask, "position_ids": positions, "position_embeddings": rotary}

    def seeds(self) -> Tensor:
        """int64 (b,): a checksum of each row's images, in the order they were given."""
        if self._seeds is None:
            images = _images(self._given)
            self._seeds = torch.tensor(_per_row(images, self.entered), dtype=torch.int64)
        return self._seeds


def _image_tokens(anatomy: Anatomy, given: _Kwargs, source: Tensor) -> np.ndarray:
    """Bool (b, length): where image features go. Embeddings are compared with the placeholder's, as the model does."""
    if source.ndim == 2:
        image = source == anatomy.image_token
    elif given.get("pixel_values") is None and not given.get("mm_encoder_outputs"):
        image = torch.zeros(source.shape[:2], dtype=torch.bool)
    else:
        placeholder = anatomy.text.get_input_embeddings()(torch.tensor(anatomy.image_token, device=source.device))
        image = (source == placeholder).all(dim=-1)
    return image.cpu().numpy()


def _images(given: _Kwargs) -> list[Tensor]:
    """The images of a forward, in the order of their tokens: pixels where given, else the features."""
    pixels = given.get("pixel_values")
    if pixels is None:
        pixels = given["mm_encoder_outputs"]["image"].pooler_output
    return list(pixels)


def _per_row(images: list[Tensor], entered: tuple[int, ...]) -> list[int]:
    """One checksum per row; images are shared out in proportion to the rows' visual tokens."""
    per_image = max(1, sum(entered) // max(1, len(images)))
    seeds, start = [], 0
    for count in entered:
        own = images[start : start + count // per_image]
        start += len(own)
        seeds.append(checksum(torch.stack(own)) if own else 0)
    return seeds


def _gathered(table: Tensor, index: Tensor) -> Tensor:
    """Rotary table (b|1, length, d) at ``index`` (b, n)."""
    return table.expand(index.shape[0], -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[-1]))


def _tell(cache: Any, layer: int, keys: Tokens, seen: int) -> None:
    """Remember on the cache what a layer holds, and keep it reporting the tokens seen where layer 0 holds fewer.

    Transformers reads the length of the sequence off the first layer, for positions as well as for masks.
    """
    if not hasattr(cache, _HELD):
        if cache.is_compileable or any(cache.is_sliding):
            raise ModelError(
                f"{type(cache).__name__} has a fixed or sliding length, which pruned layers cannot share;"
                " generate with the default dynamic cache"
            )
        setattr(cache, _HELD, {})
    getattr(cache, _HELD)[layer] = keys
    if layer == 0:
        cache.get_seq_length = lambda *_, **__: seen
        cache.get_mask_sizes = lambda query_length, *_, **__: (seen + query_length, 0)
