"""The classes of errors as a table, which the page of errors and exit codes asks for."""

from __future__ import annotations

import inspect

from headwise import errors
from headwise_site.text import cell, table


def errors_table() -> str:
    """Every error that a user can meet, with what it is for."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    rows = [[f"`headwise.{kind.__name__}`", f"`{kind.__base__.__name__}`", cell(kind.__doc__ or "")] for kind in kinds]
    return table(["error", "is a", "raised for"], rows)
