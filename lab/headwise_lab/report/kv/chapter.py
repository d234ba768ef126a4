"""The chapter on KV eviction: a section for each model and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise_lab.report.chapter import Chapter, Detail, Drawn, ReadFolder, Section
from headwise_lab.report.grouping import grouped
from headwise_lab.report.kv import tables
from headwise_lab.report.kv.conclusion import conclusion
from headwise_lab.report.kv.judgement import JudgedSetting, judge_runs
from headwise_lab.report.kv.runs import KvRun, load_runs
from headwise_lab.report.kv.terminal import kv_table
from headwise_lab.report.kv.verdicts import METHOD, sentences
from headwise_lab.report.page.slugs import slugs
from headwise_lab.store.record_types import Record

LEGEND = "≈ no difference, ↑ better, ↓ worse, - nothing to compare with."


class KvLayout:
    """Runs by ascending context; each is compared with uniform windows of the same context."""

    def chapter(self, found: ReadFolder, mine: Sequence[Record]) -> Chapter:
        """The chapter made from the text records among ``mine``."""
        runs, warnings = load_runs(found.folder, mine)
        groups = grouped(runs, lambda run: run.setting)
        titles = _titles(list(groups))
        judged = list(zip(titles, slugs(titles), map(judge_runs, groups.values()), strict=True))
        return Chapter(
            sections=[_section(*one) for one in judged],
            conclusion=conclusion([one for _, _, one in judged]),
            method=METHOD if runs else "",
            results=[run.record for run in runs],
            records=tables.records(runs) if runs else None,
            warnings=warnings,
            terminal=lambda: [kv_table(title, one) for title, _, one in judged],
        )


def _section(title: str, slug: str, judged: JudgedSetting) -> Section:
    main = tables.main_table(judged, title, slug)
    others = (tables.best_table(judged, title, slug), tables.controls_table(judged, title, slug))

    def draw(folder: Path) -> Drawn:
        from headwise_lab.report.kv.figures import draw_all  # matplotlib takes a second to import

        return Drawn(draw_all(judged, title, slug, folder))

    return Section(
        title=title,
        slug=slug,
        main=main,
        legend=LEGEND,
        details=[Detail(grid) for grid in others if grid is not None],
        verdicts=[f"{title}: {sentence}" for sentence in [*sentences(judged), *_limits(judged.runs)]],
        records=[run.record for run in judged.runs],
        draw=draw,
    )


def _titles(settings: Sequence[tuple[str, ...]]) -> list[str]:
    """Titles: model and text, and of everything else only what differs between the sections."""
    titles = []
    for model, weights, dtype, attention, name, digest, tokens in settings:
        same = [other for other in settings if (other[0], other[4]) == (model, name)]
        parts = ((weights[:8], 1), (dtype, 2), (attention, 3), (digest[:8], 5), (f"{tokens} tokens", 6))
        extra = [part for part, place in parts if len({other[place] for other in same}) > 1]
        titles.append(", ".join([f"KV eviction, {model} on {name}", *extra]))
    return titles


def _limits(runs: Sequence[KvRun]) -> list[str]:
    """Sentences where windows are not the head-aware cache study's, or the text is too long for the model."""
    scales = {float(scale) for run in runs if (scale := run.record.scale) and float(scale) != 1}
    longest = max((run.record.text.tokens or 0 for run in runs), default=0)
    trained = min((int(known) for run in runs if (known := run.record.trained_context)), default=longest)
    beyond = (
        f"The text of {longest} tokens is longer than the {trained} that the model was trained on, so the full cache"
        " does worse than it could, and losing little to it means little."
    )
    too_long = [beyond] if longest > trained else []
    return too_long + [
        f"All windows are {scale:g} of those of the study it re-creates, because the model was trained on short texts;"
        " sinks stay 4."
        for scale in sorted(scales)
    ]
