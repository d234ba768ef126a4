"""Docstrings of core and adapters keep up with the code: every public function says which errors it raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwise.hookspecs import HOOKS
from headwise.registry import installed
from headwise.source import find

SOURCE = re.compile(
    r"arXiv \d{4}\.\d{4,5}|\b(19|20)\d\d\b|LLaVA-FinePruner-Head|FinePruner's|FastV|SparseVLM|head-aware cache study"
    r"|[Hh]eadwise's own|[Cc]ontrol|full cache|unmodified model"
)
"""A paper, a repository or a study; or that a strategy is headwise's own, or a control that needs none."""

SHIPPED = [
    pytest.param(entry.module, id=f"{hook}={name}")
    for hook in HOOKS
    for name, entries in installed(hook).items()
    for entry in entries
    if entry.dist is not None and entry.dist.name == "headwise"
]

HOUSE = Path(__file__).parents[2]
MODULES = sorted(path for root in ("core", "adapters") for path in (HOUSE / root).rglob("*.py"))
SPECIAL = ("__init__", "__attrs_post_init__")
"""Called by whoever builds an object, so the class may say what they raise."""


def raised(node: ast.AST, caught: frozenset[str] = frozenset()) -> Iterator[str]:
    """The error classes that a function's own body raises, without those that it catches itself."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            call = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            name = ast.unparse(call).rpartition(".")[2]
            if name[0].isupper() and name not in caught:
                yield name
        if isinstance(child, ast.Try):
            types = [handler.type for handler in child.handlers if handler.type is not None]
            names = {name.id for kind in types for name in ast.walk(kind) if isinstance(name, ast.Name)}
            for part in child.body:
                yield from raised(ast.Module([part], []), caught | names)
            for part in (*child.handlers, *child.orelse, *child.finalbody):
                yield from raised(part, caught)
        else:
            yield from raised(child, caught)


def unsaid(tree: ast.Module | ast.ClassDef, path: str) -> list[str]:
    """Public functions and methods, in words, whose docstring leaves out an error that they raise."""
    found = []
    for item in tree.body:
        if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
            found += unsaid(item, f"{path}:{item.name}")
        if isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name in SPECIAL):
            said = ast.get_docstring(item) or ""
            if item.name in SPECIAL and isinstance(tree, ast.ClassDef):
                said += ast.get_docstring(tree) or ""
            found += [f"{path}:{item.name} does not say {name}" for name in raised(item) if name not in said]
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n  '''Raises StrategyError.'''\n  raise StrategyError('no')", []),
        ("def f():\n  '''Does it.'''\n  raise errors.StrategyError('no')", ["m:f does not say StrategyError"]),
        ("def f():\n  '''Does it.'''\n  raise", []),
        ("def _f():\n  raise ValueError", []),
        ("def f():\n  try:\n    raise ValueError\n  except (KeyError, ValueError) as e:\n    raise", []),
        ("def f():\n  try: pass\n  except KeyError:\n    raise ValueError", ["m:f does not say ValueError"]),
        ("class A:\n  'Raises ValueError.'\n  def __init__(self): raise ValueError", []),
        ("class A:\n  'Raises ValueError.'\n  def f(self): raise ValueError", ["m:A:f does not say ValueError"]),
    ],
)
def test_what_is_left_out_is_found(source, expected):
    assert unsaid(ast.parse(source), "m") == expected


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_public_functions_name_the_errors_they_raise(path):
    assert unsaid(ast.parse(path.read_text(encoding="utf-8")), path.stem) == []


@pytest.mark.parametrize("module", SHIPPED)
def test_every_strategy_says_where_it_comes_from(module):
    tree = ast.parse(find(module).read_text(encoding="utf-8"))
    said = [ast.get_docstring(item) or "" for item in (tree, *tree.body) if isinstance(item, ast.Module | ast.ClassDef)]
    assert SOURCE.search("\n".join(said)), f"{module} names no source"
