"""What a shell may complete beside options and files: names of what is installed, read without importing any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from typer.models import ParameterInfo

from headwise.hookspecs import HOOKS
from headwise.listing import KINDS
from headwise.registry import installed
from headwise.source import describe_entry

Completer = Callable[[str], list[tuple[str, str]]]
"""From the beginning of a word to the words it may become, each with what it means."""


def names(*kinds: str) -> Completer:
    """Names of plugins; after ``hook=``, those of that hook."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        kind, equals, begun = incomplete.rpartition("=")
        wanted = [each for each in kinds if each == kind] if equals else kinds
        return list(dict(_named(wanted, begun, f"{kind}{equals}")).items())

    return complete


def _named(kinds: Sequence[str], begun: str, before: str) -> Iterator[tuple[str, str]]:
    for kind in kinds:
        for name, entries in installed(kind).items():
            if name.startswith(begun):
                yield f"{before}{name}", describe_entry(entries[0]).told


def words(known: Sequence[str]) -> Completer:
    """Words that are known beforehand."""
    return lambda incomplete: [(word, "") for word in known if word.startswith(incomplete)]


COMPLETERS: Mapping[str, Completer] = {
    "benchmark": names("benchmark"),
    "executor": names("executor"),
    "hook": words(KINDS),
    "judge": names("judge"),
    "name": names(*KINDS),
    "recipe": names("recipe"),
    "strategy": names(*HOOKS),
    "study": names("study"),
}
"""By the name of an option or argument, in every command of headwise."""


def complete_names(hints: Mapping[str, object]) -> None:
    """Give the options and arguments among these annotations their completers, unless they have one."""
    for name, hint in hints.items():
        for told in getattr(hint, "__metadata__", ()):
            if isinstance(told, ParameterInfo) and told.autocompletion is None:
                told.autocompletion = COMPLETERS.get(name)
