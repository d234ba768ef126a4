"""What a trial is measured for beside its times: counted multiply-adds, stored bytes, peak memory."""

from __future__ import annotations

from typing import Any

import torch

from headwise_lab.flops import Attached, counted_prefill, unpruned_prefill
from headwise_lab.inputs import Inputs
from headwise_lab.measure import generate
from headwise_lab.memory import Peak, peak_of

PEAK_STEPS = 2
"""New tokens of the generation whose memory is watched: the prefill's, and one of a step that reads its cache."""


def watched(inputs: Inputs, attached: Attached) -> dict[str, Any]:
    """Two forwards of the first batch, and a short step; the unpruned model's count comes once per ``inputs``.

    ``attached`` puts the recipe on the model. ``flops_counted``: multiply-adds of one prefill per row, from pixels to
    the last token's logits; ``flops_counted_layers`` and ``flops_counted_selection`` are parts of it,
    ``flops_counted_unpruned`` is the same of the model as it is. ``kv_bytes_stored``: storages of the cache after that
    prefill, per row. Rows are as long as in the batch, padding included. ``peak_bytes``, ``peak_grown_bytes`` and
    ``peak_source``: memory of the whole batch (:class:`headwise_lab.memory.Peak`).
    """
    found, peak = counted_prefill(inputs, attached), _peak(inputs, attached)
    return {
        "flops_counted": found.flops,
        "flops_counted_unpruned": unpruned_prefill(inputs).flops,
        "flops_counted_layers": found.layers,
        "flops_counted_selection": found.selection,
        "kv_bytes_stored": found.kv_bytes,
        "peak_bytes": peak.bytes,
        "peak_grown_bytes": peak.grown,
        "peak_source": peak.source,
    }


@torch.inference_mode()
def _peak(inputs: Inputs, attached: Attached) -> Peak:
    loaded, batch = inputs.loaded, next(inputs.batches())
    tensors = batch.on(loaded)
    with attached(), peak_of(loaded.device) as peak:
        generate(loaded, tensors, PEAK_STEPS, PEAK_STEPS)
    return peak
