"""The one rule that decides whether a difference counts, and the sentence with which every table states it.

Two sides are compared unit by unit. p comes from McNemar's exact test where every unit is right or wrong, and from a
permutation test otherwise. Holm's correction (1979, "A simple sequentially rejective multiple test procedure") covers
all comparisons of one table: with a probability of at most LEVEL, any difference counts in a table between sides that
do not really differ. With fewer than FEWEST units no difference counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from headwise_lab.stats.blocks import block_length
from headwise_lab.stats.differences import FEWEST, LEVEL, Difference
from headwise_lab.stats.resampling import CONFIDENCE

QUESTION = "question"
"""The unit of benchmarks."""


def block_unit(tokens: int) -> str:
    """The unit of a text with ``tokens`` tokens."""
    return f"block of {block_length(tokens)} consecutive tokens, which depend on each other"


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted probabilities, in the order given."""
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    adjusted = [1.0] * len(probabilities)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * probabilities[index]))
        adjusted[index] = running
    return adjusted


def corrected(found: Sequence[Difference | None]) -> list[Difference | None]:
    """All comparisons of one table with their adjusted probabilities, in the order given; None stays None."""
    family = [one for one in found if one is not None and one.judged]
    adjusted = iter(holm([one.p for one in family]))
    return [
        attrs.evolve(one, adjusted=next(adjusted), family=len(family)) if one is not None and one.judged else one
        for one in found
    ]


def rule(unit: str = QUESTION, family: int | None = None) -> str:
    """The rule in one sentence: unit, test, interval, correction and level."""
    over = "all comparisons of a table" if family is None else f"the {family} comparisons of this table"
    return (
        f"Differences are paired by {unit}; intervals are {CONFIDENCE:.0%} (BCa bootstrap); p is from McNemar's exact"
        f" test where every unit is right or wrong, else from a permutation test; a difference counts where p, after"
        f" Holm's correction over {over}, is at most {LEVEL:g} on at least {FEWEST} units."
    )


def stated(found: Iterable[Difference | None], unit: str = QUESTION) -> str:
    """The rule for the comparisons of one table, and what they leave out or interpolate; "" without comparisons."""
    made = [one for one in found if one is not None]
    if not made:
        return ""
    unequal = sum(one.left_out != (0, 0) for one in made)
    between = sum(bool(one.between) for one in made)
    unknown = sum(not one.judged for one in made)
    notes = {
        f"{unequal} of them are on the {unit}s that both sides share; their n is smaller.": unequal,
        f"{between} are against a reference at the same budget, interpolated between two of its budgets (~).": between,
        f"{unknown} are not judged: nothing says how far off their reference is.": unknown,
    }
    family = max(one.family for one in made)
    return " ".join([rule(unit, family), *(sentence for sentence, count in notes.items() if count)])
