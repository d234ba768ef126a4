"""``headwise show``: everything about one plugin, from its source; only what that does not say is imported for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Annotated

import attrs
import typer

from headwise.errors import StrategyError
from headwise.hookspecs import HOOKS
from headwise.listing import locate
from headwise.printing import say
from headwise.registry import distribution, installed, load, owner_of
from headwise.source import Option, PresetText, describe_entry
from headwise.text import StrategyText, written
from headwise.text import show as as_typed

OWN = "headwise"
"""Whose strategies are meant by the names that recipes have, should another distribution take one of them."""


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name, or KIND=NAME, or OWNER/NAME where two packages ship it.")
    ],
) -> None:
    """Show one strategy or recipe in full.

    Prints who ships it, its documentation, its options with defaults, and what it asks for where you choose nothing.
    All of it is read from its source; it is imported only where that does not say enough.
    """
    say("\n\n".join(_block(kind, entry) for kind, entry in locate(name)))


def _block(kind: str, entry: EntryPoint) -> str:
    told = describe_entry(entry)
    contract = [f"contract     headwise.hookspecs.Specs.{kind}"] if kind in HOOKS else []
    head = [f"{kind}={entry.name}", f"from         {owner_of(entry)}", f"entry point  {entry.value}", *contract]
    details = _details(kind, entry)
    return "\n\n".join(filter(None, ["\n".join(head), told.documentation, *details]))


def _details(kind: str, entry: EntryPoint) -> list[str]:
    """What there is to choose of a strategy, and what a recipe has chosen."""
    told = describe_entry(entry)
    if kind == "recipe":
        return _recipe(told.preset or _imported_preset(entry))
    options: Sequence[Option] = told.options or ()
    if told.options is None and kind != "adapter":  # that is a record, which nobody builds
        options = _imported_options(entry)
    width = max((len(option.name) for option in options), default=0)
    block = ["options", *(_line(option, width) for option in options)] if options else ["it has no options"]
    asks = told.asks if kind in HOOKS and told.asks else PresetText()
    return ["\n".join(block), *_blocks(("asked by default", [*asks.strategies, *_set(asks.settings), *_told(asks)]))]


def _recipe(preset: PresetText) -> list[str]:
    """The strategies that a recipe names, those that they ask for, and its settings where it has any."""
    named = {hook: text for text in preset.strategies for hook in [_place(text)[0]]}
    asked, settings, told = dict[str, str](), dict(preset.settings), list[str]()
    waiting = sorted(preset.strategies, key=lambda text: HOOKS.index(_place(text)[0]))
    for text in waiting:  # it grows: a strategy that is asked for may ask for others
        asks = _asks(text)
        new = [other for other in asks.strategies if _place(other)[0] not in {*named, *asked}]
        asked |= {_place(other)[0]: _spelled_out(other) for other in new}
        waiting += new
        settings = {**asks.settings, **settings}
        told += _told(asks)
    return _blocks(
        ("strategies", preset.strategies),
        ("asked by default", [*(f"{hook}={text}" for hook, text in asked.items()), *told]),
        ("settings", _set(settings)),
    )


def _place(text: str) -> tuple[str, EntryPoint]:
    """The hook of a strategy text and the entry point that it means: of several packages', headwise's.

    Raises StrategyError where there is none.
    """
    parsed = StrategyText.parse(text)
    for hook in [parsed.hook] if parsed.hook else HOOKS:
        found = installed(hook).get(parsed.name, ())
        meant = [entry for entry in found if entry.dist and distribution(entry.dist)[0] == (parsed.owner or OWN)]
        if found:
            return hook, (meant or found)[0]
    raise StrategyError(f"it names {text}, which is not installed; `headwise strategies` lists what is")


def _asks(text: str) -> PresetText:
    return describe_entry(_place(text)[1]).asks or PresetText()


def _told(asks: PresetText) -> list[str]:
    return [asks.told] if asks.told else []


def _spelled_out(text: str) -> str:
    """A strategy's text with every option that its source gives a default for."""
    parsed = StrategyText.parse(text)
    options = {option.name: option.default for option in describe_entry(_place(text)[1]).options or ()}
    given = {**options, **parsed.options}
    return written(parsed.name, {key: value for key, value in given.items() if value is not None})


def _imported_preset(entry: EntryPoint) -> PresetText:
    """What a recipe is made of that code makes."""
    from headwise.recipe import named_recipe

    made = named_recipe(entry.name)
    return PresetText(made.strategies, made.settings)


def _set(settings: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _blocks(*blocks: tuple[str, Sequence[str]]) -> list[str]:
    """Titles with their lines; none for what has no lines."""
    return ["\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in blocks if lines]


def _imported_options(entry: EntryPoint) -> Sequence[Option]:
    """Options as the signature has them; help, as the fields' metadata has it."""
    plugin = load(entry)
    if not callable(plugin):
        return []
    try:
        parameters = inspect.signature(plugin).parameters.values()
    except (TypeError, ValueError):
        return []
    made_from = getattr(plugin, "func", plugin)
    fields = attrs.fields(made_from) if isinstance(made_from, type) and attrs.has(made_from) else ()
    help = {field.alias or field.name: field.metadata["help"] for field in fields if "help" in field.metadata}
    return [
        Option(one.name, "?" if one.default is attrs.NOTHING else one.default, required=one.default is one.empty,
               help=help.get(one.name))
        for one in parameters
    ]  # fmt: skip


def _line(option: Option, width: int) -> str:
    if option.required:
        default = "(required)"
    elif option.default == "?":
        default = "(computed)"
    else:
        default = f"= {'none' if option.default is None else as_typed(option.default)}"
    return f"  {option.name:{width}} {default}  {option.help or ''}".rstrip()
