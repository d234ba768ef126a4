"""What strategies cost, by strategy, budget and machine: times, tokens, multiply-adds and bytes.

Trials on different machines, at another precision or batch size never share a row: medians over them mean nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from headwise.budget import prefill_flops
from headwise.families import shape, shapes
from headwise_lab.report.page.facts import known
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.report.trials import Trial
from headwise_lab.store.record_types import Cost, Hardware

MISSING = "-"
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
    groups: dict[tuple[str, str, str, str], list[Trial]] = {}
    name = labels(trials)
    for trial in trials:
        groups.setdefault((trial.model, name(trial), trial.budget, machine(trial)), []).append(trial)
    models = len({model for model, *_ in groups}) > 1
    rows: list[list[str | Mark]] = []
    for (model, label, budget, _), group in sorted(groups.items(), key=lambda item: -item[1][0].processed):
        first = group[0]
        records = tuple(trial.id for trial in group)
        rows.append([
            Mark(label, records=records, hint="\n".join(dict.fromkeys(trial.strategies for trial in group))),
            *([model] * models),
            budget,
            _number(first.processed, 1),
            _number(first.record.budget.kept, 0),
            *cost_marks(group, visual_share(group, trials)),
            str(len(group)),
        ])  # fmt: skip
    header = ["Strategy", *(["Model"] * models), "Budget", "Processed", "Kept", *COST_HEADER, "Trials"]
    caption = (
        "Processed: average visual tokens per decoder layer. FLOPs share: planned, prefill over the visual tokens"
        f" alone, against the unpruned model. {COST_CAPTION}"
    )
    return Grid.of("Efficiency", "efficiency", header, rows, caption)


def labels(trials: Sequence[Trial]) -> Callable[[Trial], str]:
    """What a trial is called: its recipe, or the strategies in which the pruned trials differ."""
    pruned = [trial for trial in trials if not _whole(trial)]
    varied = [hook for hook in _HOOKS[1:] if len({trial.text(hook) for trial in pruned}) > 1]

    def label(trial: Trial) -> str:
        if _whole(trial):
            return "unpruned"
        reads = varied if trial.selects_heads or trial.name("token_pruning") == "none" else []
        texts = [trial.text(hook) for hook in (_HOOKS[0], *reads)]
        return trial.record.recipe or " ".join(text for text in texts if text != "none")

    return label


def _whole(trial: Trial) -> bool:
    return trial.name("token_pruning") == trial.name("kv_eviction") == "none"


def machine(trial: Trial) -> str:
    """Where and how a trial was measured: device, precision and batch size."""
    hardware, batch = trial.record.hardware or Hardware(), cost_of(trial).batch
    device = hardware.device or ""
    where = hardware.cpu or device if device in ("cpu", "") else device
    threads = hardware.threads if device == "cpu" else None
    told = [where, f"{threads} threads" if threads else "", trial.record.dtype or ""]
    told.append(f"batch {batch}" if batch else "")
    return ", ".join(filter(None, told)) or MISSING


def cost_marks(group: Sequence[Trial], planned: float | None) -> list[str | Mark]:
    """The cells of COST_HEADER for trials measured on one machine; ``planned``: share of the multiply-adds, 0 to 1."""
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
        _number(prefill, 2),
        _percent(_median(costs, lambda cost: cost.prefill_share)),
        _number(selection, 3),
        _percent(share),
        _number(_median(costs, lambda cost: cost.decode_tokens_per_s), 1),
        machine(group[0]),
    ]


def counted_share(group: Sequence[Trial]) -> float | None:
    """Counted multiply-adds over those of the same model as it is, both from the same record."""
    shares = [
        ours / whole
        for cost in map(cost_of, group)
        if (ours := cost.flops_counted) is not None and (whole := cost.flops_counted_unpruned)
    ]
    return statistics.median(shares) if shares else None


def visual_share(group: Sequence[Trial], trials: Sequence[Trial]) -> float | None:
    """Planned visual FLOPs over those of the unpruned model: a trial of it, else the shape known by its name."""
    ours = _median(map(cost_of, group), lambda cost: cost.flops_visual)
    if ours is None:
        return None
    model, formula = group[0].record.model, cost_of(group[0]).flops_formula
    full = [trial for trial in trials if trial.model == group[0].model and trial.name("token_pruning") == "none"]
    unpruned = _median(map(cost_of, full), lambda cost: cost.flops_visual)
    if unpruned is None and model in shapes() and formula in ("gated", "fastv"):
        geometry = shape(model)
        unpruned = prefill_flops(geometry, [geometry.visual_tokens] * geometry.layers, formula=formula)
    return ours / unpruned if unpruned else None


def by_machine(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials grouped by where they were measured, in order."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(machine(trial), []).append(trial)
    return list(groups.values())


def cost_of(trial: Trial) -> Cost:
    """What the record says of costs, if anything."""
    return trial.record.cost or Cost()


def _median(costs: Iterable[Cost], figure: Callable[[Cost], float | None]) -> float | None:
    values = [value for cost in costs if (value := figure(cost)) is not None]
    return statistics.median(values) if values else None


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def _megabytes(value: float | None) -> str:
    return MISSING if value is None else f"{value / 1e6:.3g}" if value < 1e8 else f"{value / 1e6:.0f}"
