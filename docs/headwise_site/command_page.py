"""Every command with its help, as typer knows it, for the page of the command line."""

from __future__ import annotations

from typer.main import get_command

from headwise.cli import OWN, application
from headwise.registry import installed
from headwise_site.text import cell, indented, prose, table


def commands() -> str:
    """A section for every command."""
    return "\n".join(map(_section, sorted({**installed("command"), **OWN})))


def _section(name: str) -> str:
    command = get_command(application([name])).commands[name]
    context = command.make_context(name, [], resilient_parsing=True)
    usage = f"headwise {name} {' '.join(command.collect_usage_pieces(context))}"
    given = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    rows = [[f"`{option}`", cell(told)] for option, told in given]
    body = "\n\n".join(_paragraph(part) for part in (command.help or "").split("\n\n"))
    return f"## {name}\n\n    {usage}\n\n{body}\n\n{table(['option', 'what it does'], rows)}"


def _paragraph(text: str) -> str:
    """What typer is told not to wrap, with a \\b in front, is shown as it stands."""
    return indented(text[1:].strip("\n")) if text.startswith("\b") else prose(text)
