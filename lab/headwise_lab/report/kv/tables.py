"""The tables of KV eviction: every run with budget, bytes, and differences to uniform and to permuted windows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import attrs

from headwise_lab.report.kv.judgement import JUDGED, JudgedRun, JudgedSetting, per_cent, per_cent_error
from headwise_lab.report.kv.runs import PERMUTED, TWIN, UNIFORM, KvRun, or_nan
from headwise_lab.report.kv.verdicts import change
from headwise_lab.report.page import facts
from headwise_lab.report.page.facts import sign_of, where
from headwise_lab.report.page.grid import MISSING, Grid, Mark, flat, number
from headwise_lab.stats.differences import Difference
from headwise_lab.store.record_types import Passage, TokenShare

HEADER = (
    "Config", "Strategy", "Group", "Eff.Ctx", "Visible", "KV bytes", "Planned", "PPL", "Accuracy", "n",
    "Uniform PPL", "To uniform", "95 % interval", "Adjusted p", "Interp. error", "To permuted", "Adjusted p, permuted",
    "Verdict",
)  # fmt: skip

CAPTION = (
    "Eff.Ctx: entries the last token sees, averaged over layers and KV heads; Visible: the same averaged over all"
    " scored tokens. KV bytes: measured at the end of the text; Planned: by the plan's arithmetic. Uniform PPL:"
    " StreamingLLM interpolated at the run's own context. To uniform, To permuted: change of perplexity in per cent,"
    " paired ± SE, below 0 is better; the interval is that to uniform. Interp. error: how far off the baseline may be,"
    " in per cent; the interval is longer by it. Accuracy in per cent."
)


def main_table(judged: JudgedSetting, title: str, slug: str) -> Grid:
    """All runs but the permuted controls, by ascending context."""
    shown = [one for one in judged.judgements if one.run.part != PERMUTED]
    caption = f"{CAPTION} {judged.stated(*JUDGED)}".rstrip()
    grid = Grid.of(f"{title}: runs", slug, HEADER, [_row(one) for one in shown], caption)
    return attrs.evolve(grid, long=tuple(map(flat, long_rows(judged))))


def controls_table(judged: JudgedSetting, title: str, slug: str) -> Grid | None:
    """The permuted controls; None where none were run."""
    shown = judged.of(PERMUTED)
    if not shown:
        return None
    name, caption = f"{title}: windows permuted over heads", judged.stated(PERMUTED)
    return Grid.of(name, f"{slug}-permuted", HEADER, [_row(one) for one in shown], caption)


def _row(one: JudgedRun) -> list[str | Mark]:
    run, found, permuted = one.run, one.to_uniform, one.to_permuted
    error = number(per_cent(found.allowance)) if found and found.allowance else MISSING
    sign = "" if one.same_as or one.run.part == TWIN else sign_of(found)
    return [
        Mark(run.name, hint=run_hint(one), anchor=run.id),
        run.text,
        run.group,
        number(run.context, 1),
        number(run.record.visible, 1),
        number(run.record.kv_bytes, 0),
        number(run.record.kv_bytes_planned, 0),
        f"{number(run.ppl)} ± {number(run.ppl_se)}",
        _accuracy(run),
        str(run.record.n),
        number(one.baseline.ppl if one.baseline else None),
        Mark(change(found) if found else MISSING, verdict=sign),
        _interval(found),
        facts.probability(found.adjusted if found else None),
        error,
        Mark(change(permuted) if permuted else MISSING, verdict=sign_of(permuted)),
        facts.probability(permuted.adjusted if permuted else None),
        shown_verdict(one),
    ]


def _interval(found: Difference | None) -> str:
    """The interval of a change of perplexity, in per cent."""
    if found is None or math.isnan(found.low):
        return MISSING
    return f"{per_cent(found.low):+.2f} to {per_cent(found.high):+.2f} %"


def _accuracy(run: KvRun) -> str:
    found = run.record.accuracy or TokenShare()
    value, error = 100 * or_nan(found.value), 100 * or_nan(found.se)
    return MISSING if math.isnan(value) else f"{number(value)} ± {number(error)}"


def shown_verdict(one: JudgedRun) -> str:
    """The verdict column: the verdict of a run, or why it has none."""
    if one.run.part == UNIFORM:
        return "baseline"
    if one.run.part == TWIN:
        return "uniform itself"
    if one.same_as is not None:
        return f"same as {one.same_as.name}"
    return one.verdict or MISSING


def run_hint(one: JudgedRun) -> str:
    """The tooltip of a run: n, SE, its differences, strategy text and command, a line each."""
    lines = [f"n={one.run.record.n}, PPL SE {number(one.run.ppl_se)}", one.run.text]
    lines += _uniform_lines(one) + _permuted_lines(one)
    if one.to_full:
        lines.append(f"{change(one.to_full)} against the full cache")
    lines += [one.refused, one.run.record.command or ""]
    return "\n".join(filter(None, lines))


def _uniform_lines(one: JudgedRun) -> list[str]:
    if not (one.to_uniform and one.baseline):
        return []
    between = " and ".join(run.name for run in one.baseline.between)
    at = f"{one.run.context:.1f} entries"
    line = f"{change(one.to_uniform)} against {between} at {at}: {shown_verdict(one)}"
    return [line, *_tested(one.to_uniform)]


def _permuted_lines(one: JudgedRun) -> list[str]:
    if not one.to_permuted:
        return []
    off = "unknown" if one.to_permuted.allowance is None else f"{per_cent(one.to_permuted.allowance):.2f} %"
    line = (
        f"{change(one.to_permuted)} against {len(one.controls)} permutations, whose mean may be off by {off}:"
        f" {one.against_permuted or MISSING}"
    )
    return [line, *_tested(one.to_permuted)]


def _tested(found: Difference) -> list[str]:
    """How sure a difference is, in one line; none for one without a verdict, which is not corrected."""
    if found.adjusted is None:
        return []
    p, adjusted = facts.probability(found.p), facts.probability(found.adjusted)
    return [f"{_interval(found)}, p {p} ({found.test} test, {found.n} units), {adjusted} adjusted over {found.family}"]


def best_table(judged: JudgedSetting, title: str, slug: str, most: int = 10) -> Grid:
    """The lowest perplexities, each with its context, because a larger budget lowers the perplexity by itself."""
    shown = sorted((one for one in judged.judgements if one.run.part != PERMUTED), key=lambda one: one.run.ppl)[:most]
    rows: list[list[str | Mark]] = [
        [str(rank), Mark(one.run.name, anchor=one.run.id), number(one.run.ppl), number(one.run.context, 1),
         change(one.to_uniform) if one.to_uniform else MISSING, shown_verdict(one)]
        for rank, one in enumerate(shown, 1)
    ]  # fmt: skip
    header = ["Rank", "Config", "PPL", "Eff.Ctx", "To uniform", "Verdict"]
    caption = "Verdicts are those of the table of all runs, corrected over it."
    return Grid.of(f"{title}: best configurations", f"{slug}-best", header, rows, caption)


def records(runs: Sequence[KvRun]) -> Grid:
    """The list of records that all figures come from."""
    rows: list[list[str | Mark]] = [
        [
            Mark(run.id, anchor=run.id),
            run.name,
            run.text,
            _text(run.record.text),
            run.record.profile or MISSING,
            str(run.record.n),
            number(run.record.seconds),
            run.record.command or MISSING,
            where(run.record) or MISSING,
        ]
        for run in runs
    ]
    header = ["Record", "Config", "Strategy", "Text", "Profile", "n", "Seconds", "Command", "Where"]
    return Grid.of("Records of KV runs", "kv-records", header, rows)


def _text(text: Passage) -> str:
    return f"{text.name} ({text.digest}), {text.tokens} tokens"


def long_rows(judged: JudgedSetting) -> list[dict[str, object]]:
    """A flat row per run: its differences and verdict, and every field of the record."""
    return [{**_facts(one), **one.run.record.to_json()} for one in judged.judgements]


def _facts(one: JudgedRun) -> dict[str, object]:
    found, permuted = one.to_uniform, one.to_permuted
    return {
        "part": one.run.part,
        "uniform_ppl": one.baseline and one.baseline.ppl,
        "uniform_between": one.baseline and json.dumps([run.name for run in one.baseline.between]),
        "to_uniform_percent": found and per_cent(found.value),
        "to_uniform_percent_se": found and per_cent_error(found),
        "to_uniform_percent_low": found and per_cent(found.low),
        "to_uniform_percent_high": found and per_cent(found.high),
        "to_uniform_nats": found and found.value,
        "to_uniform_nats_se": found and found.se,
        "pairs": found and found.n,
        "interpolation_error_percent": None if not found or found.allowance is None else per_cent(found.allowance),
        "p": found and found.p,
        "holm_p": found and found.adjusted,
        "verdict": shown_verdict(one) if found else None,
        "to_permuted_percent": permuted and per_cent(permuted.value),
        "to_permuted_percent_se": permuted and per_cent_error(permuted),
        "permutations": permuted and len(one.controls),
        "dealing_error_nats": permuted and permuted.allowance,
        "to_permuted_p": permuted and permuted.p,
        "to_permuted_holm_p": permuted and permuted.adjusted,
        "against_permuted": one.against_permuted or None,
        "to_full_percent": one.to_full and per_cent(one.to_full.value),
        "refused": one.refused or None,
    }
