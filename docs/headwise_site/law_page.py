"""The page of laws: what the conformance kit demands of every strategy, from ``headwise.testing.laws()``."""

from __future__ import annotations

import inspect

from headwise.hookspecs import HOOKS
from headwise.testing import laws
from headwise_site.text import cell, table

_ABOUT = """# Laws of the conformance kit

Every strategy is held to the laws of its hook, on samples that hypothesis makes: in our own tests, in yours
(`headwise.testing.parametrize`) and from the shell (`headwise check NAME`). A law that a strategy breaks on purpose
is declared with its reason and has to break. [A strategy of your own](../howto/strategy.md) shows how.

This page is made from `headwise.testing.laws()`.
"""


def pages() -> dict[str, str]:
    """Path -> text."""
    return {"reference/laws.md": "\n".join([_ABOUT, *map(_section, (*HOOKS, "benchmark"))])}


def _section(hook: str) -> str:
    rows = [[f"`{name}`", cell(inspect.getdoc(law) or "")] for name, law in laws(hook).items()]
    own = "[A benchmark of your own](../howto/benchmark-of-your-own.md)."
    contract = f"What a strategy of this kind is given and returns: [{hook}](strategies/{hook}/index.md)."
    return f"## {hook}\n\n{contract if hook in HOOKS else own}\n\n{table(['law', 'what it demands'], rows)}"
