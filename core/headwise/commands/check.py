"""``headwise check``: the conformance kit from a shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from headwise.errors import DataError, StrategyError
from headwise.hints import number_of
from headwise.hookspecs import HOOKS
from headwise.listing import locate
from headwise.output import answer, end_with
from headwise.printing import columns, hanging, say
from headwise.registry import Registry, installed, owner_of

if TYPE_CHECKING:
    from headwise.testing.verdicts import Verdict

LINES = 16
"""Lines of one mistake, so that several fit on a screen."""


def check(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME[:option=value,...]", help="A strategy or benchmark, or KIND=NAME, or OWNER/NAME."),
    ],
    expect: Annotated[list[str] | None, typer.Option(help="A law that the strategy breaks on purpose; repeat.")] = None,
    data: Annotated[str | None, typer.Option(help="For a benchmark: a folder with its files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Hold a strategy to every law of its hook, or a benchmark to those of benchmarks.

    Prints each law with its verdict; of a broken one what is wrong, the line of the strategy that raised, and Python
    that runs the smallest failing input again. Laws on the form of an answer come first; where one of them is broken,
    the others are not tried. Ends with status 0 where all hold (or break as expected), 1 where one does not.
    """
    told: list[dict[str, object]] = []
    for hook, entry in _strategies(name, data):
        text = name.removeprefix(f"{hook}=")
        _check_expected(hook, expect or ())
        if not as_json:
            say(f"{_called(hook, text)} ({owner_of(entry)})")
        told += _held(hook, text, expect or (), data, shown=not as_json)
    if as_json:
        answer(json.dumps(told, indent=2))
    end_with(whole=all(record["as_expected"] for record in told))


def _strategies(name: str, data: str | None) -> list[tuple[str, EntryPoint]]:
    """What has laws and that name; raises StrategyError for none, DataError where the kit cannot be imported."""
    if find_spec("hypothesis") is None or find_spec("pytest") is None:
        raise DataError('the conformance kit needs hypothesis and pytest; pip install "headwise[testing]"')
    found = [(hook, entry) for hook, entry in locate(name) if hook in (*HOOKS, *installed("kit"))]
    if not found:
        raise StrategyError(f"{name} is no strategy of a hook with laws; `headwise strategies` lists those there are")
    _check_data(name, [hook for hook, _ in found], data)
    return found


def _check_data(name: str, kinds: Sequence[str], data: str | None) -> None:
    """Raise DataError for data that a strategy does not want, or a benchmark lacks."""
    from headwise.testing.kits import kit_of

    for kind in kinds:
        if kind not in HOOKS:
            kit_of(kind).check_given(name.removeprefix(f"{kind}="), data)
        elif data is not None:
            raise DataError(f"--data is for benchmarks, and {name} is a {kind} strategy; leave it out")


def _called(hook: str, text: str) -> str:
    return f"{hook} strategy {Registry.installed(hook).build(text).text}" if hook in HOOKS else f"{hook} {text}"


def _check_expected(hook: str, expect: Sequence[str]) -> None:
    """Raise DataError for an expected failure of a law that the hook does not have."""
    from headwise.testing import laws

    for law in expect:
        if law not in laws(hook):
            raise DataError(f"--expect {law}: {hook} has no such law; its laws are {', '.join(laws(hook))}")


def _held(hook: str, text: str, expect: Sequence[str], data: str | None, *, shown: bool) -> list[dict[str, object]]:
    """The verdicts as plain data, each printed as soon as it is known where they are ``shown``."""
    from headwise.testing import laws
    from headwise.testing.verdicts import verdicts

    records: list[dict[str, object]] = []
    for verdict in verdicts(hook, text, data):
        as_expected = (verdict.problem is None) != (verdict.law in expect)
        records.append({"hook": hook, "strategy": text, **attrs.asdict(verdict), "as_expected": as_expected})
        if shown:
            say("\n".join(_lines(verdict, expected=verdict.law in expect)))
    left = len(laws(hook)) - len(records)
    if shown and left:
        tried = "is not tried: it" if left == 1 else "are not tried: they"
        say(f"  {number_of(left, 'other law')} {tried} would tell of the same mistake")
    return records


def _lines(verdict: Verdict, *, expected: bool) -> list[str]:
    """A line for a law, and below a broken one what there is to see."""
    if verdict.problem is None:
        word = "HOLDS, though it is expected not to" if expected else "ok"
        return [f"  {word}  {verdict.law}: {verdict.demand}"]
    first = f"  {'broken as expected' if expected else 'BROKEN'}  {verdict.law}: {verdict.demand}"
    if expected:
        return [first]
    return [first, *_wrapped(verdict.problem, LINES), *filter(None, [verdict.place and f"      at {verdict.place}"]),
            f"      again: {verdict.again}"]  # fmt: skip


def _wrapped(text: str, most: int) -> list[str]:
    """A text in indented lines, no more than ``most``."""
    lines = hanging(f"      {' '.join(text.split())}", columns(sys.stdout) or 100, indent=6).split("\n")
    return lines if len(lines) <= most else [*lines[: most - 1], "      ..."]
