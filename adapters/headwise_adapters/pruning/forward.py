"""One forward of a model being pruned: what was put in, which tokens are left, and what each layer should see."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headwise.attention_math import taken
from headwise.errors import ModelError
from headwise.layout import IMAGE, PADDING, Layout
from headwise_adapters.cache.masks import NEVER, Tokens, flagged, renumbered, sliced
from headwise_adapters.cache.pruned_cache import check_kind, held_of, holdings_of, window_of
from headwise_adapters.cache.ragged_cache import EvictingLayer
from headwise_adapters.parts import VisionParts
from headwise_adapters.patching import Kwargs
from headwise_adapters.pruning.capturing import ActivationCapture, Call
from headwise_adapters.pruning.choices import Decision, Integers, generation_of
from headwise_adapters.pruning.given import Flags, check_embeddings, check_layout, real_tokens
from headwise_adapters.vision.images import Picture, shared_out, whole

if TYPE_CHECKING:
    from transformers import Cache
    from transformers.modeling_outputs import BaseModelOutputWithPooling

UNSUPERVISED = -100
"""The label of a token that a loss leaves out."""


class Forward:
    """One forward of the model: what was put in, and which of its tokens are still there.

    ``length``: tokens put in. ``past``: tokens seen before. ``tokens``: those left, as positions within this forward,
    or None while all of them are. ``layout``: kinds of the tokens left. ``entered``: visual tokens put in, per row.
    ``embeddings``: what the language model was given, (b, length, d), where a strategy reads it. ``entering``: what
    entered layer 0, where tokens were dropped in front of it. ``decided``: layer -> what was decided there. ``shown``,
    for layers that ran on fewer tokens than the model thinks: layer -> its tokens (None for all), its keys in positions
    of the full sequence, and how many of the last positions its cache would show of a whole text.
    """

    def __init__(self, parts: VisionParts, capture: ActivationCapture, given: Kwargs, layout: Layout) -> None:
        self._parts, self._capture, self._given, self.layout = parts, capture, given, layout
        cache = given.get("past_key_values")
        self.past = int(cache.get_seq_length()) if cache is not None else 0
        self.device = _source(given).device
        self.length = layout.length
        self.entered = layout.image_counts
        self.has_images = any(self.entered)
        self.tokens: Tokens | None = None
        self.embeddings: Tensor | None = None
        self.entering: Tensor | None = None
        self.shown: dict[int, tuple[Tokens | None, Tokens, int]] = {}
        self._kinds = layout.kinds
        self._image = layout.kinds == IMAGE
        self._checksums: dict[int, int] = {}  # by identity of the picture
        self._numbers = np.where(self._image, np.cumsum(self._image, axis=1) - 1, -1)
        self._views: dict[
            tuple[int | None, ...], tuple[Tokens, Tokens, Kwargs]
        ] = {}  # by what a layer held, and its windows
        self.decided = self._decided_before() if self.has_images else {}

    @classmethod
    def begin(cls, parts: VisionParts, capture: ActivationCapture, given: Kwargs) -> Forward:
        """Read the arguments of a forward of the outer model, or of the language model by itself."""
        source = _source(given)
        image = _image_tokens(parts, given, source)
        if image.any():
            check_kind(given.get("past_key_values"))
            flagged(parts.text)
        real = real_tokens(given, image)
        if source.ndim == 3:
            check_embeddings(parts.text, source, real)
        if image.any():
            check_layout(given, real)
        return cls(parts, capture, given, Layout.of(image, real))

    @cached_property
    def _prompt(self) -> int:
        """Columns of the prompt; the tokens behind them were generated, or are candidates of an assistant model."""
        generation = generation_of(self._parts.text)
        end = None if generation is None else generation.end(_source(self._given))
        return self.length if end is None else end

    def _decided_before(self) -> dict[int, Decision]:
        """What earlier steps of `generate` without a cache decided about this prompt; decisions hold for all steps.

        Raises ModelError where a step puts in something else than the prompt and what was generated.
        """
        generation = generation_of(self._parts.text)
        if generation is None or self._given.get("past_key_values") is not None:
            return {}
        if generation.end(_source(self._given)) is None:
            raise ModelError(
                "generate without a cache (use_cache=False) puts in another text than the prompt, so that what was"
                " chosen from it cannot be found again; use a cache"
            )
        pictures = (self.features_given, self._given.get("pixel_values"))
        return generation.decided(self._capture, self._kinds[:, : self._prompt], pictures)

    @property
    def asked(self) -> Layout:
        """The layout of the tokens left, in which tokens behind the prompt count as padding."""
        if self._prompt == self.length:
            return self.layout
        index = np.arange(self.length)[None] if self.tokens is None else self.tokens.index.cpu().numpy()
        return Layout(np.where(index < self._prompt, self.layout.kinds, PADDING).astype(np.uint8))

    @cached_property
    def _read(self) -> Flags:
        """Bool (b, length): tokens whose output the caller reads, which therefore may not be dropped.

        The last of each row's prompt; those that ``logits_to_keep`` names; and where there are labels, those that say
        or predict a supervised token.
        """
        real = self._kinds != PADDING
        read: Flags = np.zeros_like(real)
        asked = real[:, : self._prompt]
        read[:, : self._prompt] = asked & (np.cumsum(asked[:, ::-1], axis=1)[:, ::-1] == 1)
        named = self._given.get("logits_to_keep")
        if isinstance(named, int):
            read[:, -named if named else self.length :] = True  # 0, the default, names none
        elif named is not None:
            read[:, named.cpu().numpy() if isinstance(named, Tensor) else named] = True
        for name, ahead in (("labels", 0), ("labels", 1), ("shift_labels", 0)):
            labels = self._given.get(name)
            if isinstance(labels, Tensor) and labels.shape == read.shape:
                supervised = labels.cpu().numpy() != UNSUPERVISED
                read[:, : self.length - ahead] |= supervised[:, ahead:]
        read &= real
        return read

    @property
    def reads_images(self) -> bool:
        """Whether the caller reads the output of a visual token."""
        return bool((self._read & self._image).any())

    def read(self, rows: list[int], columns: Integers) -> Tensor:
        """Which tokens at ``columns`` (rows, v), among those left, the caller reads: bool (rows, v)."""
        if self.tokens is not None:
            columns = np.take_along_axis(self.tokens.index[rows].cpu().numpy(), columns, axis=1)
        return torch.from_numpy(np.take_along_axis(self._read[rows], columns, axis=1))

    def check(self, layer: int, hidden: Tensor) -> None:
        """Raise ModelError where hidden states (b, n, d) of tokens that are no padding are not finite."""
        real = torch.from_numpy(self.layout.kinds != PADDING).to(hidden.device)
        if not bool(torch.isfinite(hidden).all(dim=-1)[real].all()):
            raise ModelError(overflow(f"hidden states in front of layer {layer}", hidden.dtype))

    def ids(self, row: int) -> list[int]:
        """Token ids of a row's prompt as they were put in, without padding; ModelError where embeddings were put in."""
        ids: Tensor | None = self._given.get("input_ids")
        if ids is None:
            raise ModelError("the model was given embeddings, and this strategy reads the question; give it input_ids")
        real = torch.from_numpy(self._kinds[row, : self._prompt] != PADDING)
        found: list[int] = ids[row, : self._prompt].cpu()[real].tolist()
        return found

    @property
    def features_given(self) -> BaseModelOutputWithPooling | None:
        """The outputs of ``get_image_features`` that the model was handed instead of pixels, or None."""
        return (self._given.get("mm_encoder_outputs") or {}).get("image")

    @cached_property
    def call(self) -> Call | None:
        """The call that made the image features of this forward; None where it was not recorded."""
        return self._capture.call_for(self.features_given)

    @cached_property
    def pictures(self) -> list[list[Picture]]:
        """The images of each row; those whose features were made elsewhere are known by their features only."""
        if self.call is not None:
            found = self._parts.pictures(self.call.arguments)
        elif self.features_given is not None:
            features = list(self.features_given.pooler_output)
            found = [whole(number, len(feature), feature) for number, feature in enumerate(features)]
        else:
            found = []
        return shared_out(found, self.entered)

    def checksum(self, picture: Picture) -> int:
        """CRC-32 of an image's pixels: the same for the same image, whatever batch it comes in."""
        if id(picture) not in self._checksums:
            pixels = picture.pixels.detach().contiguous().cpu().flatten().view(torch.uint8)
            self._checksums[id(picture)] = zlib.crc32(pixels.numpy().data)
        return self._checksums[id(picture)]

    def visual_numbers(self, row: int) -> Integers:
        """Which of the row's entered visual tokens are left, ascending."""
        numbers: Integers = self._numbers[row]
        if self.tokens is not None:
            numbers = numbers[self.tokens.index[row].cpu().numpy()]
        return numbers[self.layout.image(row)]

    def visual(self, row: int) -> Tensor:
        """Embeddings (v, d) of all visual tokens the row entered with (:class:`headwise.plan.Embeddings`)."""
        return self.at(row, np.flatnonzero(self._image[row]), of_all=True)

    def at(self, row: int, positions: Integers, *, of_all: bool = False) -> Tensor:
        """Embeddings (n, d) of tokens at ``positions`` int64 (n,) among those left, or among all.

        Raises RuntimeError where nobody said that embeddings are read.
        """
        if self.embeddings is None:
            raise RuntimeError("embeddings were asked for and not kept")
        index = torch.from_numpy(positions).to(self.embeddings.device)
        if self.tokens is not None and not of_all:
            index = self.tokens.index[row].to(index.device)[index]
        return self.embeddings[row, index]

    def _numbers_at(self, index: Tensor) -> Integers:
        """Visual numbers of tokens ``index`` (b, n) of this forward, -1 where they are not visual."""
        return np.take_along_axis(self._numbers, index.cpu().numpy(), axis=1)

    def drop(self, survivors: dict[int, Integers]) -> Tensor:
        """Drop the visual tokens of some rows that are not among their survivors; returns the gather (b, n).

        The batch stays rectangular: rows that keep more tokens set its length; in the others, padding and then
        dropped visual tokens fill up and are hidden from every query.
        """
        kinds = self.layout.kinds
        keep = kinds != PADDING
        for row, positions in survivors.items():
            keep[row] &= kinds[row] != IMAGE
            keep[row, positions] = True
        width = int(keep.sum(axis=1).max())
        # A stable sort by (kept, padding, dropped) puts what stays first; what fills up follows it.
        rank = np.where(keep, 0, np.where(kinds == PADDING, 1, 2))
        index = np.sort(np.argsort(rank, axis=1, kind="stable")[:, :width], axis=1)
        real = np.take_along_axis(keep, index, axis=1)
        gather = torch.from_numpy(index).to(self.device)
        before = self.tokens or Tokens.everything(len(self.layout), self.length, self.device)
        left = before.index.gather(1, gather)
        dropped = self._numbers >= 0
        np.put_along_axis(dropped, left.cpu().numpy(), ~real & (self._numbers_at(left) >= 0), axis=1)
        lost = np.where(dropped, np.arange(self.length), NEVER)
        self.tokens = Tokens(left, torch.from_numpy(real).to(self.device), torch.from_numpy(lost).to(self.device))
        self.layout = self.layout.take(index, real)
        self._views.clear()
        return gather

    def view(self, layer: int, cache: Cache | None, kwargs: Kwargs, compact: bool, hidden: Tensor) -> Kwargs | None:
        """Mask and positions of the tokens this layer sees; None where it sees everything, as the model thinks.

        Layers of one stage hold the same tokens and share their view; the cache is told what they hold from now on.
        """
        earlier = held_of(cache, layer)
        if self.tokens is None and earlier is None:
            return None
        own = [] if cache is None else cache.layers[layer : layer + 1]  # a dynamic cache may grow with the layers
        kept = next(map(window_of, own), None)
        kind = (id(earlier), kept, self._parts.window(layer))
        if kind not in self._views:
            now = self.tokens or Tokens.everything(hidden.shape[0], self.length, self.device)
            keys = self._keys(earlier, now)
            shown = keys if kept is None else self._within(kept, keys, now.index.shape[1], compact)
            mask = self._mask(layer, now, shown, kwargs.get("attention_mask"), compact)
            view = {"attention_mask": mask, **self._positions(now, shown, kwargs, compact, hidden)}
            self._views[kind] = keys, shown, view
        keys, shown, view = self._views[kind]
        total = self.past + self.length
        wide = total if kept is None or compact else min(total, max(0, kept - 1) + self.length)
        self.shown[layer] = self.tokens, shown, wide
        evicts = any(isinstance(one, EvictingLayer) for one in own)
        if self._flags and not evicts:
            # Rotary tables are all that positions are for; flash attention takes gaps for the ends of packed texts.
            view = {**view, "position_ids": None}
        if cache is not None:
            holdings_of(cache, self._parts.text, compact).put(layer, keys, total)
            if self.tokens is not None and evicts:
                real = self.layout.kinds != PADDING  # neither padding nor mere filling
                dropped = None if compact else self.tokens.missing
                own[0].expect(None if real.all() else torch.from_numpy(real).to(self.device), dropped)
        return view

    @cached_property
    def _flags(self) -> bool:
        """Whether layers take flags for a mask."""
        return flagged(self._parts.text)

    def _keys(self, earlier: Tokens | None, now: Tokens) -> Tokens:
        """What a layer holds after this forward."""
        if earlier is None:
            earlier = Tokens.everything(now.index.shape[0], self.past, self.device)
        return earlier.then(now.behind(self.past))

    def _within(self, kept: int, keys: Tokens, new: int, compact: bool) -> Tokens:
        """What a cache layer shows that holds the last ``kept`` - 1 tokens and is given ``new`` ones.

        Raises ModelError where a compact sliding window reaches back to tokens that the cache holds no more.
        """
        shown = keys.last(min(keys.index.shape[1], max(0, kept - 1) + new))
        if compact and shown.index.shape[1] < keys.index.shape[1]:
            number = keys.index - keys.missing
            wanted = keys.real & (number > number[:, -new, None] - kept)
            if bool(wanted[:, : -shown.index.shape[1]].any()):
                raise ModelError(
                    "rows of this batch lost different numbers of visual tokens, and a cache that holds no more than a"
                    " sliding window no longer has tokens that positions=compact shows; use positions=keep, or read"
                    " each row by itself"
                )
        return shown

    def _mask(self, layer: int, now: Tokens, keys: Tokens, mask: Tensor | None, compact: bool) -> Tensor | None:
        """What a layer's queries may see of its keys, from the model's ``mask`` of the whole text.

        Raises ModelError where flash attention would apply a sliding window to a text with gaps.
        """
        given: Tensor | None = self._given.get("attention_mask")
        window, total = self._parts.window(layer), self.past + self.length
        hides = window is not None and window < total and bool(keys.missing.any())
        if hides and self._flags and not compact:
            raise ModelError(
                f"{self._parts.text.config._attn_implementation} counts the tokens of a layer for its"
                f" sliding window of {window}, without those that were dropped in front of it; use positions=compact,"
                " or set_attn_implementation('sdpa')"
            )
        if window is None or not hides or self._flags or not compact or (given is not None and given.ndim == 4):
            return sliced(mask, now.index, keys, past=self.past, flags=self._flags)
        added = None if mask is None or mask.dtype == torch.bool else mask.dtype
        return renumbered(given, keys.last(now.index.shape[1]), keys, window, added)

    def _positions(self, now: Tokens, keys: Tokens, kwargs: Kwargs, compact: bool, hidden: Tensor) -> Kwargs:
        """Position ids and rotary tables of the tokens left."""
        if not compact:
            return {"position_ids": _ids(kwargs, now), "position_embeddings": self.rotary(kwargs)}
        positions = self._compact(kwargs, now, keys.dropped_before - now.dropped_before)
        rotary = self._parts.text.rotary_emb(hidden, position_ids=positions)
        return {"position_ids": positions, "position_embeddings": rotary}

    def _compact(self, kwargs: Kwargs, now: Tokens, before: Tensor | int) -> Tensor:
        """Position ids (b, n) of the tokens left, counted without those dropped here or ``before`` in earlier turns."""
        positions: Tensor = kwargs["position_ids"].expand(now.index.shape[0], -1).gather(1, now.index)
        return positions - now.missing - before

    def places(self, compact: bool) -> Tensor:
        """Places of the tokens left in this forward, as a sliding window counts them, int64 (b, n)."""
        now = self.tokens or Tokens.everything(len(self.layout), self.length, self.device)
        return now.index - now.missing if compact else now.index

    def rotary(self, kwargs: Kwargs, compact: bool = False) -> tuple[Tensor, Tensor]:
        """Rotary tables (b, n, head_dim) of the tokens left, at the positions at which layers run them now.

        Where those are renumbered, up to a shift of a whole row by what earlier turns dropped, which no attention sees.
        """
        cos, sin = kwargs["position_embeddings"]
        if compact and self.tokens is not None:
            positions = self._compact(kwargs, self.tokens, 0)
            tables: tuple[Tensor, Tensor] = self._parts.text.rotary_emb(cos, position_ids=positions)
            return tables
        if self.tokens is None:
            return cos, sin
        return _gathered(cos, self.tokens.index), _gathered(sin, self.tokens.index)


