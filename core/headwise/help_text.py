"""Help of commands: every line fits the terminal, lists hang, and no word is broken."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup

from headwise.printing import hanging

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

WIDEST = 80
"""Columns of a page on a terminal that is wider."""
FIRST, SECOND = 30, 40
"""The most columns of a list's first column, and the fewest of its second: with less, it stands below the first."""


class Command(TyperCommand):
    """A command whose help is set here."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Usage, what the command does, its arguments and options."""
        formatter.write(_page(self, ctx, ()))


class Group(TyperGroup):
    """The command that the others belong to."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Usage, what the program does, its options, and every command with its summary."""
        commands = [(name, _paragraphs(one.help)[0]) for name, one in self.commands.items() if not one.hidden]
        formatter.write(_page(self, ctx, commands))


def _page(command: TyperCommand | TyperGroup, ctx: Context, commands: Sequence[tuple[str, str]]) -> str:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    usage = " ".join(["Usage:", ctx.command_path, *command.collect_usage_pieces(ctx)])
    told = [hanging(f"  {text}", width, indent=2) for text in _paragraphs(command.help) if text]
    records = [(one.param_type_name, one.get_help_record(ctx)) for one in command.get_params(ctx)]
    lists = [
        _list(title, [record for kind, record in records if kind == wanted and record], width)
        for title, wanted in (("Arguments", "argument"), ("Options", "option"))
    ]
    return "\n\n".join(
        filter(None, [hanging(usage, width, indent=7), *told, *lists, _list("Commands", commands, width)])
    )


def _paragraphs(text: str | None) -> list[str]:
    """The paragraphs of a docstring, each in one line; one empty paragraph where there is none."""
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]


def _list(title: str, rows: Iterable[tuple[str, str]], width: int) -> str:
    """A titled list in two columns; empty without rows."""
    listed = list(rows)
    if not listed:
        return ""
    column = min(max(len(name) for name, _ in listed), FIRST) + 4
    if width - column < SECOND:
        column = 6
    return "\n".join([f"{title}:", *(_row(name, text, column, width) for name, text in listed)])


def _row(name: str, text: str, column: int, width: int) -> str:
    """One entry; a name that leaves no room beside it has its text below it."""
    text = " ".join(text.split())
    if len(name) + 4 <= column:
        return hanging(f"  {name:{column - 4}}  {text}".rstrip(), width, indent=column)
    return "\n".join(filter(None, [f"  {name}", text and hanging(" " * column + text, width, indent=column)]))
