"""The report's tables as grids, and the long CSV rows that carry everything a record knows."""

from __future__ import annotations

import json
import math
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

from headwise.budget import prefill_flops
from headwise.geometry import SHAPES
from headwise_lab.report.comparison import Cell, Comparison, Row
from headwise_lab.report.grid import Grid, Mark
from headwise_lab.report.statistics import paired
from headwise_lab.report.trials import Trial
from headwise_lab.report.verdicts import signed

MISSING = "-"


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or ``-`` where there is none."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def scores(comparison: Comparison) -> Grid:
    """The headline figures in the layout of the seed's tables."""
    rows: list[list[str | Mark]] = []
    previous = ""
    for row in comparison.rows:
        budget: str | Mark = Mark(row.budget, bold=True) if row.budget != previous else ""
        previous = row.budget
        marks = [_score(row.cells.get(name), comparison.digits) for name in comparison.columns]
        rows.append([budget, row.head_label, *marks])
    caption = f"{comparison.metric}, in the benchmark's scale"
    return Grid.of(
        f"{comparison.title} results", comparison.slug, ["Token", "Head", *comparison.columns], rows, caption
    )


def _score(cell: Cell | None, digits: int) -> Mark:
    if cell is None:
        return Mark(MISSING)
    return Mark(
        text=number(cell.value, digits),
        bold=cell.best,
        verdict={"no difference": "same"}.get(cell.verdict, cell.verdict),
        note="" if cell.role == "baseline" else signed(cell.against_baseline, digits),
        hint=describe(cell),
        anchor=cell.trials[-1].id,
        recommended=cell.recommended,
    )


def describe(cell: Cell) -> str:
    """Everything about a cell in a few lines: n, SE, differences, strategy text and command."""
    lines = [f"n={cell.n}, SE {number(cell.se)}"]
    if cell.against_baseline is not None:
        lines.append(
            f"{signed(cell.against_baseline)} against all heads ({cell.against_baseline.n} pairs): {cell.verdict}"
        )
    if cell.adjusted is not None:
        lines.append(f"Holm-adjusted p {cell.adjusted:.2g}")
    if cell.against_control is not None:
        lines.append(f"{signed(cell.against_control)} against random heads")
    for trial in cell.trials:
        lines += [trial.strategies, str(trial.record.get("command") or "")]
    return "\n".join(filter(None, lines))


def differences(comparison: Comparison) -> Grid:
    """Paired differences to all heads, with their standard errors."""
    rows: list[list[str | Mark]] = [
        [row.budget, row.head_label, *(_difference(row.cells.get(name)) for name in comparison.columns[1:])]
        for row in comparison.rows
    ]
    header = ["Token", "Head", *comparison.columns[1:]]
    return Grid.of(f"{comparison.title}: difference to all heads", f"{comparison.slug}-differences", header, rows)


def _difference(cell: Cell | None) -> Mark:
    if cell is None or cell.role == "baseline":
        return Mark(MISSING)
    verdict = {"no difference": "same"}.get(cell.verdict, cell.verdict)
    return Mark(signed(cell.against_baseline), verdict=verdict, hint=describe(cell), recommended=cell.recommended)


