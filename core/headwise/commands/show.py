"""``headwise show``: everything about one plugin; the only listing that imports it."""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import attrs
import typer

from headwise.hookspecs import HOOKS
from headwise.listing import locate
from headwise.recipe import Preset
from headwise.registry import load, owner_of
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
    typer.echo("\n\n".join(blocks))


def _block(kind: str, entry: EntryPoint) -> str:
    plugin = load(entry)
    contract = [f"contract     headwise.hookspecs.Specs.{kind}"] if kind in HOOKS else []
    head = [f"{kind}={entry.name}", f"from         {owner_of(entry)}", f"entry point  {entry.value}", *contract]
    parts = ["\n".join(head), _documentation(plugin, entry), *_details(plugin, entry)]
    return "\n\n".join(part for part in parts if part)


def _documentation(plugin: Any, entry: EntryPoint) -> str:
    """The docstring; of what has none, the string under its assignment, else what its module says."""
    if isinstance(plugin, type) or inspect.isfunction(plugin):
        return inspect.getdoc(plugin) or ""
    summary = describe_entry(entry).summary or ""
    of_module = inspect.getdoc(sys.modules[entry.module]) or ""
    return of_module if isinstance(plugin, Preset) and of_module.startswith(summary) else summary


def _details(plugin: Any, entry: EntryPoint) -> list[str]:
    if isinstance(plugin, Preset):
        return _recipe(plugin)
    if isinstance(plugin, tuple):
        return _recipe(Preset(*plugin))
    options = _options(plugin, entry)
    if not options:
        return ["it has no options"]
    width = max(len(option.name) for option in options)
    return ["\n".join(["options", *(_line(option, width) for option in options)])]


def _recipe(preset: Preset) -> list[str]:
    """The strategies that a recipe names, and its settings where it has any."""
    settings = [f"  {key}={value}" for key, value in preset.settings.items()]
    blocks = [("strategies", [f"  {text}" for text in preset.strategies]), ("settings", settings)]
    return ["\n".join([title, *lines]) for title, lines in blocks if lines]


def _options(plugin: Any, entry: EntryPoint) -> list[Option]:
    """Options as the signature has them, with the help that stands in the fields' metadata or under them."""
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
