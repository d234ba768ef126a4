"""What strategies cost: times, tokens, multiply-adds and bytes, by strategy, budget and machine.

Trials on different machines, or with different precision or batch size, never share a row: a median over them would
mean nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from headwise.budget import prefill_flops
from headwise.families import shape, shapes
from headwise_lab.report.grouping import grouped
from headwise_lab.report.page.facts import known
from headwise_lab.report.page.grid import MISSING, Grid, Mark, number
from headwise_lab.report.trials import Trial
from headwise_lab.store.record_types import Cost, Hardware

_HOOKS = ("token_pruning", "query_selection", "head_scoring", "head_count", "kv_eviction")

COST_HEADER = (
    "FLOPs share", "FLOPs counted", "KV MB", "KV MB stored", "Peak MB", "Prefill ms", "Prefill share", "Selection ms",
    "Selection share", "Decode tokens/s", "Measured on",
)  # fmt: skip

COST_CAPTION = (
    "FLOPs counted: by torch over the whole prefill, vision tower included, against the same model as it is. KV MB:"
    " planned for the cache after the prefill, and stored there, per question (MB: 10^6 bytes). Peak: memory of the"
    " CUDA allocator on a GPU, else of the process. Prefill: one question, vision tower included; share: against the"
    " unpruned model, timed in turns on the same batches. Selection: what choosing tokens takes of a prefill. Times are"
    " medians; what was measured on different machines is in different rows."
)


def efficiency(trials: Sequence[Trial]) -> Grid:
    """One row per model, strategies, budget and machine, medians over benchmarks and seeds."""
    name = labels(trials)
    groups = grouped(trials, lambda trial: (trial.model, name(trial), trial.budget, machine(trial)))
    models = len({model for model, *_ in groups}) > 1
    rows: list[list[str | Mark]] = [
        [
            Mark(label, records=tuple(trial.id for trial in group),
                 hint="\n".join(dict.fromkeys(trial.strategies for trial in group))),
            *([model] * models),
            budget,
            number(group[0].processed, 1),
            number(group[0].record.budget.kept, 0),
            *cost_marks(group, visual_share(group, trials)),
            str(len(group)),
        ]
        for (model, label, budget, _), group in sorted(groups.items(), key=lambda item: -item[1][0].processed)
    ]  # fmt: skip
    header = ["Strategy", *(["Model"] * models), "Budget", "Processed", "Kept", *COST_HEADER, "Trials"]
    return Grid.of("Efficiency", "efficiency", header, rows, f"{_PLANNED} {COST_CAPTION}")


_PLANNED = (
    "Processed: average visual tokens per decoder layer. FLOPs share: planned, prefill over the visual tokens alone,"
    " against the unpruned model."
)


def labels(trials: Sequence[Trial]) -> Callable[[Trial], str]:
    """How a trial is named: its recipe, or else the strategies in which the pruned trials differ."""
    pruned = [trial for trial in trials if not trial.keeps_everything]
    varied = [hook for hook in _HOOKS[1:] if len({trial.text(hook) for trial in pruned}) > 1]

    def label(trial: Trial) -> str:
        if trial.keeps_everything:
            return "unpruned"
        reads = varied if trial.selects_heads or trial.unpruned else []
        texts = [trial.text(hook) for hook in (_HOOKS[0], *reads)]
        return trial.record.recipe or " ".join(text for text in texts if text != "none")

    return label


def machine(trial: Trial) -> str:
    """Where and how a trial was measured: device, precision and batch size."""
    hardware, batch = trial.record.hardware or Hardware(), cost_of(trial).batch
    device = hardware.device or ""
    where = hardware.cpu or device if device in ("cpu", "") else device
    threads = hardware.threads if device == "cpu" else None
    parts = where, f"{threads} threads" if threads else "", trial.record.dtype or "", f"batch {batch}" if batch else ""
    return ", ".join(filter(None, parts)) or MISSING


def cost_marks(group: Sequence[Trial], planned: float | None) -> list[str | Mark]:
    """The cells of COST_HEADER for trials measured on one machine. ``planned``: share of multiply-adds, 0 to 1."""
    costs = list(map(cost_of, group))
    prefill = _median(costs, lambda cost: cost.prefill_ms)
    selection = _median(costs, lambda cost: cost.selection_ms)
    share = _median(costs, lambda cost: cost.selection_share)
    if share is None and prefill and selection is not None:
        share = selection / prefill
    peak = _median(costs, lambda cost: cost.peak_bytes)
    return [
        _percent(planned),
        _percent(counted_share(group)),
        _megabytes(_median(costs, lambda cost: cost.kv_bytes)),
        _megabytes(_median(costs, lambda cost: cost.kv_bytes_stored)),
        Mark(_megabytes(peak), data=known({"value": peak, "source": costs[0].peak_source})),
        number(prefill),
        _percent(_median(costs, lambda cost: cost.prefill_share)),
        number(selection, 3),
        _percent(share),
        number(_median(costs, lambda cost: cost.decode_tokens_per_s), 1),
        machine(group[0]),
    ]


def counted_share(group: Sequence[Trial]) -> float | None:
    """Median of counted multiply-adds over those of the unpruned model, both from the same record."""
    shares = [
        ours / whole
        for cost in map(cost_of, group)
        if (ours := cost.flops_counted) is not None and (whole := cost.flops_counted_unpruned)
    ]
    return statistics.median(shares) if shares else None


def visual_share(group: Sequence[Trial], trials: Sequence[Trial]) -> float | None:
    """Planned visual FLOPs over those of the unpruned model: from a trial of it, else from its known shape."""
    ours = _median(map(cost_of, group), lambda cost: cost.flops_visual)
    if ours is None:
        return None
    model, formula = group[0].record.model, cost_of(group[0]).flops_formula
    full = [trial for trial in trials if trial.model == group[0].model and trial.unpruned]
    unpruned = _median(map(cost_of, full), lambda cost: cost.flops_visual)
    if unpruned is None and model in shapes() and formula in ("gated", "fastv"):
        geometry = shape(model)
        unpruned = prefill_flops(geometry, [geometry.visual_tokens] * geometry.layers, formula=formula)
    return ours / unpruned if unpruned else None


def by_machine(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials grouped by where they were measured, in order."""
    return list(grouped(trials, machine).values())


def cost_of(trial: Trial) -> Cost:
    """The costs in a record; all unknown where it has none."""
    return trial.record.cost or Cost()


def _median(costs: Iterable[Cost], figure: Callable[[Cost], float | None]) -> float | None:
    values = [value for cost in costs if (value := figure(cost)) is not None]
    return statistics.median(values) if values else None


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def _megabytes(value: float | None) -> str:
    return MISSING if value is None else f"{value / 1e6:.3g}" if value < 1e8 else f"{value / 1e6:.0f}"
