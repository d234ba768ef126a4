"""What a trial cost and where it ran: times, multiply-adds, bytes, versions, hardware."""

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
from headwise_lab.models.load import DTYPES, Loaded
from headwise_lab.store.record_types import Cost

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel
    from transformers.utils import ModelOutput


STEPS = 8
"""New tokens of the timed ``generate``."""


def counted(plan: PruningPlan, eviction: EvictionPlan, text: int, dtype: str) -> Cost:
    """Prefill multiply-adds and KV bytes of two plans, counted, with ``text`` tokens beside the visual ones.

    A window plan also spares attention; that is not counted, as prefill attention is a small part of it.
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
    """Prefill, decode and selection times over the first ``batches`` batches, after the model has warmed up.

    ``attached`` puts the recipe on the model, and nothing that watches it. The model without it is timed ``in_turns``
    with it, batch by batch, so that whatever else the machine is doing meets both; else once for all trials that share
    ``inputs``.

    ``prefill_ms``: median wall-clock time of one forward of a batch, vision tower included, over its rows.
    ``prefill_share``: median of that time over the unpruned model's, ``prefill_unpruned_ms``.
    ``decode_tokens_per_s``: the same batches generate exactly STEPS tokens; what that takes beyond the prefill is spent
    on rows x (STEPS - 1) tokens, since the prefill gives the first. None where the clock cannot tell them apart.
    ``selection_ms``: what choosing tokens and KV entries took in the prefill of that generation, evidence included,
    over its rows; the prefill that is timed alone has no watch in it. ``selection_share``: of ``prefill_ms``.
    """
    prefills, unpruned, shares, rates, selections, parts = [], [], [], [], [], []
    for batch in islice(inputs.batches(), batches):
        tensors, rows = batch.on(loaded), len(batch.visual)
        with attached() as attachment:
            with choices_timed(loaded.model, loaded.device, attachment.pipeline) as choices:
                whole = _seconds(loaded, generate, loaded, tensors, STEPS, STEPS)
            alone = _seconds(loaded, prefill, loaded.model, tensors)
        plain = None if in_turns else _plain.setdefault(inputs, {}).get(batch.first)
        if plain is None:
            plain = _plain.setdefault(inputs, {})[batch.first] = _seconds(loaded, prefill, loaded.model, tensors)
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
        selection_ms=_median(selections),
        selection_share=_median(parts),
        decode_tokens_per_s=_median(rates),
    )


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


_plain: WeakKeyDictionary[Inputs, dict[int, float]] = WeakKeyDictionary()
"""Seconds that the model as it is took for the batches that begin with a question."""


def prefill(model: PreTrainedModel, tensors: BatchFeature) -> ModelOutput:
    """One forward over whole prompts, with logits for the last token alone where the model can leave out the others."""
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(**tensors, use_cache=True, **last_only)


def _seconds(loaded: Loaded, work: Callable[..., object], *arguments: object) -> float:
    """Wall-clock time of one call, everything a GPU still has to do included."""
    cuda = torch.device(loaded.device).type == "cuda"
    if cuda:
        torch.cuda.synchronize(loaded.device)
    start = time.perf_counter()
    work(*arguments)
    if cuda:
        torch.cuda.synchronize(loaded.device)
    return time.perf_counter() - start


def generate(loaded: Loaded, tensors: BatchFeature, most: int, least: int = 0) -> torch.Tensor:
    """Greedy new tokens (b, ``most`` at most), stopping at the end-of-sequence token."""
    from transformers import GenerationConfig

    tokenizer, own = loaded.processor.tokenizer, loaded.model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    chosen = GenerationConfig(
        max_new_tokens=most,
        min_new_tokens=least or None,
        do_sample=False,
        num_beams=1,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    ids: torch.Tensor = loaded.model.generate(**tensors, generation_config=chosen)
    return ids[:, tensors["input_ids"].shape[1] :]


def mean_text(lengths: Sequence[int]) -> int:
    """Tokens of a prompt that are not visual, on average, to the nearest whole number."""
    return round(sum(lengths) / len(lengths))
