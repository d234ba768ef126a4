"""Counts what a prefill computes and stores while it runs, to compare with what :mod:`headwise.budget` plans.

torch's FlopCounterMode counts matrix products, convolutions and attention, two for every multiply-add. All figures
here are multiply-adds, as planned figures are. Both count attention between all pairs of tokens, even where it is
causal, and neither counts norms, activations, sorting and the like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import attrs
import torch
from torch.utils.flop_counter import FlopCounterMode

from headwise.attachment import Attachment, adapter_for, attach
from headwise.recipe import Recipe
from headwise_adapters import patching
from headwise_adapters.cache.ragged_cache import kv_bytes
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.cost.selection import each_choice
from headwise_lab.cost.timing import prefill

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Attached = Callable[[], AbstractContextManager[Attachment]]


@attrs.frozen(kw_only=True)
class Counted:
    """The counts of one batch's prefill, divided by its rows, padding included.

    ``flops``: multiply-adds from the pixels to the logits of the last token. ``layers`` is the part of the decoder
    layers, which planned figures are about. ``selection`` is the part that chooses tokens and KV entries, and computes
    evidence for that. ``kv_bytes``: the storages of the cache afterwards, each counted once.
    """

    flops: int
    layers: int
    selection: int
    kv_bytes: int


@torch.inference_mode()
def counted_prefill(inputs: Inputs, attached: Attached) -> Counted:
    """Count one prefill of the first batch, under the recipe that ``attached`` puts on the model."""
    loaded, batch = inputs.loaded, next(inputs.batches())
    rows = len(batch.visual)
    with attached() as attachment, _counting(loaded.model, attachment) as counter:
        out = prefill(loaded.model, batch.on(loaded))
    return Counted(
        flops=round(counter.so_far / rows),
        layers=round(counter.layers / rows),
        selection=round(counter.selection / rows),
        kv_bytes=round(kv_bytes(out.past_key_values) / rows),
    )


_unpruned: WeakKeyDictionary[Inputs, Counted] = WeakKeyDictionary()


def unpruned_prefill(inputs: Inputs) -> Counted:
    """Count the same without a recipe, once for all trials that share ``inputs``."""
    if inputs not in _unpruned:
        _unpruned[inputs] = counted_prefill(inputs, lambda: attach(inputs.loaded.model, Recipe.of()))
    return _unpruned[inputs]


class _Counter:
    """Multiply-adds so far, and which of them belong to decoder layers and to choices."""

    def __init__(self) -> None:
        self.mode = FlopCounterMode(display=False, custom_mapping=_MISSING)
        self.layers = self.selection = 0
        self._entered = 0

    @property
    def so_far(self) -> int:
        return self.mode.get_total_flops() // 2

    def enter(self, *_: object) -> None:
        """A decoder layer begins."""
        self._entered = self.so_far - self.selection

    def leave(self, _: object) -> None:
        """The layer ends. Choosing KV entries happened within it, but counts as selection."""
        self.layers += self.so_far - self.selection - self._entered

    @contextmanager
    def choice(self) -> Iterator[None]:
        """Tokens or KV entries are chosen inside the block."""
        before = self.so_far
        yield
        self.selection += self.so_far - before


@contextmanager
def _counting(model: PreTrainedModel, attachment: Attachment) -> Iterator[_Counter]:
    """Count inside the block. The counter's hooks are innermost, so what a recipe does around a layer is not in it."""
    counter = _Counter()
    with ExitStack() as stack:
        for layer in adapter_for(model).decoder.layers:
            stack.enter_context(patching.before(layer, counter.enter, innermost=True))
            stack.enter_context(patching.after(layer, counter.leave, innermost=True))
        stack.enter_context(each_choice(attachment.pipeline, counter.choice))
        stack.enter_context(counter.mode)
        yield counter


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    """Two for every multiply-add of queries (b, h, q, d) with keys and values (b, h_kv, n, d)."""
    batch, heads, queries, width = query
    return int(2 * batch * heads * queries * key[2] * (width + value[3]))


_MISSING = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""An attention kernel that FlopCounterMode does not know."""
