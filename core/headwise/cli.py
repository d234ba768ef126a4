"""The ``headwise`` command: finds subcommands by name, and turns every error a user can meet into one sentence.

A subcommand is a plain typed function behind an entry point ``headwise.command``. Only the one that is used gets
imported, because the others may need torch; the overview reads their one-line help from source text.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import EntryPoint, version
from typing import Annotated, ParamSpec, TypeVar

import typer
from typer.main import get_command

from headwise.blame import reason
from headwise.errors import ContractError, HeadwiseError
from headwise.help_text import Command, Group
from headwise.output import answer_alone
from headwise.printing import say
from headwise.registry import distribution, installed, load, only, owner_of
from headwise.shared_options import with_shared_options
from headwise.source import describe_entry
from headwise.verbosity import is_verbose, own_verbosity
from headwise.waiting import telling_of_imports

OWN = {
    name: (EntryPoint(name, f"headwise.commands.{name}:{name}", "headwise.command"),)
    for name in ("strategies", "show", "plan", "check", "doctor", "new")
}
"""The commands of core; no other distribution can take their names."""

INTERRUPTED = 130

COMPLETING = "_HEADWISE_COMPLETE"
"""The variable that a shell sets when it asks what may follow."""

HELP = {"help_option_names": ["-h", "--help"]}
"""Commands have it from the group that they belong to."""

P = ParamSpec("P")
T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for an error of the user's, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    _spell_out()
    with own_verbosity(), telling_of_imports():
        return _complete() if COMPLETING in os.environ else _run(words)


def _complete() -> int:
    """Print what may follow the words that a shell has; nothing where a plugin in the way is broken."""
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    try:
        get_command(application(words.split()[1:]))(args=[], prog_name="headwise")
    except HeadwiseError:
        return 1
    return 0


def _run(words: Sequence[str]) -> int:
    try:
        with answer_alone() if "--json" in words else nullcontext():  # plugins may print; that goes to standard error
            status = get_command(application(words))(args=list(words), prog_name="headwise", standalone_mode=False)
        sys.stdout.flush()
    except HeadwiseError as error:
        if is_verbose():
            traceback.print_exc()
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output closed it, as `head` does
        _drop_output()
        return 1
    except OSError as error:
        if "--install-completion" in words:
            told = f"{error.filename}: {error.strerror}; `headwise --show-completion` prints what to put elsewhere"
            return _fail(f"completion cannot be installed: {told}")
        if error.filename is not None:  # the error is about a file, not about our output
            raise
        _drop_output()
        return _fail(f"the output cannot be written to ({error.strerror or error})")
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        # A usage error has `format_message`. Its base class differs between versions of typer.
        said = getattr(error, "format_message", None)
        if said is None:
            raise
        return _fail(_usage(error, said()))
    if status == INTERRUPTED:
        print("headwise: interrupted", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _spell_out() -> None:
    """Letters that the output's encoding does not have are spelled out, instead of ending the program.

    A stream that the shell closed (``>&-``) takes everything and keeps nothing.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open as long as the program
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What was not written yet goes nowhere, so that Python does not try once more when it ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def application(words: Sequence[str]) -> typer.Typer:
    """The commands, of which only the one that ``words`` ask for is imported."""
    app = typer.Typer(cls=Group, rich_markup_mode=None, context_settings=HELP)
    app.callback()(with_shared_options(_overview))
    found = {**installed("command"), **OWN}
    wanted = next((word for word in words if not word.startswith("-")), None)
    for name, entries in found.items():
        if name == wanted:
            entry = only("command", name, found)
            app.command(name, cls=Command)(
                with_shared_options(load(entry)) if _ours(entry) else _foreign(load(entry), entry)
            )
        else:
            summary = None if wanted in found else describe_entry(entries[0]).told
            app.command(name, cls=Command, help=summary)(_not_wanted)
    return app


def _ours(entry: EntryPoint) -> bool:
    return entry.dist is None or distribution(entry.dist)[0] == "headwise"


def _foreign(command: Callable[P, T], entry: EntryPoint) -> Callable[P, T]:
    """A command of another package: how it ends is its own business, but what it raises is told in its name."""

    @functools.wraps(command)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return command(*arguments, **named)
        except (HeadwiseError, OSError):
            raise
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "format_message"):
                raise
            raise ContractError(f"command {entry.name!r} ({owner_of(entry)}) failed: {reason(error)}") from error

    return with_shared_options(run, completes=False)


def _version(asked: bool) -> None:
    if asked:
        say(f"headwise {version('headwise')}")
        raise typer.Exit


def _overview(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Attention heads decide what to throw away: visual tokens and KV entries of stock Hugging Face models."""


def _not_wanted() -> None:
    raise AssertionError("a command that was not asked for is never run")


def _usage(error: Exception, said: str) -> str:
    """What is wrong with the words that were typed, and where the right ones are listed."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "headwise"
    return f"{said.rstrip('.')}; see {where} --help"


def _fail(message: str) -> int:
    say(f"headwise: {' '.join(message.split())}", err=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
