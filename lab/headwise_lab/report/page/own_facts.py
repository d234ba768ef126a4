"""What a page says of a single figure: its error, what it is compared with, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwise_lab.report.page.facts import probability


def own_facts(data: Mapping[str, object]) -> list[tuple[str, str]]:
    """(label, text) for each fact of a figure; ``data`` is made by ``facts.figure`` and ``facts.difference``."""
    lines = [("Figure", _figure(data)), ("n", _count(data))]
    for key in data:
        if key.endswith("reference"):
            lines += _difference(data, key.removesuffix("reference"), str(data[key]))
    return [(label, text) for label, text in lines if text]


def _figure(data: Mapping[str, object]) -> str:
    if "value" not in data:
        return ""
    error = f" ± {data['se']:.4g} (SE)" if "se" in data else ", SE unknown"
    return f"{data['value']:.2f}{error}"


def _count(data: Mapping[str, object]) -> str:
    counts = [f"{data['n']} questions"] if "n" in data else []
    if data.get("units") not in (None, data.get("n")):
        counts.append(f"{data['units']} units")
    if data.get("seeds", 1) != 1:
        counts.append(f"{data['seeds']} seeds")
    return ", ".join(counts)


def _difference(data: Mapping[str, object], prefix: str, reference: str) -> list[tuple[str, str]]:
    """A paired difference with its interval, test and verdict."""

    def of(key: str) -> Any:
        return data.get(f"{prefix}{key}")

    if of("difference") is None:
        return []
    error = "" if of("difference_se") is None else f" ± {of('difference_se'):.2f}"
    pairs = "" if of("pairs") is None else f" ({of('pairs')} pairs)"
    told = [(f"To {reference}", f"{of('difference'):+.2f}{error}{pairs}")]
    if of("low") is not None:
        told.append(("95% interval", f"{of('low'):+.2f} to {of('high'):+.2f}"))
    if of("p") is not None:
        adjusted = of("adjusted_p")
        behind = "" if adjusted is None else f", {probability(adjusted)} adjusted over {of('family') or 'the table'}"
        told.append(("p", f"{probability(of('p'))} ({of('test') or 'paired'}){behind}"))
    if of("interpolated_between"):
        told.append(("Interpolated", f"{reference} between {of('interpolated_between')}"))
    return [*told, ("Verdict", str(of("verdict") or ""))]
