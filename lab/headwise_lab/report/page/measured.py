"""What was measured, in the few facts that a page begins with: model, benchmark, n, budget, hardware, date."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from headwise_lab.report.page.facets import of_record, union
from headwise_lab.store.record_types import Hardware, Result

_MOST = 4  # so many values are listed; of more the first and the last


def measured(results: Sequence[Result]) -> list[tuple[str, str]]:
    """(label, text) of each fact that the records tell."""
    known = union(map(of_record, results))
    texts = any(record.reads_text for record in results)
    read = "Text" if all(record.reads_text for record in results) else "Benchmark or text" if texts else "Benchmark"
    told = [
        ("Model", listed(known.model)),
        (read, listed(known.benchmark)),
        ("n", " and ".join(filter(None, (_counts(results, text=text) for text in (False, True))))),
        ("Budget", listed(sorted({one for one in known.budget if one != "everything"}, key=natural))),
        ("Hardware", listed((_machine(record.hardware or Hardware()) for record in results), "; ")),
        ("Date", _dates([record.created for record in results if record.created])),
        ("Trials", str(len(results))),
    ]
    return [(label, text) for label, text in told if text]


def natural(value: str) -> list[tuple[int, float, str]]:
    """A sort key: words by letters, and numbers in them by size, the largest first."""
    return [(1, -float(part), "") if part.isdecimal() else (0, 0.0, part) for part in re.split(r"(\d+)", value) if part]


def listed(values: Iterable[str], between: str = ", ") -> str:
    """The values, each once; of many the first and the last."""
    found = list(dict.fromkeys(filter(None, values)))
    return between.join(found) if len(found) <= _MOST else f"{found[0]} to {found[-1]} ({len(found)} values)"


def _counts(results: Sequence[Result], *, text: bool) -> str:
    counts = sorted({record.n for record in results if record.reads_text == text})
    if not counts:
        return ""
    span = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{span} {'tokens' if text else 'questions'}{' per trial' if len(results) > 1 else ''}"


def _machine(hardware: Hardware) -> str:
    cores = f"{hardware.cores} cores" if hardware.cores and not hardware.gpu else ""
    device = "" if hardware.device == "cpu" and hardware.cpu else hardware.device
    return ", ".join(dict.fromkeys(filter(None, (device, hardware.gpu, hardware.cpu, cores))))


def _dates(created: Sequence[str]) -> str:
    dates = [f"{year}-{month}-{day}" for year, month, day in filter(None, map(_date, created))]
    first, last = min(dates, default=""), max(dates, default="")
    return first if first == last else f"{first} to {last}"


def _date(created: str) -> tuple[str, ...]:
    """Year, month and day of an ISO 8601 time, with or without hyphens; empty for anything else."""
    found = re.match(r"(\d{4})-?(\d{2})-?(\d{2})(?!\d)", created)
    return found.groups() if found else ()
