"""What a trial is measured for beside its times: counted multiply-adds, stored bytes, peak memory."""

from __future__ import annotations

from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.cost.flops import Attached, counted_prefill, unpruned_prefill
from headwise_lab.cost.memory import peak_of
from headwise_lab.store.record_types import Cost


def watched(inputs: Inputs, attached: Attached) -> Cost:
    """One forward of the first batch; the unpruned model's comes once per ``inputs``.

    ``attached`` puts the recipe on the model. ``flops_counted``: multiply-adds of one prefill per row, from pixels to
    the last token's logits; ``flops_counted_layers`` and ``flops_counted_selection`` are parts of it,
    ``flops_counted_unpruned`` is the same of the model as it is. ``kv_bytes_stored``: storages of the cache after that
    prefill, per row. Rows are as long as in the batch, padding included. ``peak_bytes``, ``peak_grown_bytes`` and
    ``peak_source``: memory of that prefill, of the whole batch (:class:`headwise_lab.cost.memory.Peak`), without what
    is held for other trials to share.
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
