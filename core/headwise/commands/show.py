"""``headwise show``: everything about one plugin; the only listing that imports it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Annotated

import attrs
import typer

from headwise.hookspecs import HOOKS
from headwise.listing import locate
from headwise.printing import say
from headwise.recipe import OWN, RECIPE_HOOKS, Preset, asked_by, with_asked
from headwise.registry import Registry, Strategy, load, owner_of, resolve
from headwise.source import Option, describe_entry
from headwise.text import show as as_typed


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name, or KIND=NAME, or OWNER/NAME where two packages ship it.")
    ],
) -> None:
    """Show one strategy or recipe in full.

    Imports it; prints who ships it, its documentation, and its options with defaults.
    """
    blocks = [_block(kind, entry) for kind, entry in locate(name)]
    say("\n\n".join(blocks))


def _block(kind: str, entry: EntryPoint) -> str:
    plugin = load(entry)
    contract = [f"contract     headwise.hookspecs.Specs.{kind}"] if kind in HOOKS else []
    head = [f"{kind}={entry.name}", f"from         {owner_of(entry)}", f"entry point  {entry.value}", *contract]
    parts = ["\n".join(head), _documentation(plugin, entry), *_details(kind, plugin, entry)]
    return "\n\n".join(part for part in parts if part)


def _documentation(plugin: object, entry: EntryPoint) -> str:
    """The docstring; of what has none, the string under its assignment, else what its module says."""
    if isinstance(plugin, type) or inspect.isfunction(plugin):
        return inspect.getdoc(plugin) or ""
    summary = describe_entry(entry).summary or ""
    of_module = inspect.getdoc(sys.modules[entry.module]) or ""
    return of_module if isinstance(plugin, Preset) and of_module.startswith(summary) else summary


def _details(kind: str, plugin: object, entry: EntryPoint) -> list[str]:
    if isinstance(plugin, Preset):
        return _recipe(plugin)
    if isinstance(plugin, tuple):
        return _recipe(Preset(*plugin))
    options = _options(plugin, entry)
    width = max((len(option.name) for option in options), default=0)
    block = ["options", *(_line(option, width) for option in options)] if options else ["it has no options"]
    return ["\n".join(block), *_asked(kind, plugin, entry)]


def _recipe(preset: Preset) -> list[str]:
    """The strategies that a recipe names, those that they ask for, and its settings where it has any."""
    named: dict[str, Strategy] = {}
    for text in preset.strategies:
        strategy = resolve(text, RECIPE_HOOKS, prefer=OWN)
        named[strategy.hook] = strategy
    whole, settings = with_asked(named, preset.settings)
    asked = [f"{hook}={strategy.text}" for hook, strategy in whole.items() if hook not in named]
    return _blocks(("strategies", preset.strategies), ("asked by default", asked), ("settings", _set(settings)))


def _asked(kind: str, plugin: object, entry: EntryPoint) -> list[str]:
    """What a strategy with its usual options asks for where the user says nothing else."""
    if kind not in RECIPE_HOOKS or not hasattr(plugin, "asks"):
        return []
    owner = f"{entry.dist.name}/" if entry.dist else ""
    asks = asked_by(Registry.installed(kind).build(f"{owner}{entry.name}"))
    return _blocks(("asked by default", [*asks.strategies, *_set(asks.settings)]))


def _set(settings: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _blocks(*blocks: tuple[str, Sequence[str]]) -> list[str]:
    """Titles with their lines; none for what has no lines."""
    return ["\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in blocks if lines]


def _options(plugin: object, entry: EntryPoint) -> list[Option]:
    """Options as the signature has them, with the help that stands in the fields' metadata or under them."""
    if not callable(plugin):
        return []
    try:
        parameters = inspect.signature(plugin).parameters.values()
    except (TypeError, ValueError):
        return []
    made_from = getattr(plugin, "func", plugin)
    fields = attrs.fields(made_from) if isinstance(made_from, type) and attrs.has(made_from) else ()
    help = {option.name: option.help for option in describe_entry(entry).options or ()}
    help |= {field.alias or field.name: field.metadata["help"] for field in fields if "help" in field.metadata}
    return [
        Option(
            parameter.name,
            parameter.default,
            required=parameter.default is parameter.empty,
            help=help.get(parameter.name),
        )
        for parameter in parameters
    ]


def _line(option: Option, width: int) -> str:
    if option.required:
        default = "(required)"
    elif option.default is attrs.NOTHING:
        default = "(computed)"
    else:
        default = f"= {'none' if option.default is None else as_typed(option.default)}"
    return f"  {option.name:{width}} {default}  {option.help or ''}".rstrip()
