"""The page of sweep files and search spaces: every key, from the classes that judge them."""

from __future__ import annotations

import ast
import inspect
import json
import tomllib
from pathlib import Path

import attrs

from headwise_lab.schema.json_object import default_of
from headwise_lab.sweeps import schema as sweeps
from headwise_lab.tuning import schema as tuning
from headwise_site.text import prose, table

_ROOT = Path(__file__).parents[2]

_ABOUT = """# Sweep files and search spaces

A sweep file is TOML: `headwise sweep FILE` runs it, `headwise sweep FILE --plan` lists its trials without running
any. A search space is the TOML file that `headwise tune SPACE` takes. This page is made from the classes that read
them. A key or a value that cannot be is refused in one sentence with the file, the key and what is allowed.
"""

_SHIPPED = """## Files that ship

These are complete examples; their names stand for them: `headwise sweep ablation_a`, `headwise tune fastv_heads`.
"""


def pages() -> dict[str, str]:
    """Path -> text."""
    parts = [
        _ABOUT,
        "## A sweep file\n",
        _keys("The file itself", sweeps.SweepFile),
        _keys("`[budgets]`", sweeps.Budgets),
        _keys("`[[grids]]`", sweeps.Grid),
        _keys("`[settings]`", sweeps.Settings),
        _keys("`[text]`", sweeps.TextTable),
        "## A search space\n",
        _keys("The file", tuning.SpaceFile),
        _keys("`[choices]`", tuning.Choices),
        _keys("`[budget]`", tuning.Spending),
        _SHIPPED,
        *map(_file, sorted((_ROOT / "lab" / "headwise_lab").glob("*/files/*.toml"))),
    ]
    return {"reference/sweep-file.md": "\n".join(parts)}


def _keys(title: str, kind: type) -> str:
    rows = [[f"`{field.name}`", f"`{_typed(kind, field.name)}`", _default(field)] for field in attrs.fields(kind)]
    return f"### {title}\n\n{prose(inspect.getdoc(kind) or '')}\n\n{table(['key', 'type', 'default'], rows)}"


def _typed(kind: type, name: str) -> str:
    (tree,) = ast.parse(inspect.getsource(kind)).body
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name]
    return ast.unparse(nodes[0].annotation).replace(" | None", "").replace("|", r"\|") if nodes else "?"


def _default(field: attrs.Attribute[object]) -> str:
    """As TOML would say it; nothing for what has no value, or one that depends on other keys."""
    if getattr(field.default, "takes_self", False):
        return ""
    value = default_of(field)
    return "" if value in (None, ()) or attrs.has(type(value)) else f"`{json.dumps(value)}`"


def _file(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return f"### {path.stem}\n\n{tomllib.loads(text).get('title', '')}\n\n```toml\n{text}```\n"
