"""Figures of a comparison: every difference with its interval, and which tokens both sides kept on example images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

from headwise.reading import shortened
from headwise_lab.report.compare.page import Against, label
from headwise_lab.report.compare.pairs import Pair
from headwise_lab.report.compare.sides import Side
from headwise_lab.report.kept_tokens.choices import KeptSetting
from headwise_lab.report.kept_tokens.views import KeptRequest, kept_view
from headwise_lab.report.page.canvas import STYLE, Figure, new_canvas, save_all
from headwise_lab.report.page.drawing import SIGNS, interval, name_lines, pale_grid, seen, zero_line
from headwise_lab.report.page.facets import of_record, union
from headwise_lab.report.page.kept import KeptView
from headwise_lab.report.page.slugs import slugs
from headwise_lab.report.trials import AskedTrial, Trial
from headwise_lab.store.record_types import VisualRecord

MOST = 30
"""A figure shows this many pairs: those with the largest differences."""

LONGEST = 100  # letters of a label


def differences(against: Against, folder: Path) -> Figure:
    """A line per pair with its difference and interval; of many pairs those with the largest differences."""
    shown = sorted(against.pairs, key=lambda pair: -abs(pair.difference.value))[:MOST]
    shown = [pair for pair in against.pairs if pair in shown]
    path = folder / f"{against.slug}-differences.png"
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(7.6, 1.2 + 0.26 * len(shown))
        panel = canvas.subplots()
        zero_line(panel)
        names = [shortened(label(against, pair), LONGEST) for pair in shown]
        for line, (name, pair) in enumerate(zip(names, shown, strict=True)):
            interval(panel, line, pair.difference, name, _facets(pair))
        name_lines(panel, names, 8)
        panel.set_xlabel(f"{against.letter} - A")
        pale_grid(panel, "x")
        save_all(canvas, path, seen(pair.difference for pair in against.pairs))
    some = f", the {MOST} largest of {len(against.pairs)}" if len(shown) < len(against.pairs) else ""
    caption = (
        f"{against.letter} against A: paired differences with 95% intervals{some}, judged after Holm's correction."
        f" {SIGNS}"
    )
    return Figure(path, caption, against.slug)


def _facets(pair: Pair) -> dict[str, str]:
    """What filters hide a pair by."""
    own = union(of_record(record) for side in pair.records for record in side)
    ids = " ".join(record.id for side in pair.records for record in side)
    return {"budget": "\n".join(own.budget), "heads": "\n".join(own.heads), "records": ids}


def kept(against: Against, left: Side, right: Side, folder: Path) -> list[KeptView]:
    """The tokens that both sides kept where they disagree most: a view for each benchmark that has images."""
    choices: dict[str, list[KeptSetting]] = {}
    for pair in against.pairs:
        records = [side[0] for side in pair.records]
        if all(isinstance(record, VisualRecord) for record in records) and any(
            AskedTrial(record).name("token_pruning") != "none" for record in records
        ):
            one = _choice(against, pair, {"A": left.folder, against.letter: right.folder})
            choices.setdefault(str(records[0].benchmark), []).append(one)
    views = []
    for benchmark, slug in zip(choices, slugs(list(choices)), strict=True):
        title = f"{benchmark}: {against.letter} against A"
        wanted = KeptRequest(title=title, slug=f"{against.slug}-{slug}", choices=choices[benchmark], source=left.folder)
        views.append(kept_view(wanted, folder)[0])
    return [view for view in views if view is not None]


def _choice(against: Against, pair: Pair, folders: Mapping[str, Path]) -> KeptSetting:
    trials = {
        letter: Trial(records[0])
        for letter, records in zip(("A", against.letter), pair.records, strict=True)
        if isinstance(records[0], VisualRecord)
    }
    facets = of_record(pair.records[0][0])
    return KeptSetting(
        budget="".join(facets.budget),
        heads="".join(facets.heads),
        label=label(against, pair),
        trials=trials,
        references=("A", against.letter),
        folders=folders,
    )
