"""The conclusion on KV eviction: whether anything beats equal windows at the same effective context."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.report.conclusions import left_open, tally
from headwise_lab.report.kv.judgement import JudgedRun, JudgedSetting, per_cent
from headwise_lab.report.kv.runs import HEAD_AWARE, SCORED
from headwise_lab.report.kv.verdicts import change
from headwise_lab.stats.differences import BETTER, SAME, WORSE


def conclusion(settings: Sequence[JudgedSetting]) -> str:
    """All models and texts in two sentences; empty where nothing is judged against equal windows."""
    runs = [one for judged in settings for one in judged.of(HEAD_AWARE, SCORED) if one.verdict]
    if not runs:
        return ""
    worse, same = (sum(one.verdict == verdict for one in runs) for verdict in (WORSE, SAME))
    tables = [[one.to_uniform for one in judged.judgements if one.verdict and one.to_uniform] for judged in settings]
    open_ones = left_open(tables, _perplexity) if same else ""
    counted = tally(
        len(runs),
        "runs",
        (worse, "is worse", "are worse"),
        (same, "shows no difference", "show no difference"),
    )
    return f"{_lead(runs)} {counted}{open_ones}." if counted else _lead(runs)


def _lead(runs: Sequence[JudgedRun]) -> str:
    better = [one for one in runs if one.verdict == BETTER]
    if not better:
        return "No eviction method beats StreamingLLM (equal windows for all heads) at an equal effective context."
    best = min(better, key=_value)
    many = "1 run beats" if len(better) == 1 else f"{len(better)} runs beat"
    return (
        f"{many} StreamingLLM (equal windows for all heads) at an equal effective context, best {best.run.name}"
        f" ({change(best.to_uniform) if best.to_uniform else ''} perplexity){_by_chance(better)}."
    )


def _by_chance(better: Sequence[JudgedRun]) -> str:
    """How many of the better runs also beat the same windows shuffled over the heads."""
    shuffled = [one for one in better if one.against_permuted]
    beaten = sum(one.against_permuted == BETTER for one in shuffled)
    return f"; {beaten} of {len(shuffled)} also beat the same windows shuffled over the heads" if shuffled else ""


def _value(one: JudgedRun) -> float:
    return one.to_uniform.value if one.to_uniform else 0.0


def _perplexity(size: float) -> str:
    return f"{per_cent(min(size, 100.0)):.2g} % of perplexity"  # e to the 100 is as good as unlimited
