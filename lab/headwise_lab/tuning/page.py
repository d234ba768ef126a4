"""A search as tables, as Markdown, as one HTML page, and as a table for the terminal."""

from __future__ import annotations

import base64
from pathlib import Path

from rich.table import Table
from rich.text import Text

from headwise_lab.report.html_page import templates
from headwise_lab.report.page.canvas import Figure as Picture
from headwise_lab.report.page.facts import probability
from headwise_lab.report.page.grid import Grid, Mark, fenced, markdown, markdown_line, markdown_text
from headwise_lab.stats.differences import Difference
from headwise_lab.stats.rule import stated
from headwise_lab.terminal.tables import text_table
from headwise_lab.tuning.confirming import Confirmed
from headwise_lab.tuning.judging import Accuracy, JudgedPoint
from headwise_lab.tuning.outcome import METHOD, SearchOutcome

TEMPLATES = Path(__file__).parent / "templates"
_STYLES = {"better": "green", "worse": "red", "same": "dim"}


def confirmed_grid(outcome: SearchOutcome) -> Grid:
    """The front as measured on the held-out questions."""
    header = ["Point", "Trial", "Cost", "Search", "Held out", "Optimism", "FastV", "To FastV", "Holm p", "Random"]
    rows = [[*_named(outcome, one.confirmed), *_held(one)] for one in outcome.judged]
    rule = stated(one.to_fastv for one in outcome.judged)
    caption = f"Accuracy in % of the unpruned model's ± SE. Cost: {outcome.axis}. {rule}".rstrip()
    return Grid.of("The front, confirmed", "front", [*header, "On the front"], rows, caption)


def found_grid(outcome: SearchOutcome) -> Grid:
    """The front as measured on the questions of the search."""
    rows = [
        [one.point.label, str(one.number), f"{outcome.shown(one.value.cost):.4g}", f"{one.value.accuracy:.1f}"]
        for one in outcome.front
    ]
    caption = f"On the questions of the search alone. Cost: {outcome.axis}."
    return Grid.of("The front of the search", "search-front", ["Point", "Trial", "Cost", "Accuracy"], rows, caption)


def failures_grid(outcome: SearchOutcome) -> Grid | None:
    """Trials without a value, and why; None where all have one."""
    rows = [[label, str(number), reason] for number, label, reason in outcome.failures]
    return Grid.of("Trials without a value", "failures", ["Point", "Trial", "Reason"], rows) if rows else None


def grids(outcome: SearchOutcome) -> list[Grid]:
    """All tables, the most important one first."""
    found = [confirmed_grid(outcome)] if outcome.judged else []
    found.append(found_grid(outcome))
    failures = failures_grid(outcome)
    return [*found, failures] if failures else found


def markdown_page(outcome: SearchOutcome, picture: Picture) -> str:
    """The whole page."""
    blocks = [
        f"# {markdown_text(outcome.title)}",
        "\n".join(f"- {markdown_line(sentence)}" for sentence in outcome.sentences()),
        f"![{markdown_text(picture.caption)}](figures/{picture.path.name})\n\n*{markdown_text(picture.caption)}*",
    ]
    for grid in grids(outcome):
        blocks += [f"## {markdown_text(grid.title)}", markdown(grid), markdown_line(grid.caption)]
    blocks += ["## How to read this", METHOD, fenced(outcome.command)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def html_page(outcome: SearchOutcome, picture: Picture) -> str:
    """The whole page in one file; everything from records is escaped."""
    shown = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    return (
        templates(TEMPLATES)
        .get_template("tune.html.j2")
        .render(outcome=outcome, grids=grids(outcome), picture=shown, caption=picture.caption, method=METHOD)
    )


def terminal(outcome: SearchOutcome) -> Table:
    """The table for a terminal: the confirmed front, or the search's where nothing was confirmed."""
    grid = confirmed_grid(outcome) if outcome.judged else found_grid(outcome)
    rows = [[Text(mark.text, style=_STYLES.get(mark.verdict, "")) for mark in row] for row in grid.rows]
    return text_table(grid.header, rows)


def _named(outcome: SearchOutcome, confirmed: Confirmed) -> list[str | Mark]:
    found = confirmed.found
    return [found.point.label, str(found.number), f"{outcome.shown(found.value.cost):.4g}"]


def _held(one: JudgedPoint) -> list[str | Mark]:
    """The cells about the held-out questions, or the reason why there are no figures."""
    search = _with_error(one.search)
    if one.held_out is None:
        return [search, Mark("-", hint=one.confirmed.again.reason), *["-"] * 5, one.confirmed.again.reason]
    sign = {"no difference": "same"}.get(one.verdict, one.verdict)
    return [
        search,
        Mark(
            _with_error(one.held_out),
            bold=one.beaten_by is None,
            hint=f"{one.held_out.low:.1f} to {one.held_out.high:.1f}",
        ),
        f"{one.optimism:+.1f}",
        "itself" if one.confirmed.is_reference else _with_error(one.fastv),
        Mark(_difference(one.to_fastv), verdict=sign),
        probability(one.to_fastv.adjusted if one.to_fastv else None),
        _with_error(one.random),
        "yes" if one.beaten_by is None else f"no: {one.beaten_by}",
    ]


def _with_error(figure: Accuracy | None) -> str:
    return "-" if figure is None else f"{figure.value:.1f} ± {figure.se:.1f}"


def _difference(found: Difference | None) -> str:
    return "-" if found is None else f"{found.value:+.1f} ± {found.se:.1f}"
