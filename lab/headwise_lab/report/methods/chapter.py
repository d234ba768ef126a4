"""The chapter on whole methods: a section for each benchmark, and one over all benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from headwise_lab.report.chapter import Chapter, Detail, Drawn, ReadFolder, Section
from headwise_lab.report.heads.tables import records as records_table
from headwise_lab.report.heads.verdicts import PAIRED
from headwise_lab.report.kept_tokens.choices import KeptSetting
from headwise_lab.report.methods import tables
from headwise_lab.report.methods.conclusion import conclusion
from headwise_lab.report.methods.console import methods_table
from headwise_lab.report.methods.methods import CONTROLS, REFERENCE, MethodResult, Methods, compare_methods
from headwise_lab.report.page.facets import plain
from headwise_lab.report.page.facts import signed
from headwise_lab.store.record_types import Record

METHOD = (
    f"Methods run as their recipes say, each held against {REFERENCE} at the same processed average and against the"
    f" unpruned model. {PAIRED} Prefill is timed with the vision tower, in turns with the unpruned model on the"
    f" same batches, because methods that prune before the language model do their work between the two. Scores are"
    f" those of this model, so they need not rank methods as a larger model would."
)
"""How to read the comparison, in one paragraph."""

LEGEND = f"≈ no difference to {REFERENCE}, ↑ better, ↓ worse (p adjusted over the table), - not run."


class MethodsLayout:
    """A row per method, a column per budget; each method is compared with the same reference."""

    def chapter(self, found: ReadFolder, mine: Sequence[Record]) -> Chapter:
        """The chapter made from the benchmark records among ``mine``."""
        trials = found.trials_of(mine)
        compared = compare_methods(trials, mine)
        refusals = tables.refusals(compared)
        return Chapter(
            sections=[*_overview(compared), *(_section(methods, compared, found) for methods in compared)],
            conclusion=conclusion(compared),
            closing=[refusals] if refusals else [],
            method=METHOD if compared else "",
            results=[trial.record for trial in trials],
            records=records_table(trials) if trials else None,
            terminal=lambda: [methods_table(compared)] if compared else [],
        )


def _overview(compared: Sequence[Methods]) -> list[Section]:
    main = tables.overview(compared)
    if main is None:
        return []
    return [Section(title=main.title, slug=main.slug, main=main, draw=partial(_draw_overview, compared))]


def _draw_overview(compared: Sequence[Methods], folder: Path) -> Drawn:
    from headwise_lab.report.methods.figures import draw_overview, looks  # matplotlib takes a second to import

    return Drawn(draw_overview(compared, looks(compared), folder))


def _section(methods: Methods, compared: Sequence[Methods], found: ReadFolder) -> Section:
    others = (tables.differences(methods), tables.costs(methods), tables.kept_tokens(methods))
    return Section(
        title=methods.title,
        slug=methods.slug,
        main=tables.scores(methods),
        legend=LEGEND,
        details=[Detail(grid) for grid in others if grid is not None],
        verdicts=sentences(methods),
        records=[result.trial.record for result in methods.results.values()],
        draw=partial(_draw, methods, compared, found.folder),
    )


def _draw(methods: Methods, compared: Sequence[Methods], source: Path, folder: Path) -> Drawn:
    from headwise_lab.report.kept_tokens.views import KeptRequest, kept_view
    from headwise_lab.report.methods.figures import draw_all, looks

    wanted = KeptRequest(
        title=methods.title, slug=methods.slug, choices=kept_settings(methods), source=source, unpruned=methods.unpruned
    )
    kept, warning = kept_view(wanted, folder)
    return Drawn(draw_all(methods, looks(compared), folder), kept, warning)


def kept_settings(methods: Methods) -> list[KeptSetting]:
    """What to show of kept tokens: a setting for each budget that has several methods."""
    found = []
    for budget in methods.budgets:
        trials = {result.name: result.trial for result in methods.at(budget)}
        references = [REFERENCE] if REFERENCE in trials else []
        references += [name for name in CONTROLS if name in trials][:1]
        if len(trials) > 1:
            found.append(KeptSetting(plain(budget), "", budget, trials, tuple(references)))
    return found


def sentences(methods: Methods) -> list[str]:
    """The findings on a benchmark, budget by budget."""
    return [line for budget in methods.budgets for line in _at_budget(methods, budget)]


def _at_budget(methods: Methods, budget: str) -> list[str]:
    """The findings at one budget: against the reference, and which methods equal the unpruned model."""
    where = f"{methods.title}, {budget}"
    results = [result for result in methods.at(budget) if result.name != REFERENCE]
    lines = []
    if results and any(name == REFERENCE for name, _ in methods.results):
        lines.append(f"{where}: {_against_reference(results)}.")
    close = [result.name for result in methods.at(budget) if result.to_unpruned and not result.to_unpruned.clear]
    if close:
        lines.append(f"{where}: no difference to the unpruned model: {', '.join(close)}.")
    return lines


def _against_reference(results: Sequence[MethodResult]) -> str:
    """Which methods are better and which worse, the largest difference first, and how many are neither."""
    better, worse = (_listed(results, verdict) for verdict in ("better", "worse"))
    equal = sum(result.verdict == "same" for result in results)
    alone = [result.name for result in results if not result.verdict]
    parts = []
    if len(alone) < len(results):
        parts.append(f"better than {REFERENCE}: {better}; worse: {worse}; no difference: {equal} of {len(results)}")
    if alone:
        parts.append(f"not compared, because {REFERENCE} was not run at their budget: {', '.join(alone)}")
    return "; ".join(parts)


def _listed(results: Sequence[MethodResult], verdict: str) -> str:
    found = [
        (-abs(gap.value), f"{result.name} ({signed(gap, 1)})")
        for result in results
        if result.verdict == verdict and (gap := result.to_reference)
    ]
    return ", ".join(text for _, text in sorted(found)) or "none"
