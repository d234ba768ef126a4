"""What a trial costs: planned multiply-adds and bytes, and measured times."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from headwise.attachment import Attachment
from headwise.budget import prefill_flops
from headwise.eviction import EvictionPlan, entries_held
from headwise.plan import PruningPlan
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.cost.selection import choices_timed
from headwise_lab.models.generation import greedy
from headwise_lab.models.load import Loaded, LoadedModel
from headwise_lab.models.placing import DTYPES
from headwise_lab.store.record_types import Cost

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel
    from transformers.utils import ModelOutput


STEPS = 8
"""New tokens of the timed ``generate``."""


def counted(plan: PruningPlan, eviction: EvictionPlan, text: int, dtype: str) -> Cost:
    """Prefill multiply-adds and KV bytes as two plans foresee them, with ``text`` tokens beside the visual ones.

    A window plan also saves attention. That is left out, because attention is a small part of a prefill.
    """
    geometry = plan.geometry
    entries = entries_held(eviction, [count + text for count in plan.processed])
    formula = "gated" if geometry.gated else "fastv"
    return Cost(
        flops_visual=prefill_flops(geometry, plan.processed, 0, formula),
        flops_total=prefill_flops(geometry, plan.processed, text, formula),
        flops_formula=formula,
        text_tokens=text,
        kv_bytes=sum(entries) * 2 * geometry.head_dim * DTYPES[dtype].itemsize,
    )


@torch.inference_mode()
def timed(
    loaded: Loaded,
    inputs: Inputs,
    batches: int,
    attached: Callable[[], AbstractContextManager[Attachment]],
    *,
    in_turns: bool = True,
) -> Cost:
    """Prefill, decode and selection times over the first ``batches`` batches; a generation before warms the model up.

    ``attached`` puts the recipe on the model, without observers. With ``in_turns``, each batch is timed with the recipe
    and then without it, so that other work on the machine slows both. Otherwise the time without it is measured once
    for all trials that share ``inputs``.

    ``prefill_ms``: median wall-clock time of one forward of a batch, vision tower included, divided by its rows.
    ``prefill_unpruned_ms``: the same without the recipe; ``prefill_share``: the median ratio of both times, of
    which ``prefill_share_low`` and ``prefill_share_high`` are the lowest and the highest.
    ``decode_tokens_per_s``: every batch generates exactly STEPS tokens. The prefill gives the first; the time beyond a
    prefill's goes to the other rows x (STEPS - 1) tokens. None where generating was not measured to be slower.
    ``selection_ms``: the time that the generation's prefill spends on choosing tokens and KV entries, with evidence,
    divided by its rows; the prefill timed for ``prefill_ms`` has no stopwatch in it. ``selection_share``: its share of
    ``prefill_ms``.
    """
    prefills, unpruned, shares, rates, selections, parts = [], [], [], [], [], []
    for batch in islice(inputs.batches(), batches):
        tensors, rows = batch.on(loaded), len(batch.visual)
        with attached() as attachment:
            with choices_timed(loaded.model, loaded.device, attachment.pipeline) as choices:
                whole = seconds(loaded, generate, loaded, tensors, STEPS, STEPS)
            alone = seconds(loaded, prefill, loaded.model, tensors)
        plain = None if in_turns else _plain.setdefault(inputs, {}).get(batch.first)
        if plain is None:
            plain = _plain.setdefault(inputs, {})[batch.first] = seconds(loaded, prefill, loaded.model, tensors)
        prefills.append(1000 * alone / rows)
        unpruned.append(1000 * plain / rows)
        shares.append(alone / plain)
        selections.append(1000 * choices.seconds() / rows)
        parts.append(choices.seconds() / alone)
        if whole > alone:
            rates.append(rows * (STEPS - 1) / (whole - alone))
    return Cost(
        prefill_ms=_median(prefills),
        prefill_unpruned_ms=_median(unpruned),
        prefill_share=_median(shares),
        prefill_share_low=min(shares, default=None),
        prefill_share_high=max(shares, default=None),
        selection_ms=_median(selections),
        selection_share=_median(parts),
        decode_tokens_per_s=_median(rates),
    )


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


_plain: WeakKeyDictionary[Inputs, dict[int, float]] = WeakKeyDictionary()
"""Inputs -> first question of a batch -> seconds of its prefill without a recipe."""


def prefill(model: PreTrainedModel, tensors: BatchFeature) -> ModelOutput:
    """One forward over whole prompts; models that can leave out logits compute those of the last token only."""
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(**tensors, use_cache=True, **last_only)


def seconds(loaded: LoadedModel, work: Callable[..., object], *arguments: object) -> float:
    """Wall-clock time of one call, until a GPU of any kind has also finished its work."""
    behind = torch.device(loaded.device).type != "cpu"  # such devices work behind the host's back
    if behind:
        torch.accelerator.synchronize(loaded.device)
    start = time.perf_counter()
    work(*arguments)
    if behind:
        torch.accelerator.synchronize(loaded.device)
    return time.perf_counter() - start


def generate(loaded: Loaded, tensors: BatchFeature, most: int, least: int = 0) -> torch.Tensor:
    """Greedy new tokens (b, ``most`` at most), stopping at the end-of-sequence token."""
    chosen = greedy(loaded.model, loaded.processor.tokenizer, most, min_new_tokens=least or None)
    ids: torch.Tensor = loaded.model.generate(**tensors, generation_config=chosen)
    return ids[:, tensors["input_ids"].shape[1] :]
