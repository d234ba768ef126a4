"""The KV tables of a report: every run with its budget, its bytes, and what it is worth against uniform and chance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from headwise_lab.report.kv.judgement import TIE, Judged, Judgement, per_cent, per_cent_error
from headwise_lab.report.kv.runs import PERMUTED, TWIN, UNIFORM, Run
from headwise_lab.report.kv.verdicts import change
from headwise_lab.report.page.grid import MISSING, Grid, Mark, number

HEADER = (
    "Config", "Strategy", "Group", "Eff.Ctx", "Visible", "KV bytes", "Planned", "PPL", "Accuracy", "n",
    "Uniform PPL", "To uniform", "Interp. error", "To permuted", "Verdict",
)  # fmt: skip

CAPTION = (
    "Eff.Ctx: entries the last token sees, averaged over layers and KV heads; Visible: the same averaged over all"
    " scored tokens. KV bytes: measured at the end of the text; Planned: by the plan's arithmetic. Uniform PPL:"
    " StreamingLLM interpolated at the run's own context. To uniform, To permuted: change of perplexity in per cent,"
    " paired ± SE, below 0 is better. Interp. error: how far off the baseline may be, in per cent. Accuracy in per"
    " cent."
)


def main_table(judged: Judged, title: str, slug: str) -> Grid:
    """All runs but the permuted controls, in order of context."""
    shown = [one for one in judged.judgements if one.run.part != PERMUTED]
    return Grid.of(f"{title}: runs", slug, HEADER, [_row(one) for one in shown], CAPTION)


def controls_table(judged: Judged, title: str, slug: str) -> Grid | None:
    """The permuted controls; None where none were run."""
    shown = judged.of(PERMUTED)
    if not shown:
        return None
    return Grid.of(f"{title}: windows permuted over heads", f"{slug}-permuted", HEADER, [_row(one) for one in shown])


def _row(one: Judgement) -> list[str | Mark]:
    run, sign = one.run, _sign(one)
    uniform = MISSING if one.baseline is None else number(one.baseline.ppl)
    error = number(per_cent(one.allowance)) if one.delta and one.allowance else MISSING
    chance = one.chance.difference if one.chance else None
    return [
        Mark(run.name, hint=describe(one), anchor=run.id),
        run.text,
        run.group,
        number(run.context, 1),
        number(run.number("visible"), 1),
        number(run.number("kv_bytes"), 0),
        number(run.number("kv_bytes_planned"), 0),
        f"{number(run.ppl)} ± {number(run.ppl_se)}",
        _accuracy(run),
        str(run.record["n"]),
        uniform,
        Mark(change(one.delta) if one.delta else MISSING, verdict=sign),
        error,
        Mark(change(chance) if chance else MISSING, verdict=_chance_sign(one)),
        verdict(one),
    ]  # fmt: skip


def _accuracy(run: Run) -> str:
    value, error = 100 * run.number("accuracy", "value"), 100 * run.number("accuracy", "se")
    return MISSING if math.isnan(value) else f"{number(value)} ± {number(error)}"


def verdict(one: Judgement) -> str:
    """The verdict of a run in a word or two."""
    if one.run.part == UNIFORM:
        return "baseline"
    if one.run.part == TWIN:
        return "uniform itself"
    if one.same_as is not None:
        return f"same as {one.same_as.name}"
    return one.verdict or MISSING


def _sign(one: Judgement) -> str:
    return "" if one.run.part == TWIN or one.same_as else {TIE: "same"}.get(one.verdict, one.verdict)


def _chance_sign(one: Judgement) -> str:
    return {TIE: "same"}.get(one.against_chance, one.against_chance)


def describe(one: Judgement) -> str:
    """Everything about a run in a few lines: n, SE, both differences, strategy text and command."""
    lines = [f"n={one.run.record['n']}, PPL SE {number(one.run.ppl_se)}", one.run.text]
    if one.delta and one.baseline:
        between = " and ".join(run.name for run in one.baseline.between)
        lines.append(f"{change(one.delta)} against {between} at {one.run.context:.1f} entries: {verdict(one)}")
    if one.adjusted is not None:
        lines.append(f"Holm-adjusted p {one.adjusted:.2g}")
    if one.chance:
        lines.append(f"{change(one.chance.difference)} against {len(one.chance.controls)} permutations")
    if one.full:
        lines.append(f"{change(one.full)} against the full cache")
    lines += [one.refused, str(one.run.record.get("command") or "")]
    return "\n".join(filter(None, lines))


def best_table(judged: Judged, title: str, slug: str, most: int = 10) -> Grid:
    """The lowest perplexities, each with its budget; a low one at a large budget is no merit."""
    shown = sorted((one for one in judged.judgements if one.run.part != PERMUTED), key=lambda one: one.run.ppl)[:most]
    rows: list[list[str | Mark]] = [
        [str(rank), Mark(one.run.name, anchor=one.run.id), number(one.run.ppl), number(one.run.context, 1),
         change(one.delta) if one.delta else MISSING, verdict(one)]
        for rank, one in enumerate(shown, 1)
    ]  # fmt: skip
    header = ["Rank", "Config", "PPL", "Eff.Ctx", "To uniform", "Verdict"]
    return Grid.of(f"{title}: best configurations", f"{slug}-best", header, rows)


def records(runs: Sequence[Run]) -> Grid:
    """Where every figure comes from."""
    rows: list[list[str | Mark]] = [
        [
            Mark(run.id, anchor=run.id),
            run.name,
            run.text,
            _text(run.record),
            str(run.record.get("profile") or MISSING),
            str(run.record["n"]),
            number(run.number("seconds")),
            str(run.record.get("command") or MISSING),
            _where(run.record),
        ]
        for run in runs
    ]
    header = ["Record", "Config", "Strategy", "Text", "Profile", "n", "Seconds", "Command", "Where"]
    return Grid.of("Records of KV runs", "kv-records", header, rows)


def _text(record: Mapping[str, Any]) -> str:
    text = record["text"]
    return f"{text.get('name')} ({text.get('digest')}), {text.get('tokens')} tokens"


def _where(record: Mapping[str, Any]) -> str:
    versions, hardware = record.get("versions") or {}, record.get("hardware") or {}
    told = [f"{name} {version}" for name, version in versions.items()]
    return ", ".join([*told, *(str(hardware[key]) for key in ("device", "cpu") if hardware.get(key))]) or MISSING


def long_rows(judged: Judged) -> list[dict[str, Any]]:
    """One flat row per run: what was judged, and every field of the record."""
    return [{**_facts(one), **dict(one.run.record)} for one in judged.judgements]


def _facts(one: Judgement) -> dict[str, Any]:
    delta, chance = one.delta, one.chance
    return {
        "part": one.run.part,
        "uniform_ppl": one.baseline and one.baseline.ppl,
        "uniform_between": one.baseline and json.dumps([run.name for run in one.baseline.between]),
        "to_uniform_percent": delta and per_cent(delta.value),
        "to_uniform_percent_se": delta and per_cent_error(delta),
        "to_uniform_nats": delta and delta.value,
        "to_uniform_nats_se": delta and delta.se,
        "pairs": delta and delta.n,
        "interpolation_error_percent": delta and per_cent(one.allowance),
        "holm_p": one.adjusted,
        "verdict": verdict(one) if one.delta else None,
        "to_permuted_percent": chance and per_cent(chance.difference.value),
        "to_permuted_percent_se": chance and per_cent_error(chance.difference),
        "permutations": chance and len(chance.controls),
        "permutation_spread_nats": chance and chance.spread,
        "against_permuted": one.against_chance or None,
        "to_full_percent": one.full and per_cent(one.full.value),
        "refused": one.refused or None,
    }
