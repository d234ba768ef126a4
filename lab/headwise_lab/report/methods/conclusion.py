"""The conclusion on whole methods: which are better than the reference in some comparisons and worse in none."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from headwise_lab.report.conclusions import left_open, named
from headwise_lab.report.grouping import grouped
from headwise_lab.report.methods.methods import REFERENCE, MethodResult, Methods
from headwise_lab.stats.differences import BETTER, WORSE

THAN = f"than {REFERENCE} at the same budget"


def conclusion(compared: Sequence[Methods]) -> str:
    """All benchmarks and budgets in two or three sentences; empty where no method was run."""
    results = [one for methods in compared for one in methods.results.values() if one.verdict]
    if not results:
        others = any(name != REFERENCE for methods in compared for name, _ in methods.results)
        why = f"Nothing is compared with {REFERENCE}: its runs do not tell what it does at the budgets of the others."
        return why if others else ""
    same = sum(not one.certain for one in results)
    rest = f"no difference in {same} of {len(results)} comparisons{left_open([one.family() for one in compared])}."
    if same == len(results):
        return f"No method is better or worse {THAN}: {rest}"
    told = [_with(results, BETTER, WORSE), _with(results, WORSE, BETTER)]
    return " ".join([*told, *([rest[0].upper() + rest[1:]] if same else [])])


def _with(results: Sequence[MethodResult], verdict: str, other: str) -> str:
    """The methods with this verdict in some comparisons and the ``other`` in none, those with most first."""
    found = []
    for name, own in grouped(results, lambda one: one.name).items():
        verdicts, gap = [one.verdict for one in own], _mean_gap(own)
        if verdict in verdicts and other not in verdicts:
            count = verdicts.count(verdict)
            many = f"{count} of {len(own)}" if len(own) > 1 else f"{gap:+.1f}"
            found.append((-count / len(own), -abs(gap), f"{name} ({many})"))
    if found:
        return f"{verdict.capitalize()} {THAN}, and never {other}: {named([text for *_, text in sorted(found)])}."
    some = any(one.verdict == verdict for one in results)
    return f"No method is {verdict} {THAN}{f' without being {other} elsewhere' if some else ''}."


def _mean_gap(own: Sequence[MethodResult]) -> float:
    return fmean(one.to_reference.value for one in own if one.to_reference)
