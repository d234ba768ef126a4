"""The KV part of a report: one section per model and text, gathered once for every page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise_lab.report.kv import tables
from headwise_lab.report.kv.judgement import JudgedSetting, judge
from headwise_lab.report.kv.runs import KvRun, load_runs
from headwise_lab.report.kv.verdicts import METHOD, sentences
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import Grid
from headwise_lab.store.record_types import Record


@attrs.frozen(eq=False)
class KvSection:
    """All KV runs of one model on one text: what was judged, its tables and its figures."""

    title: str
    slug: str
    judged: JudgedSetting
    figures: tuple[Figure, ...] = ()

    @property
    def verdicts(self) -> list[str]:
        """Plain sentences, each with the model and the text they are about."""
        return [f"{self.title}: {sentence}" for sentence in [*sentences(self.judged), *_limits(self.judged.runs)]]

    @property
    def main(self) -> Grid:
        """Every run but the permuted controls."""
        return tables.main_table(self.judged, self.title, self.slug)

    @property
    def others(self) -> list[Grid]:
        """The best configurations, and the permuted controls where there are any."""
        found = (
            tables.best_table(self.judged, self.title, self.slug),
            tables.controls_table(self.judged, self.title, self.slug),
        )
        return [grid for grid in found if grid is not None]

    def drawn(self, folder: Path) -> KvSection:
        """The section with its figures drawn into ``folder``."""
        from headwise_lab.report.kv.figures import draw_all

        return attrs.evolve(self, figures=tuple(draw_all(self.judged, self.title, self.slug, folder)))


@attrs.frozen(eq=False)
class KvPart:
    """Everything a report says about KV runs; empty where a folder has none."""

    sections: tuple[KvSection, ...] = ()
    runs: tuple[KvRun, ...] = ()
    warnings: tuple[str, ...] = ()
    method: str = METHOD

    @property
    def records(self) -> Grid:
        """Where every figure comes from."""
        return tables.records(self.runs)


def gather_kv(folder: Path, records: Sequence[Record]) -> KvPart:
    """The KV part of an output folder's records."""
    runs, warnings = load_runs(folder, records)
    groups: dict[tuple[str, ...], list[KvRun]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    titles = _titles(list(groups))
    sections = [
        KvSection(title, _slug(title), judge(members)) for title, members in zip(titles, groups.values(), strict=True)
    ]
    return KvPart(tuple(sections), tuple(runs), tuple(warnings))


def _titles(settings: Sequence[tuple[str, ...]]) -> list[str]:
    """Model and text, and of everything else only what tells the sections apart."""
    titles = []
    for model, weights, dtype, attention, name, digest, tokens in settings:
        same = [other for other in settings if (other[0], other[4]) == (model, name)]
        parts = ((weights[:8], 1), (dtype, 2), (attention, 3), (digest[:8], 5), (f"{tokens} tokens", 6))
        extra = [part for part, place in parts if len({other[place] for other in same}) > 1]
        titles.append(", ".join([f"KV eviction, {model} on {name}", *extra]))
    return titles


def _slug(title: str) -> str:
    bare = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title.lower())
    return "-".join(filter(None, bare.split("-")))[:80]


def _limits(runs: Sequence[KvRun]) -> list[str]:
    """Says so where windows are not as large as in seed 004, and where the text outgrows the model."""
    scales = {float(scale) for run in runs if (scale := run.record.scale) and float(scale) != 1}
    longest = max((run.record.text.tokens or 0 for run in runs), default=0)
    trained = min((int(known) for run in runs if (known := run.record.trained_context)), default=longest)
    beyond = (
        f"The text of {longest} tokens is longer than the {trained} that the model was trained on, so the full cache"
        " does worse than it could, and losing little to it means little."
    )
    told = [beyond] if longest > trained else []
    return told + [
        f"All windows are {scale:g} of those of the study it re-creates, because the model was trained on short texts;"
        " sinks stay 4."
        for scale in sorted(scales)
    ]
