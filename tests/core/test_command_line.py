"""What the command line tells beside its answers: help, progress, completion, on terminals of every width."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.core.terminal import on_terminal

from headwise.cli import OWN, main
from headwise.printing import hanging
from headwise.registry import installed

COMMANDS = sorted({*OWN, *installed("command")})

ZEBRA = """
import logging
import sys
import warnings

import typer

from headwise.errors import DataError
from headwise.verbosity import is_quiet, remark, warn

def gallop(*, loud: bool = False) -> None:
    '''Gallop.'''
    print("answer")
    remark("a remark")
    warn("a warning")
    warnings.warn("a library's warning", stacklevel=1)
    logging.getLogger("zebra").info("a library's log")
    if loud:
        raise DataError("too loud")

def slow() -> None:
    '''Import torch.'''
    import torch
    print("done", file=sys.stderr)

def shy(*, quiet: int = 3, level: int = typer.Option(1, "-v")) -> None:
    '''Has options of its own under these names.'''
    print(quiet, level)
"""


@pytest.fixture
def zebra(install):
    commands = {"gallop": "zebra_tells:gallop", "slow": "zebra_tells:slow", "shy": "zebra_tells:shy"}
    install("zebra", "1", {"command": commands}, zebra_tells=ZEBRA)


def run(capsys, *words):
    return (main(list(words)), *capsys.readouterr())


# ------------------------------------------------------------ --quiet, --verbose
def test_quiet_leaves_answers_warnings_and_errors(zebra, capsys, recwarn):
    _, usual, told = run(capsys, "gallop", "--loud")
    status, out, err = run(capsys, "gallop", "--loud", "--quiet")
    assert told == "a remark\nwarning: a warning\nheadwise: too loud\n"
    assert (status, out, err) == (2, usual, told.removeprefix("a remark\n"))


@pytest.mark.parametrize("words", [("-q", "gallop"), ("gallop", "-q"), ("-q", "gallop", "-q")])
def test_it_is_said_before_the_command_or_behind(zebra, capsys, words, recwarn):
    assert run(capsys, *words) == (0, "answer\n", "warning: a warning\n")
    assert "a remark\n" in run(capsys, "gallop")[2]  # it holds for one command, not for the process


def test_verbose_adds_tracebacks_and_what_libraries_say():
    script = "import sys; from headwise.cli import main; sys.exit(main(sys.argv[1:]))"
    told = {
        option: subprocess.run(
            [sys.executable, "-c", script, "show", "nothing", *option], capture_output=True, text=True, check=False
        )
        for option in ((), ("--verbose",))
    }
    usual, verbose = told[()], told[("--verbose",)]
    assert (verbose.returncode, verbose.stdout) == (usual.returncode, usual.stdout) == (2, "")
    assert verbose.stderr.startswith("Traceback (most recent call last):\n")
    assert verbose.stderr.endswith(f"\n{usual.stderr}")


def test_verbose_shows_warnings_and_logs_of_libraries(zebra, capsys, recwarn):
    assert "zebra: a library's log\n" in run(capsys, "-v", "gallop")[2]
    assert "zebra" not in run(capsys, "gallop")[2]


def test_quiet_and_verbose_together_are_refused(capsys):
    status, out, err = run(capsys, "-v", "plan", "-q")
    assert (status, out) == (2, "")
    assert "--quiet and --verbose are both given; give one of them" in err


def test_options_that_a_command_has_itself_are_its_own(zebra, capsys):
    assert run(capsys, "shy", "--quiet", "5", "-v", "2") == (0, "5 2\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_both(capsys, command):
    _, out, _ = run(capsys, command, "-h")
    assert "  -q, --quiet " in out
    assert "  -v, --verbose " in out


# ------------------------------------------------------------ while something is loaded
@pytest.fixture
def slow_torch(tmp_path, zebra):
    """A torch that says when it is imported."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import sys\nprint('torch runs', file=sys.stderr)\n")
    return os.pathsep.join([str(tmp_path), str(tmp_path / "zebra")])


def test_a_terminal_is_told_of_torch_before_it_runs_and_not_any_more_when_it_has(slow_torch):
    status, seen = on_terminal("slow", PYTHONPATH=slow_torch)
    assert status == 0
    line = "headwise: loading torch ..."
    before, after = seen.split("torch runs\n")
    assert before == f"\r{line}"
    assert after == f"\r{' ' * len(line)}\rdone\n"


@pytest.mark.parametrize("words", [["slow"], ["slow", "-q"]])
def test_a_pipe_is_told_nothing(slow_torch, words):
    done = subprocess.run(
        [sys.executable, "-m", "headwise", *words],
        env=os.environ | {"PYTHONPATH": slow_torch},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "torch runs\ndone\n")


def test_quiet_tells_a_terminal_nothing(slow_torch):
    assert on_terminal("slow", "-q", PYTHONPATH=slow_torch) == (0, "torch runs\ndone\n")


# ------------------------------------------------------------ completion
def completed(words):
    told = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_HEADWISE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "headwise"], env=os.environ | told, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("headwise str", ["strategies"]),
        ("headwise run --rec", ["--recipe"]),
        ("headwise run --recipe fa", ["fastv"]),
        ("headwise run --benchmark shapes-g", ["shapes-gqa"]),
        ("headwise run --strategy head_scoring=sp", ["head_scoring=sparsity"]),
        ("headwise show cdp", ["cdpruner"]),
        ("headwise new mine --hook kv", ["kv_eviction"]),
    ],
)
def test_names_are_completed(words, found):
    assert completed(words) == found


def test_showing_any_plugin_of_ours_imports_neither_it_nor_torch():
    script = (
        "import sys; from headwise.cli import main; from headwise.listing import KINDS;"
        "from headwise.registry import installed;"
        "failed = [k for k in KINDS for n in installed(k) if main(['show', f'{k}={n}'])];"
        "heavy = {m for m in sys.modules if m.partition('.')[0] in ('torch', 'numpy', 'headwise_plugins')};"
        "sys.exit(str((failed, heavy)) if failed or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completing_imports_nothing_heavy():
    script = (
        "import sys; from headwise.cli import main\ntry: main([])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    told = {"COMP_WORDS": "headwise run --recipe c", "COMP_CWORD": "3", "_HEADWISE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | told, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("cdpruner\n", "")


# ------------------------------------------------------------ widths
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_narrow_terminals_and_breaks_no_word(capsys, monkeypatch, command):
    told = {}
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        told[columns] = run(capsys, *filter(None, [command]), "--help")[1]
    assert told[60].split() == told[80].split() == told[200].split()
    for columns in (60, 80):
        for line in told[columns].splitlines():
            assert len(line) <= columns or len(line.split()) == 1, line


@pytest.mark.parametrize("words", [["strategies"], ["show", "sparsevlm"], ["show", "nothing"]])
def test_lists_hang_on_a_terminal_and_break_no_word(words):
    piped = subprocess.run([sys.executable, "-m", "headwise", *words], capture_output=True, text=True, check=False)
    status, seen = on_terminal(*words, columns=60)
    assert status == piped.returncode
    assert seen.split() == (piped.stdout + piped.stderr).split()
    assert all(len(line) <= 60 or len(line.split()) == 1 for line in seen.splitlines())


def test_a_line_goes_on_below_its_second_column_or_behind_its_indentation():
    assert hanging("name    one two three", 16) == "name    one two\n        three"
    assert hanging("  one two three", 11) == "  one two\n    three"
    assert hanging("a hub:OWNER/NAME[@REVISION]-long", 10, indent=2) == "a\n  hub:OWNER/NAME[@REVISION]-long"
