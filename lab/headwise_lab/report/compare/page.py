"""A comparison of two folders as a grid, as Markdown with lines above and below, and as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.table import Table
from rich.text import Text

from headwise_lab.report.compare.pairs import Pair
from headwise_lab.report.conclusions import left_open, points, tally
from headwise_lab.report.page.facts import certainty, difference, known, sign_of
from headwise_lab.report.page.grid import Grid, Mark, markdown, markdown_line, markdown_text
from headwise_lab.report.page.terminal import STYLES
from headwise_lab.stats.differences import BETTER, SAME, WORSE
from headwise_lab.stats.resampling import CONFIDENCE
from headwise_lab.stats.rule import stated
from headwise_lab.terminal.tables import text_table

METHOD = "Figures are means over the questions, or the tokens of a text, that both sides share, ± SE."
_FIGURES = 8  # columns behind the labels


@attrs.frozen(eq=False)
class Against:
    """The comparison of one folder with the first: its letter, its name as given, the pairs, and the warnings."""

    letter: str
    called: str
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name of its table in file names and links."""
        return "side-by-side" if self.letter == "B" else f"side-by-side-{self.letter.lower()}"


def grid(against: Against) -> Grid:
    """A row per pair: the fields in which the rows differ, both figures, the difference and the verdict."""
    names = _varying(against.pairs)
    header = [_heading(name) for name in names]
    rows: list[list[str | Mark]] = [
        [*(_label(pair, name) for name in names), *_figures(pair, against.letter)] for pair in against.pairs
    ]
    ours = against.letter
    shared = ("A", ours, f"{ours} - A ± SE", f"{CONFIDENCE:.0%} interval", "n", "p", "Holm p", "")
    title = "Side by side" if ours == "B" else f"Side by side: {ours} against A"
    return Grid.of(title, against.slug, [*header, *shared], rows, caption(against))


def caption(against: Against) -> str:
    """The rule by which the pairs are judged."""
    units = " or ".join(dict.fromkeys(pair.unit for pair in against.pairs))
    return stated([pair.difference for pair in against.pairs], units)


def conclusion(against: Against) -> str:
    """What the whole table shows, in one or two plain sentences."""
    verdicts = [pair.verdict for pair in against.pairs]
    better, worse, same = (verdicts.count(verdict) for verdict in (BETTER, WORSE, SAME))
    found = [pair.difference for pair in against.pairs]
    plain = not any(one.lower_is_better for one in found)
    open_ones = left_open([found], points if plain else "{:.2g}".format)
    ours = f"{against.letter} against A"
    if not better + worse:
        return f"{ours}: no difference in any of {len(found)} comparisons{open_ones}."
    counted = tally(
        len(found),
        "comparisons",
        (better, "is better", "are better"),
        (worse, "is worse", "are worse"),
        (same, "shows no difference", "show no difference"),
    )
    return f"{ours}: {counted}{open_ones}."


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _label(pair: Pair, name: str) -> str:
    return pair.key[name] if name in pair.key else " → ".join(pair.apart.get(name, ("", "")))


def _varying(pairs: Sequence[Pair]) -> list[str]:
    """Benchmark, and every other field in which rows differ: those of the key, then those that differ between sides."""
    names = dict.fromkeys(name for pair in pairs for name in (*pair.key, *pair.apart))
    return ["benchmark", *(n for n in names if n != "benchmark" and len({_label(pair, n) for pair in pairs}) > 1)]


def _figures(pair: Pair, letter: str) -> list[str | Mark]:
    found = pair.difference
    digits = 4 if found.lower_is_better else 2
    left, right = (tuple(f"{side}-{name}" for name in ids) for side, ids in zip(("A", letter), pair.ids, strict=True))
    told: dict[str, Any] = {"records": (*left, *right), "data": difference(found, "A")}
    between, p, adjusted = certainty(found, digits)
    return [
        Mark(_with_error(*pair.left, digits), records=left, data=_side_facts(*pair.left, found.n)),
        Mark(_with_error(*pair.right, digits), records=right, data=_side_facts(*pair.right, found.n)),
        Mark(f"{found.value:+.{digits}f} ± {found.se:.{digits}f}", verdict=sign_of(found), **told),
        Mark(between, **told),
        Mark(str(found.n), **told),
        Mark(p, **told),
        Mark(adjusted, **told),
        pair.verdict,
    ]


def _side_facts(value: float, error: float, n: int) -> dict[str, Any]:
    return known({"value": value, "se": error, "pairs": n})


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {'-' if math.isnan(error) else f'{error:.{digits}f}'}"


def label(against: Against, pair: Pair) -> str:
    """The fields in which a pair differs from the others of its table, in one line."""
    return " · ".join(_label(pair, name) for name in _varying(against.pairs) if _label(pair, name))


def heading(against: Against, left: str) -> list[str]:
    """The lines above the table: what A and the other are, what all rows share, and what differs in all rows."""
    pairs = against.pairs
    varying = set(_varying(pairs))
    metrics = dict.fromkeys(f"{p.metric}{', lower is better' if p.difference.lower_is_better else ''}" for p in pairs)
    same = [f"{name}={value}" for name, value in pairs[0].key.items() if name not in varying]
    apart = [f"{name} {ours} → {theirs}" for name, (ours, theirs) in pairs[0].apart.items() if name not in varying]
    lines = [f"A: {left}", f"{against.letter}: {against.called}", f"Scores: {', '.join(metrics)}"]
    lines += [f"Same in every row: {', '.join(same)}"] if same else []
    return lines + ([f"Apart in every row, A → {against.letter}: {', '.join(apart)}"] if apart else [])


def page(compared: Sequence[Against], left: str, title: str, pictures: Mapping[str, Sequence[str]]) -> str:
    """The Markdown page. ``pictures``: slug of a table -> Markdown lines that show its figures."""
    lines = [f"# {markdown_text(title)}", ""]
    for against in compared:
        shown = grid(against)
        lines += [f"## {markdown_text(shown.title)}", ""] if len(compared) > 1 else []
        lines += [f"> {markdown_line(warning)}\n" for warning in against.warnings]
        lines += [f"* {markdown_line(line)}" for line in heading(against, left)]
        lines += ["", markdown(shown), "", markdown_line(shown.caption), ""]
        lines += [f"{line}\n" for line in pictures.get(against.slug, ())]
    return "\n".join([*lines, METHOD, ""])


def terminal(against: Against) -> Table:
    """The table for the terminal."""
    found = grid(against)
    table = text_table(found.header, left=len(found.header) - _FIGURES)
    for row, pair in zip(found.rows, against.pairs, strict=True):
        table.add_row(*(Text(mark.text, style=STYLES[pair.verdict] if mark.verdict else "") for mark in row))
    return table


def as_dict(against: Against, pair: Pair) -> dict[str, Any]:
    """All facts about a pair for JSON: NaN becomes null; ``right_folder`` is the folder of the right side."""
    found = pair.difference
    told = {
        "difference": found.value, "se": found.se, "low": found.low, "high": found.high, "n": found.n,
        "test": found.test, "p": found.p, "p_holm": found.adjusted,
    }  # fmt: skip
    return {
        **pair.key,
        "right_folder": against.called,
        "left": list(pair.ids[0]),
        "right": list(pair.ids[1]),
        "apart": {name: list(values) for name, values in pair.apart.items()},
        "metric": pair.metric,
        "left_mean": pair.left[0],
        "right_mean": pair.right[0],
        **{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in told.items()},
        "discordant": found.discordant and list(found.discordant),
        "unit": pair.unit,
        "verdict": pair.verdict,
    }
