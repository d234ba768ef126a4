"""A recount of KV tables in words, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.report.kv.runs import HEAD_AWARE, SCORED, TWIN
from headwise_lab.report.published.context_recount import ContextRecount, MatchedRun


def context_lines(counted: ContextRecount) -> list[str]:
    """The recount, line by line, the verdict first."""
    return [
        f"{counted.runs} runs of perplexity against effective context.",
        verdict(counted),
        "",
        *_table(counted.matched),
        *(f"  {sentence}" for sentence in counted.unmatched),
        *_interpolation(counted),
        *_sinks(counted),
        *_accuracies(counted),
        *_claims(counted),
        *(["", "The tables lack:", *(f"  {one}" for one in counted.missing)] if counted.missing else []),
    ]


def verdict(counted: ContextRecount) -> str:
    """Whether any head-aware run beats the uniform budget at its own context, in one sentence."""
    runs = [one for one in counted.matched if one.part in (HEAD_AWARE, SCORED)]
    if not runs:
        return (
            "Nothing can be said about head-aware runs: they have different mean budgets, and there are no two uniform"
            " (StreamingLLM) runs around any of them to interpolate between."
        )
    better = [one for one in runs if one.verdict == "better"]
    worse = [one for one in runs if one.verdict == "worse"]
    counts = f"of {len(runs)} runs {len(worse)} are worse and {len(runs) - len(worse) - len(better)} within it"
    if better:
        named = ", ".join(f"{one.name} {one.delta:+.1f}%" for one in better)
        return f"Beyond interpolation error, {named} beat StreamingLLM at an equal effective context; {counts}."
    best = min(runs, key=lambda one: one.delta)
    return (
        "No head-aware run beats StreamingLLM at an equal effective context beyond interpolation error:"
        f" {counts}. The best is {best.name} with {best.delta:+.1f}%, and {best.yardstick:.1f}% is error."
    )


def _table(matched: Sequence[MatchedRun]) -> list[str]:
    """A line per run: its perplexity, and the uniform budget at its context."""
    if not matched:
        return []
    width = max(len(one.name) for one in matched)
    head = f"  {'Run':<{width}}  Eff.Ctx    PPL  StreamingLLM there   Change"
    lines = [
        f"  {one.name:<{width}}  {one.context:7.1f}  {one.ppl:5.2f}  {one.uniform:18.3f}  {_signed(one.delta)}"
        f"  {one.verdict}"
        for one in matched
    ]
    return ["Against the StreamingLLM perplexities, interpolated linearly in log2(context):", head, *lines]


def _signed(value: float) -> str:
    """A figure with one decimal, and no minus before 0.0."""
    shown = f"{value:+.1f}"
    return f"{'0.0' if float(shown) == 0 else shown:>6}%"


def _interpolation(counted: ContextRecount) -> list[str]:
    twins = [one for one in counted.matched if one.part == TWIN]
    told = [
        f"  {one.name} is StreamingLLM with {one.context:g} entries under another name: its {one.delta:+.1f}% is error,"
        " not a gain or a loss"
        for one in twins
    ]
    told += [
        f"  left out, {name} is missed by {error:+.1f}% (above 0: the baseline is too easy to beat)"
        for name, error in counted.left_out.items()
    ]
    return ["", "How far the interpolation is off:", *told] if told else []


def _sinks(counted: ContextRecount) -> list[str]:
    told = [
        f"  {pair.context:g} entries: {pair.without:.2f} against {pair.uniform:.2f}, {pair.change:+.0f}%"
        for pair in counted.sinks
    ]
    return ["", "Without sinks, at equal contexts:", *told] if told else []


def _accuracies(counted: ContextRecount) -> list[str]:
    noise = counted.accuracies
    if noise is None:
        return []
    within = "all within" if not noise.beyond else f"{noise.beyond} beyond"
    return [
        "",
        f"Accuracy over {noise.n} tokens has a binomial standard error of {noise.error:.1f} points. The largest of"
        f" {noise.pairs} differences between a head-aware run and the StreamingLLM run of its table is"
        f" {noise.largest:+.2f} points: {within} two standard errors of a difference, so without pairs they say"
        " nothing.",
    ]  # fmt: skip


def _claims(counted: ContextRecount) -> list[str]:
    told = []
    if counted.differences:
        told += [
            "",
            "Where the document's own claims need a second look:",
            *(f"  {one}" for one in counted.differences),
        ]
    if counted.holding:
        told += ["", "Claims that hold:", *(f"  {one}" for one in counted.holding)]
    return told
