"""Named facts about a figure. Tooltips, columns, filters and CSV files are made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from headwise_lab.report.page.grid import MISSING
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import SAME, Difference
from headwise_lab.store.record_types import Hardware, Record


def known(facts: Mapping[str, object]) -> dict[str, object]:
    """The facts without those that are None, NaN or an empty text."""
    return {
        key: value
        for key, value in facts.items()
        if value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))
    }


def figure(trials: Sequence[Trial], shown: Trial | None = None, **more: object) -> dict[str, object]:
    """Facts about the figure of one trial, or of several that are pooled into the one ``shown``."""
    trial = shown or trials[-1]
    units = trial.record.units or (len(trial.units) if trial.units else None)
    return known({
        "value": trial.value,
        "se": trial.se,
        "n": trial.record.n,
        "units": units,
        "seeds": len({one.record.seed for one in trials}),
        "benchmark": trial.benchmark,
        "budget": trial.budget,
        "processed": trial.processed or None,
        "strategies": "\n".join(dict.fromkeys(one.strategies for one in trials)),
        "command": "\n".join(dict.fromkeys(one.record.command or "" for one in trials)),
        "record": " ".join(one.id for one in trials),
        **more,
    })  # fmt: skip


def where(record: Record, *, gpu: bool = False) -> str:
    """Versions and hardware that a record was made with. ``gpu``: name the GPU as well as the device."""
    machine = record.hardware or Hardware()
    versions = [f"{name} {version}" for name, version in (record.versions or {}).items()]
    return ", ".join([*versions, *filter(None, (machine.device, machine.gpu if gpu else None, machine.cpu))])


def difference(found: Difference | None, reference: str, prefix: str = "") -> dict[str, object]:
    """Facts about a paired difference to ``reference``, their names after ``prefix``; none without a difference."""
    if found is None:
        return {}
    facts = known({
        "reference": reference,
        "difference": found.value,
        "difference_se": found.se,
        "low": found.low,
        "high": found.high,
        "pairs": found.n,
        "left_out": sum(found.left_out) or None,
        "test": found.test,
        "p": found.p,
        "adjusted_p": found.adjusted,
        "family": found.family or None,
        "interpolated_between": " and ".join(found.between),
        "interpolation_error": found.allowance or None,
        "verdict": found.verdict,
    })  # fmt: skip
    return {f"{prefix}{key}": value for key, value in facts.items()}


def sign_of(found: Difference | None) -> str:
    """The verdict as a ``Mark`` has it: ``same``, ``better`` or ``worse``; empty without a verdict."""
    verdict = found.verdict if found else ""
    return "same" if verdict == SAME else verdict


def signed(found: Difference | None, digits: int = 2) -> str:
    """``+1.20 ± 0.35``, then ``~`` where the reference is interpolated; ``-`` where nothing is compared."""
    if found is None:
        return MISSING
    about = " ~" if found.between else ""
    return f"{found.value:+.{digits}f} ± {found.se:.{digits}f}{about}"


def interval(found: Difference | None, digits: int = 2) -> str:
    """``+0.5 to +1.9``, or ``-`` where there is none."""
    if found is None or math.isnan(found.low):
        return MISSING
    return f"{found.low:+.{digits}f} to {found.high:+.{digits}f}"


def probability(value: float | None) -> str:
    """``0.012``, ``< 0.0001``, or ``-``."""
    if value is None:
        return MISSING
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def certainty(found: Difference | None, digits: int = 2) -> list[str]:
    """Interval, p before the correction and p after it, as texts."""
    if found is None:
        return [MISSING] * 3
    return [interval(found, digits), probability(found.p), probability(found.adjusted)]


def sentences(found: Difference | None, reference: str, digits: int = 2) -> list[str]:
    """A paired difference in full: value and verdict; how its reference is interpolated; p. A line each."""
    if found is None:
        return []
    changed = found.discordant
    test = f"McNemar's exact test, {changed[0]} to {changed[1]}" if changed else "permutation test"
    pairs = f"{found.n} pairs" + (f", {sum(found.left_out)} units only one side has" if any(found.left_out) else "")
    lines = [
        f"{signed(found, digits)} to {reference} ({interval(found, digits)}; {pairs}): {found.verdict}".rstrip(": ")
    ]
    if found.between:
        error = "unknown" if found.allowance is None else f"at most {found.allowance:.{digits}f}"
        lines.append(f"{reference} interpolated between {' and '.join(found.between)}, error {error}")
    adjusted = f", {probability(found.adjusted)} adjusted over {found.family}" if found.adjusted is not None else ""
    return [*lines, f"p {probability(found.p)} ({test}){adjusted}"]
