"""The chapter on head selection: a section for each comparison, then tables over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs

from headwise_lab.report.chapter import Chapter, Detail, Drawn, ReadFolder, Section
from headwise_lab.report.heads import tables, verdicts
from headwise_lab.report.heads.comparison import BASELINE, CONTROL, Comparison, compare_heads
from headwise_lab.report.heads.conclusion import conclusion
from headwise_lab.report.heads.console import heads_table
from headwise_lab.report.heads.efficiency import efficiency
from headwise_lab.report.heads.references import references
from headwise_lab.report.kept_tokens.choices import KeptSetting
from headwise_lab.report.page.facets import plain
from headwise_lab.report.page.grid import flat
from headwise_lab.report.trials import Trial
from headwise_lab.store.record_types import Record

LEGEND = "≈ no difference to all heads, ↑ better, ↓ worse (p adjusted over the table), ★ recommended, - not measured."
PAGE_LEGEND = (
    "Bold: best of its column. Small print: paired difference to all heads ± SE; ≈ no difference, ↑ better, ↓ worse. ★"
    " and a green ground: recommended. -: not measured."
)


@attrs.frozen
class HeadLayout:
    """The columns of a table are head scorers; they are query strategies in the studies named in ``by_query``."""

    by_query: tuple[str, ...] = ()

    def chapter(self, found: ReadFolder, mine: Sequence[Record]) -> Chapter:
        """The chapter made from the benchmark records among ``mine``."""
        trials = found.trials_of(mine)
        if not trials:
            return Chapter()
        comparisons = compare_heads(trials, self.by_query)
        total = tables.wins(verdicts.total_wins(comparisons), "Wins over all tables", "wins")
        closing = (total if len(comparisons) > 1 else None, references(trials), efficiency(trials))
        return Chapter(
            sections=[_section(comparison, found) for comparison in comparisons],
            conclusion=conclusion(comparisons),
            closing=[grid for grid in closing if grid is not None],
            method=verdicts.METHOD,
            results=[trial.record for trial in trials],
            records=tables.records(trials),
            terminal=lambda: [heads_table(trials, comparisons)],
        )


def _section(comparison: Comparison, found: ReadFolder) -> Section:
    scores = attrs.evolve(tables.scores(comparison), long=tuple(map(flat, tables.long_rows(comparison))))
    return Section(
        title=comparison.title,
        slug=comparison.slug,
        main=scores,
        heading=scores.title,
        legend=LEGEND,
        page_legend=PAGE_LEGEND,
        details=_details(comparison),
        verdicts=verdicts.recommendations(comparison),
        best=_best(comparison),
        records=[trial.record for _, _, cell in comparison.cells() for trial in cell.trials],
        draw=partial(_draw, comparison, found),
    )


def _details(comparison: Comparison) -> list[Detail]:
    counted, overlap = comparison.wins(), tables.overlap(comparison)
    wins = tables.wins(counted, f"{comparison.title}: wins", f"{comparison.slug}-wins")
    rows = len(comparison.rows)
    lines = [(name, f"best in {best} of {rows} rows, alone in {sole}") for name, (best, sole) in counted.items()]
    found = [
        Detail(tables.differences(comparison), "Differences to all heads, paired ± SE"),
        Detail(wins, "Wins, ties counted for each", lines),
    ]
    return found + ([Detail(overlap, "Kept tokens: overlap, concentration, diversity")] if overlap else [])


def _best(comparison: Comparison) -> list[str]:
    """The best configurations, a line each."""
    return [
        f"Token={row.budget}, Head={row.head_label}, Strategy={name} → {cell.value:.{comparison.digits}f}"
        for row, name, cell in comparison.peak()
    ]


def _draw(comparison: Comparison, found: ReadFolder, folder: Path) -> Drawn:
    from headwise_lab.report.heads import figures  # matplotlib takes a second to import
    from headwise_lab.report.kept_tokens.views import KeptRequest, kept_view

    full = _unpruned(comparison, found.trials)
    drawn = (figures.scores(comparison, full.value if full else None, folder), figures.differences(comparison, folder))
    wanted = KeptRequest(
        title=comparison.title,
        slug=comparison.slug,
        choices=kept_settings(comparison),
        source=found.folder,
        unpruned=full,
    )
    kept, warning = kept_view(wanted, folder)
    return Drawn([figure for figure in drawn if figure], kept, warning)


def kept_settings(comparison: Comparison) -> list[KeptSetting]:
    """What to show of kept tokens: a setting for each row that has several strategies."""
    found = []
    for row in comparison.rows:
        trials = {name: row.cells[name].trials[0] for name in comparison.columns if name in row.cells}
        heads = "all heads" if row.heads == "all" else f"{row.head_label} heads"
        references = tuple(name for name in (BASELINE, CONTROL) if name in trials)
        if len(trials) > 1:
            label = f"{row.budget} with {heads}"
            found.append(KeptSetting(plain(row.budget), plain(row.head_label), label, trials, references))
    return found


def _unpruned(comparison: Comparison, trials: Sequence[Trial]) -> Trial | None:
    """The trial of the same model without pruning; None unless there is exactly one."""
    model = next(trial.model for _, _, cell in comparison.cells() for trial in cell.trials)
    full = [
        trial for trial in trials if trial.unpruned and (trial.benchmark, trial.model) == (comparison.benchmark, model)
    ]
    return full[0] if len(full) == 1 else None