def efficiency(trials: Sequence[Trial]) -> Grid:
    """What each budget costs: one row per model, token pruning and budget, medians over its trials."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.model, trial.text("token_pruning"), trial.budget), []).append(trial)
    several = len({model for model, _, _ in groups}) > 1
    rows: list[list[str | Mark]] = []
    for (model, pruning, budget), group in sorted(groups.items(), key=lambda item: -item[1][0].processed):
        kept = group[0].number("budget", "kept")
        rows.append([
            f"{pruning}, {model}" if several else pruning,
            budget,
            number(group[0].processed, 1),
            number(kept, 0),
            _percent(_flops_share(group, trials)),
            number(_median(group, "kv_bytes"), 0),
            number(_median(group, "prefill_ms")),
            number(_median(group, "decode_tokens_per_s"), 1),
            str(len(group)),
        ])  # fmt: skip
    header = ["Token pruning", "Budget", "Processed", "Kept", "FLOPs share", "KV bytes", "Prefill ms"]
    header += ["Decode tokens/s", "Trials"]
    caption = (
        "Processed: average visual tokens per decoder layer. FLOPs share: prefill over the visual tokens alone, against"
        " the unpruned model. Times are medians over the trials, measured where they ran."
    )
    return Grid.of("Efficiency", "efficiency", header, rows, caption)


def _median(trials: Sequence[Trial], key: str) -> float | None:
    values = [value for trial in trials if (value := trial.number("cost", key)) is not None]
    return plain.median(values) if values else None


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def _flops_share(group: Sequence[Trial], trials: Sequence[Trial]) -> float | None:
    """Visual FLOPs over those of the unpruned model: a trial of it, else the shape known by the model's name."""
    ours = _median(group, "flops_visual")
    if ours is None:
        return None
    model, formula = group[0].record.get("model"), str((group[0].record.get("cost") or {}).get("flops_formula"))
    full = [trial for trial in trials if trial.model == group[0].model and trial.name("token_pruning") == "none"]
    unpruned = _median(full, "flops_visual")
    if unpruned is None and model in SHAPES and formula in ("gated", "fastv"):
        geometry = SHAPES[model]
        unpruned = prefill_flops(geometry, [geometry.visual_tokens] * geometry.layers, formula=formula)
    return ours / unpruned if unpruned else None


def overlap(comparison: Comparison) -> Grid | None:
    """How well the kept tokens cover what the question is about; None where no trial has boxes."""
    rows = []
    for row, name, cell in comparison.cells():
        trial = cell.trials[-1]
        figures = [trial.number("overlap", key) for key in ("recall", "precision", "iou", "lift")]
        figures += [trial.number("attention", "concentration"), diversity(trial)]
        if any(figure is not None for figure in figures):
            rows.append([row.budget, row.head_label, name, *map(number, figures)])
    if not rows:
        return None
    header = ["Token", "Head", "Strategy", "Recall", "Precision", "IoU", "Lift", "Concentration", "Diversity"]
    caption = (
        "Kept tokens against the tokens of the boxes a question is about. Lift: recall over that of random keeping."
        " Concentration: share of the image attention on the kept tokens. Diversity: 1 - their mean pairwise cosine."
    )
    return Grid.of(f"{comparison.title}: kept tokens", f"{comparison.slug}-overlap", header, rows, caption)


def diversity(trial: Trial) -> float | None:
    """Diversity of the kept tokens, where the record has it."""
    value = trial.record.get("diversity")
    return float(value) if isinstance(value, int | float) else None


def references(trials: Sequence[Trial]) -> Grid | None:
    """The unpruned model and rules that read no attention, held against all heads at the same budget."""
    free = [trial for trial in trials if not trial.selects_heads]
    if not free:
        return None
    rows: list[list[str | Mark]] = []
    for trial in sorted(free, key=lambda trial: (trial.benchmark, -trial.processed, trial.text("token_pruning"))):
        baseline = _same_budget(trial, trials)
        difference = paired(trial.units, baseline.units) if baseline and trial.units and baseline.units else None
        label = "unpruned" if trial.name("token_pruning") == "none" else trial.text("token_pruning")
        verdict = "" if difference is None else ("same" if not difference.clear else _direction(difference.value))
        rows.append([
            trial.benchmark,
            label,
            trial.budget,
            Mark(f"{number(trial.value)} ± {number(trial.se)}", hint=trial.strategies, anchor=trial.id),
            Mark(signed(difference), verdict=verdict),
        ])  # fmt: skip
    header = ["Benchmark", "Rule", "Budget", "Score ± SE", "Difference to all heads"]
    return Grid.of("Without head selection", "references", header, rows)