def overflow(what: str, dtype: torch.dtype) -> str:
    """The error message for NaN or infinite numbers in ``what`` that the model computed."""
    name = str(dtype).removeprefix("torch.")
    return (
        f"the model computed NaN or infinite {what} in {name}, before anything was dropped; load it in"
        f" {'float32' if dtype == torch.bfloat16 else 'bfloat16 or float32'}, or look for broken weights or pictures"
    )


def _source(given: Kwargs) -> Tensor:
    """Token ids (b, length), or embeddings (b, length, d) where the model was given those."""
    ids: Tensor | None = given.get("input_ids")
    embeds: Tensor = given["inputs_embeds"] if ids is None else ids
    return embeds


def _image_tokens(parts: VisionParts, given: Kwargs, source: Tensor) -> Flags:
    """Bool (b, length): where image features go. Embeddings are compared with the placeholder's, as the model does.

    Without images there are none: a placeholder that the model itself generated is an ordinary token.
    """
    if given.get("pixel_values") is None and not given.get("mm_encoder_outputs"):
        image = torch.zeros(source.shape[:2], dtype=torch.bool)
    elif source.ndim == 2:
        image = source == parts.image_token
    else:
        placeholder = parts.text.get_input_embeddings()(torch.tensor(parts.image_token, device=source.device))
        image = (source == placeholder).all(dim=-1)
    flags: Flags = image.cpu().numpy()
    return flags


def _ids(kwargs: Kwargs, now: Tokens) -> Tensor | None:
    """Position ids (b, n) of the tokens left; families whose positions have several axes hand on none."""
    ids: Tensor | None = kwargs.get("position_ids")
    return None if ids is None else ids.expand(now.index.shape[0], -1).gather(1, now.index)


def _gathered(table: Tensor, index: Tensor) -> Tensor:
    """Rotary table (b|1, length, d) at ``index`` (b, n)."""
    return taken(table.expand(index.shape[0], -1, -1), index)
