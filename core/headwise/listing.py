"""What is installed: one row per strategy, from distribution metadata and source text, nothing imported."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import attrs

from headwise.errors import StrategyError
from headwise.hints import did_you_mean
from headwise.hookspecs import HOOKS
from headwise.registry import distribution, installed, only, owner_of
from headwise.source import Description, Option, describe_entry
from headwise.text import StrategyText, show

OTHER_KINDS = ("observers", "recipe", "adapter", "benchmark")
"""What else is found by entry point ``headwise.<kind>`` and can be listed, beside strategies."""

KINDS = (*HOOKS, *OTHER_KINDS)


@attrs.frozen
class Row:
    """One installed plugin. ``clash`` says that another distribution installs the same name for the same hook."""

    hook: str
    name: str
    entry: EntryPoint
    clash: bool
    description: Description

    @property
    def distribution(self) -> str:
        """Who ships it."""
        return distribution(self.entry.dist)[0] if self.entry.dist else "?"

    @property
    def version(self) -> str:
        """The version of that distribution."""
        return (self.entry.dist and distribution(self.entry.dist)[1]) or "?"

    @property
    def options_text(self) -> str:
        """Options with defaults, as one would type them: ``k=10,form=l2``; ``?`` where the source does not say."""
        if self.description.options is None:
            return "?"
        return ",".join(f"{option.name}={_default(option)}" for option in self.description.options)

    def record(self) -> dict[str, object]:
        """The row as plain data; summary and options are None where the source does not say."""
        options = self.description.options
        return {
            "hook": self.hook,
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "summary": self.description.summary,
            "options": None if options is None else [attrs.asdict(option) for option in options],
            "entry_point": self.entry.value,
            "clash": self.clash,
        }


def rows(kind: str | None = None) -> list[Row]:
    """Strategies of every hook and recipes, or what is installed of one kind; StrategyError for an unknown kind."""
    if kind is None:
        return [row for each in (*HOOKS, "recipe") for row in rows(each)]
    check_kind(kind)
    return [
        Row(kind, name, entry, len(entries) > 1, describe_entry(entry))
        for name, entries in installed(kind).items()
        for entry in sorted(entries, key=owner_of)
    ]


def locate(text: str) -> list[tuple[str, EntryPoint]]:
    """(kind, entry point) of everything called ``[kind=][owner/]NAME``; raises StrategyError where there is nothing."""
    parsed = StrategyText.parse(text)
    if parsed.hook:
        check_kind(parsed.hook)
    kinds = (parsed.hook,) if parsed.hook else KINDS
    found = {kind: installed(kind) for kind in kinds}
    having = [kind for kind in kinds if parsed.name in found[kind]]
    if not having:
        names = [name for kind in kinds for name in found[kind]]
        hint = did_you_mean(parsed.name, names) or "; `headwise strategies` lists what is installed"
        raise StrategyError(f"unknown {parsed.hook or 'strategy'} {parsed.name!r}{hint}")
    return [(kind, only(kind, parsed.name, found[kind], parsed.owner)) for kind in having]


def check_kind(kind: str) -> None:
    """Raise StrategyError for a kind that is not a hook and not one of OTHER_KINDS."""
    if kind not in KINDS:
        raise StrategyError(
            f"unknown hook {kind!r}{did_you_mean(kind, KINDS)}; hooks are {', '.join(HOOKS)};"
            f" {', '.join(OTHER_KINDS)} can be listed too"
        )


def _default(option: Option) -> str:
    if option.required:
        return "REQUIRED"
    return "none" if option.default is None else show(option.default)