def _direction(value: float) -> str:
    return "better" if value > 0 else "worse"


def _same_budget(trial: Trial, trials: Sequence[Trial]) -> Trial | None:
    """The all-heads baseline that keeps as many tokens, or any for the unpruned model where there is just one."""
    same = [
        other
        for other in trials
        if other.selects_heads
        and other.is_baseline
        and other.name("query_selection") == "last_token"
        and (other.benchmark, other.model) == (trial.benchmark, trial.model)
        and other.record.get("seed") == trial.record.get("seed")
        and other.setting == trial.setting
    ]
    if trial.name("token_pruning") != "none":
        same = [other for other in same if other.record["budget"].get("given") == trial.record["budget"].get("given")]
    return same[0] if len(same) == 1 else None


def wins(counted: Mapping[str, tuple[int, int]], title: str, slug: str) -> Grid:
    """Rows each strategy is best in, ties counted for each, and rows it alone is best in."""
    rows = [[name, str(best), str(sole)] for name, (best, sole) in counted.items()]
    return Grid.of(title, slug, ["Strategy", "Wins", "Sole wins"], rows)


def failures(records: Sequence[Mapping[str, Any]]) -> Grid | None:
    """Trials that ended in an error."""
    failed = [record for record in records if record.get("error")]
    if not failed:
        return None
    rows = [
        [str(record["id"]), " ".join(_texts(record)), str(record.get("error")), str(record.get("command") or MISSING)]
        for record in failed
    ]
    return Grid.of("Failures", "failures", ["Record", "Strategies", "Error", "Command"], rows)


def _texts(record: Mapping[str, Any]) -> list[str]:
    strategies = record.get("strategies")
    return [f"{hook}={text}" for hook, text in strategies.items()] if isinstance(strategies, dict) else [MISSING]


def records(trials: Sequence[Trial]) -> Grid:
    """Where every figure comes from."""
    rows: list[list[str | Mark]] = [
        [
            Mark(trial.id, anchor=trial.id),
            trial.benchmark,
            trial.strategies,
            trial.budget,
            f"{number(trial.value)} ± {number(trial.se)}",
            str(trial.record["n"]),
            str(trial.record.get("seed", MISSING)),
            str(trial.record.get("command") or MISSING),
            _where(trial),
            json.dumps(trial.record.get("notes") or {}, ensure_ascii=False, sort_keys=True),
        ]
        for trial in trials
    ]
    header = ["Record", "Benchmark", "Strategies", "Budget", "Score ± SE", "n", "Seed", "Command", "Where", "Notes"]
    return Grid.of("Records", "records", header, rows)


def _where(trial: Trial) -> str:
    versions, hardware = trial.record.get("versions") or {}, trial.record.get("hardware") or {}
    told = [f"{name} {version}" for name, version in versions.items()]
    return ", ".join([*told, *(str(hardware[key]) for key in ("device", "cpu") if hardware.get(key))]) or MISSING


def long_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One flat row per cell and record: figures, pairs, verdict and every field of the record."""
    rows = []
    for row, name, cell in comparison.cells():
        for trial in cell.trials:
            rows.append({**_facts(row, name, cell), **flat(trial.record)})
    return rows


def _facts(row: Row, name: str, cell: Cell) -> dict[str, Any]:
    base, control = cell.against_baseline, cell.against_control
    return {
        "row_budget": row.budget,
        "row_heads": row.head_label,
        "column": name,
        "value": cell.value,
        "se": cell.se,
        "units": cell.n,
        "best": cell.best,
        "difference": base and base.value,
        "difference_se": base and base.se,
        "pairs": base and base.n,
        "verdict": cell.verdict,
        "holm_p": cell.adjusted,
        "difference_to_random": control and control.value,
        "difference_to_random_se": control and control.se,
        "recommended": cell.recommended,
    }


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted keys."""
    result: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
