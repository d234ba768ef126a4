"""The part of a report that holds whole methods against each other, gathered once for every page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise_lab.report.heads.verdicts import PAIRED, signed
from headwise_lab.report.methods import tables
from headwise_lab.report.methods.methods import REFERENCE, Methods, Result, compare_methods
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import Grid
from headwise_lab.report.trials import Trial
from headwise_lab.store.record_types import Record

if TYPE_CHECKING:
    from headwise_lab.report.kept_tokens.views import KeptView

METHOD = (
    f"Methods run as their recipes say, each held against {REFERENCE} at the same processed average and against the"
    f" unpruned model. {PAIRED} Prefill is timed with the vision tower, in turns with the unpruned model on the"
    f" same batches, because methods that prune before the language model do their work between the two. Scores are"
    f" those of this model, so they need not rank methods as a larger model would."
)
"""How to read the comparison, in one paragraph."""


@attrs.frozen(eq=False)
class MethodsSection:
    """One benchmark, or all of them together: its tables and figures."""

    title: str
    slug: str
    main: Grid
    others: tuple[Grid, ...] = ()
    methods: Methods | None = None
    figures: tuple[Figure, ...] = ()
    kept: KeptView | None = None

    @property
    def verdicts(self) -> list[str]:
        """One or two sentences per budget."""
        if self.methods is None:
            return []
        return [told for budget in self.methods.budgets for told in _sentences(self.methods, budget)]


@attrs.frozen(eq=False)
class MethodsPart:
    """Everything a report says about whole methods; empty where a folder compares none."""

    compared: tuple[Methods, ...] = ()
    sections: tuple[MethodsSection, ...] = ()
    refusals: Grid | None = None
    method: str = METHOD

    def drawn(self, folder: Path) -> MethodsPart:
        """The part with its figures drawn into ``folder``."""
        if not self.sections:
            return self
        from headwise_lab.report.methods.figures import draw, draw_overview, looks

        chosen = looks(self.compared)

        def figures(section: MethodsSection) -> tuple[Figure, ...]:
            one = section.methods
            found = draw(one, chosen, folder) if one else draw_overview(self.compared, chosen, folder)
            return (found,) if found else ()

        return attrs.evolve(self, sections=tuple(attrs.evolve(one, figures=figures(one)) for one in self.sections))

    def grids(self) -> list[Grid]:
        """Every table, in the order of the report."""
        own = [grid for section in self.sections for grid in (section.main, *section.others)]
        return [*own, *([self.refusals] if self.refusals else [])]


def gather_methods(trials: Sequence[Trial], raw: Sequence[Record]) -> MethodsPart:
    """The comparisons of methods among all trials and records of an output folder."""
    compared = tuple(compare_methods(trials, raw))
    overview = tables.overview(compared)
    sections = [MethodsSection(overview.title, overview.slug, overview)] if overview else []
    return MethodsPart(compared, (*sections, *map(_section, compared)), tables.refusals(compared))


def _section(methods: Methods) -> MethodsSection:
    others = (tables.differences(methods), tables.costs(methods), tables.kept_tokens(methods))
    found = tuple(grid for grid in others if grid is not None)
    return MethodsSection(methods.title, methods.slug, tables.scores(methods), found, methods)


def _sentences(methods: Methods, budget: str) -> list[str]:
    """What may be said of one budget: against the reference, against the unpruned model, against controls."""
    where = f"{methods.title}, {budget}"
    results = [result for result in methods.at(budget) if result.name != REFERENCE]
    told = []
    if results and any(name == REFERENCE for name, _ in methods.results):
        told.append(f"{where}: {_against_reference(results)}.")
    close = [result.name for result in methods.at(budget) if result.to_unpruned and not result.to_unpruned.clear]
    if close:
        told.append(f"{where}: cannot be told from the unpruned model: {', '.join(close)}.")
    return told


def _against_reference(results: Sequence[Result]) -> str:
    """What is better and what is worse, the largest difference first, and how much is left open."""
    better, worse = (_listed(results, verdict) for verdict in ("better", "worse"))
    open_ones = sum(result.verdict == "same" for result in results)
    alone = [result.name for result in results if not result.verdict]
    told = [
        f"better than {REFERENCE}: {better}; worse: {worse}; {open_ones} of {len(results)} cannot be told from it"
    ] * (len(alone) < len(results))
    told += [f"not compared, for want of {REFERENCE} at their budget: {', '.join(alone)}"] * bool(alone)
    return "; ".join(told)


def _listed(results: Sequence[Result], verdict: str) -> str:
    found = [
        (-abs(gap.value), f"{result.name} ({signed(gap, 1)})")
        for result in results
        if result.verdict == verdict and (gap := result.to_reference)
    ]
    return ", ".join(text for _, text in sorted(found)) or "none"
