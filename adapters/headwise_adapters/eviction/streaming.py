"""Reading a text exactly as a plan would have a model read it token by token, in far fewer forwards.

A window plan hides the same entries however many tokens come at once, so a text is read in chunks of any size, in
memory that does not grow with it. A score plan evicts after every ``every`` tokens, so it is read in such chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.attachment import adapter_for
from headwise.errors import BudgetError, DataError, ModelError
from headwise.eviction import EvictionPlan, WindowPlan, clamp_to_sliding_window, visible
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_adapters.cache.ragged_cache import EvictingCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 512
"""Tokens read at once unless the caller says otherwise."""

REBASE = 16384
"""Under relative positions, position ids start anew after this many tokens: float32 blurs the angles of large ones."""


@attrs.frozen(eq=False, kw_only=True)
class Reading:
    """What a model made of a text of n tokens.

    ``nll`` float64 (n - 1,): nats of tokens 1..n-1, each given all before. ``right`` bool (n - 1,): whether the most
    probable token was it. ``visible`` float64 (n,): entries each token saw, itself included, averaged over layers and
    KV heads. ``kv_bytes``: bytes of keys and values held at the end; ``peak_bytes``: the most held after any chunk.
    """

    nll: Tensor
    right: Tensor
    visible: Tensor
    kv_bytes: int
    peak_bytes: int


def read_text(
    model: PreTrainedModel,
    recipe: Recipe,
    ids: Tensor,
    *,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reading:
    """Read token ids int64 (n,) under a recipe's eviction plan.

    ``chunk``: tokens per forward. ``progress`` is called with how many tokens were read so far. Raises DataError for a
    text of fewer than two tokens, BudgetError for a plan or a chunk that cannot be read so.
    """
    pipeline = Pipeline(recipe)
    plan = pipeline.eviction(adapter_for(model).geometry)
    return read_plan(model, pipeline, plan, ids, chunk=chunk, progress=progress)


@torch.inference_mode()
def read_plan(
    model: PreTrainedModel,
    pipeline: Pipeline,
    plan: EvictionPlan,
    ids: Tensor,
    *,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reading:
    """As :func:`read_text`, by a plan that is already made.

    Raises DataError for a text of fewer than two tokens, ModelError for an adapter whose caches are none of ours.
    """
    if ids.ndim != 1 or len(ids) < 2:
        raise DataError(f"a text of shape {tuple(ids.shape)} cannot be read; give the ids of at least two tokens (n,)")
    plan = clamp_to_sliding_window(plan)
    size = _chunk(plan, chunk)
    cache = adapter_for(model).cache(pipeline, plan)
    if not isinstance(cache, EvictingCache):
        raise ModelError(f"a {type(cache).__name__} does not tell what a token sees; read texts with an EvictingCache")
    ids = ids.to(model.device)
    # Reserved beforehand: many small results kept between large temporary ones would fray the memory of long streams.
    nll, seen = torch.empty(len(ids) - 1, dtype=torch.float64), torch.empty(len(ids), dtype=torch.float64)
    right = torch.empty(len(ids) - 1, dtype=torch.bool)
    peak = origin = 0
    for start in range(0, len(ids), size):
        end = min(start + size, len(ids))
        seen[start:end] = _visible(cache, plan, start, end - start)
        origin += _rebased(cache, plan, start, origin)
        places = torch.arange(start, end, device=ids.device).unsqueeze(0) - origin
        out = model(input_ids=ids[None, start:end], position_ids=places, past_key_values=cache, use_cache=True)
        wanted = ids[start + 1 : end + 1]
        logits = out.logits[0, : len(wanted)].float()
        nll[start : start + len(wanted)] = F.cross_entropy(logits, wanted, reduction="none")
        right[start : start + len(wanted)] = logits.argmax(dim=-1) == wanted
        peak = max(peak, cache.kv_bytes())
        if progress is not None:
            progress(end)
    return Reading(nll=nll, right=right, visible=seen, kv_bytes=cache.kv_bytes(), peak_bytes=peak)


def _chunk(plan: EvictionPlan, chunk: int | None) -> int:
    """Tokens that may be read at once without changing what any of them sees; raises BudgetError where none may."""
    if chunk is not None and chunk < 1:
        raise BudgetError(f"a chunk of {chunk} tokens reads nothing; give at least 1")
    if isinstance(plan, WindowPlan):
        return chunk or CHUNK
    if not plan.every:
        raise BudgetError("every=0 evicts after a prefill only, and a text is read token by token; give every=16")
    return plan.every


def _rebased(cache: EvictingCache, plan: EvictionPlan, start: int, origin: int) -> int:
    """By how much position ids were lowered, which they are wherever that leaves what every token sees as it is."""
    if not isinstance(plan, WindowPlan) or plan.positions == "original":
        return 0
    longest = int((plan.sinks + plan.windows).max())
    distance = start - origin - longest
    if start < longest or distance < max(REBASE, longest):  # so an entry is turned, and rounded, once in its life
        return 0
    for layer in cache.layers:
        layer.rebase(distance)
    return distance


def _visible(cache: EvictingCache, plan: EvictionPlan, start: int, length: int) -> Tensor:
    """Entries that each of the next ``length`` tokens sees, averaged over layers and KV heads."""
    if isinstance(plan, WindowPlan):
        kinds = np.stack(np.broadcast_arrays(plan.sinks, plan.windows, plan.reach)).reshape(3, -1)
        kinds, heads = np.unique(kinds, axis=1, return_counts=True)
        seen = visible(start + np.arange(1, length + 1)[:, None], *kinds)
        return torch.from_numpy(seen @ heads / heads.sum())
    return torch.stack([layer.seen_next(length) for layer in cache.layers]).mean(dim=0)
