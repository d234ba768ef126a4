"""Parts of the sentence that concludes a study; every study computes its own from its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from headwise_lab.stats.differences import FEWEST, Difference
from headwise_lab.stats.power import smallest_seen

MOST_NAMED = 3
"""A conclusion names this many and counts the rest."""


def named(texts: Sequence[str]) -> str:
    """``a, b and c``; of many texts the first ``MOST_NAMED`` and how many more there are."""
    shown = list(texts[:MOST_NAMED])
    if len(texts) > MOST_NAMED:
        shown.append(f"{len(texts) - MOST_NAMED} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def tally(total: int, what: str, *parts: tuple[int, str, str]) -> str:
    """``12 of 40 runs are worse, 1 shows no difference``, from (count, words for one, words for many) of each part."""
    told = [f"{count} {one if count == 1 else many}" for count, one, many in parts if count]
    return ", ".join(told).replace(" ", f" of {total} {what} ", 1)


def points(size: float) -> str:
    """A difference of scores in words."""
    return f"{size:.2g} points" if size < 10 else f"{size:.0f} points"


def left_open(tables: Iterable[Sequence[Difference]], told: Callable[[float], str] = points) -> str:
    """What comparisons could have seen, as the end of a sentence that says "no difference"; empty where all are clear.

    ``tables``: all comparisons of each table, the clear ones too. Tables may have different scales.
    """
    made = [table for table in tables if table]
    if all(one.clear for table in made for one in table):
        return ""
    large = [table for table in made if any(one.n >= FEWEST for one in table)]
    if not large:
        return f" (on fewer than {FEWEST} units no difference can count)"
    sizes = sorted(size for table in large if (size := smallest_seen(table)) is not None)
    if not sizes:
        return " (no answer changed)"
    least, most = told(sizes[0]), told(sizes[-1])
    span = least if least == most else f"{least} to {most}, depending on the table"
    return f" (a typical comparison here could have seen a true difference of about {span}, not much less)"
