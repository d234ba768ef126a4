"""Progress bars: full only while nothing is left to do, and silent when nobody wants them."""

from __future__ import annotations

import io

import pytest
from rich.progress import MofNCompleteColumn

from headwise import verbosity
from headwise_lab.terminal import Terminal, beside
from headwise_lab.terminal.progress import FINISHING, Bar, Watched, counted, progress_bars


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
