"""What records and outcomes hold, in docs/records.md: a table per class, made from the classes themselves.

``python -m tests.records`` writes the page anew; ``tests/test_records.py`` fails where it is not what the classes say.
What a field means is the text below it in the code.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import attrs

from headwise_lab.schema.json_object import JsonObject
from headwise_lab.store import outcome_types, record_types

PAGE = Path(__file__).parents[1] / "docs" / "records.md"

_ABOUT = """# Records and outcomes

An output folder holds `results.jsonl`, a record per line and a line per attempt at a trial, of lines with one `id` the
last; and `outcomes/<id>.parquet`, a row per question, token or passkey. This page is made from the classes in
`lab/headwise_lab/store/` by `python -m tests.records`.

Fields may be missing or null unless they are **needed**. A record may hold fields that are not listed here: they are
kept as they are, and stand in reports' CSV files. In a field marked *lenient* a value of another type counts as
missing; anywhere else such a record is refused with the name of the field.
"""


def page() -> str:
    """The whole page."""
    parts = [_ABOUT, "## Records\n", *map(_section, _classes(record_types))]
    return "\n".join([*parts, "## Outcomes\n", *map(_section, _classes(outcome_types))])


def _classes(module: ModuleType) -> list[type[JsonObject]]:
    found = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, JsonObject)]
    return [kind for kind in found if kind.__module__ == module.__name__]


def _section(kind: type[JsonObject]) -> str:
    base = kind.__mro__[1]
    beside = "" if base is JsonObject else f"\nBeside what a `{base.__name__}` holds:\n"
    rows = [_row(kind, node, meaning) for node, meaning in _fields(kind)]
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *rows]) if rows else "No fields of its own."
    return f"### {kind.__name__}\n\n{inspect.getdoc(kind)}\n{beside}\n{table}\n"


def _fields(kind: type[JsonObject]) -> list[tuple[ast.AnnAssign, str]]:
    """The fields that a class adds or narrows, and the text below each."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    names = {field.name for field in attrs.fields(kind)}
    found = []
    for node, below in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in names:
            told = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            found.append((node, " ".join(str(told).split())))
    return found


def _row(kind: type[JsonObject], node: ast.AnnAssign, meaning: str) -> str:
    field = getattr(attrs.fields(kind), ast.unparse(node.target))
    needed = "**needed** " if field.default is attrs.NOTHING else ""
    lenient = "*lenient* " if not needed and (kind.lenient or field.metadata) else ""
    told = ast.unparse(node.annotation).replace(" | None", "").replace("|", "\\|")
    return f"| `{field.name}` | `{told}` | {needed}{lenient}{meaning} |".replace("  ", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
