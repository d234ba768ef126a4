"""Progress bars: full only while nothing is left to do, and silent when nobody wants them."""

from __future__ import annotations

import io

import pytest
from rich.progress import MofNCompleteColumn

from headwise import verbosity
from headwise_lab.terminal import Terminal, beside
from headwise_lab.terminal.console import wide_enough
from headwise_lab.terminal.progress import FINISHING, Bar, Watched, counted, progress_bars
from headwise_lab.terminal.tables import text_table


def shown(bar):
    """What a terminal shows at this moment."""
    console = Terminal(file=io.StringIO(), width=90)
    for part in bar.get_renderables():
        console.print(part)
    return console.file.getvalue()


def test_no_bar_stands_full_while_the_command_goes_on():
    with Bar(MofNCompleteColumn(), console=Terminal(file=io.StringIO())) as bar:
        one, other = bar.add_task("one", total=2), bar.add_task("other", total=3)
        bar.advance(one, 2)
        assert "2/2" in shown(bar)  # the other is not full, so one sees that work is left
        bar.advance(other, 3)
        assert shown(bar) == f"{FINISHING}\n"
        bar.add_task("third", total=1)
        assert "0/1" in shown(bar)


def test_a_bar_without_a_total_is_never_full():
    with Bar(console=Terminal(file=io.StringIO())) as bar:
        bar.advance(bar.add_task("reading", total=None), 5)
        assert shown(bar).startswith("reading ")


@pytest.fixture
def quiet():
    token = verbosity._level.set(verbosity.QUIET)
    yield
    verbosity._level.reset(token)


def test_quiet_shows_no_bar_and_no_remark_but_what_failed(quiet, capsys):
    with counted("asking", 2) as advance:
        advance(2)
    with progress_bars() as bar:
        bar("reading", 3)(3)
    beside().print("a remark")
    with Watched(Bar(console=beside())) as watched:
        watched.say("a trial is done")
        watched.alert("a trial failed")
    assert capsys.readouterr() == ("", "warning: a trial failed\n")


HEADER = ("Strategy", "Perplexity", "To first, %", "", "KV cache")
ROWS = (
    ("streaming:sinks=4,window=60", "26.26 ± 4.98", "", "", "0.562 MiB"),
    ("none", "25.98 ± 4.94", "-1.1 ± 0.7", "better", ""),
)


@pytest.mark.parametrize(("width", "side_by_side"), [(100, True), (73, True), (72, False), (40, False)])
def test_a_table_wider_than_the_terminal_is_shown_row_by_row_with_every_cell_whole(width, side_by_side):
    console = Terminal(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(text_table(HEADER, ROWS, title="kjv"))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[0].startswith("kjv")
    assert max(map(len, lines)) <= width
    for name, *cells in ROWS:
        (at,) = [number for number, line in enumerate(lines) if line.startswith(name)]
        assert all(cell in (lines[at] if side_by_side else "\n".join(lines[at:])) for cell in cells)
    if not side_by_side:
        assert lines[1:] == [
            "streaming:sinks=4,window=60", "  Perplexity  26.26 ± 4.98", "  KV cache    0.562 MiB",
            "none", "  Perplexity   25.98 ± 4.94", "  To first, %  -1.1 ± 0.7 better",
        ]  # fmt: skip


def test_a_table_in_a_file_has_lines_as_long_as_they_are(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    table = text_table(HEADER, ROWS)
    wide_enough([table]).print(table)
    assert ROWS[1][0] in capsys.readouterr().out.splitlines()[2]
