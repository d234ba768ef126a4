"""What a trial costs apart from its times: counted multiply-adds, stored bytes, peak memory."""

from __future__ import annotations

from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.cost.flops import Attached, counted_prefill, unpruned_prefill
from headwise_lab.cost.memory import peak_of
from headwise_lab.store.record_types import Cost


def watched(inputs: Inputs, attached: Attached) -> Cost:
    """The cost of one prefill of the first batch, under the recipe that ``attached`` puts on the model.

    ``flops_counted``: multiply-adds per row, from the pixels to the logits of the last token.
    ``flops_counted_layers`` and ``flops_counted_selection`` are parts of it. ``flops_counted_unpruned``: the same
    without a recipe, counted once for all trials that share ``inputs``. ``kv_bytes_stored``: storages of the cache
    after the prefill, per row. Rows include their padding. ``peak_bytes``, ``peak_grown_bytes`` and ``peak_source``:
    the memory of the whole batch's prefill (:class:`headwise_lab.cost.memory.Peak`), without the tensors that are held
    for other trials.
    """
    with peak_of(inputs.loaded.device) as peak:
        found = counted_prefill(inputs, attached)
    return Cost(
        flops_counted=found.flops,
        flops_counted_unpruned=unpruned_prefill(inputs).flops,
        flops_counted_layers=found.layers,
        flops_counted_selection=found.selection,
        kv_bytes_stored=found.kv_bytes,
        peak_bytes=None if peak.bytes is None else max(peak.grown or 0, peak.bytes - inputs.prefix.held),
        peak_grown_bytes=peak.grown,
        peak_source=peak.source,
    )
