"""The docstring of every public function in adapters names the errors that its own body raises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ADAPTERS = Path(__file__).parents[2] / "adapters"
NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _own(node):
    """All nodes of a function but those of functions and classes inside of it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, NESTED):
            yield child
            yield from _own(child)


def _raised(function):
    raises = [node.exc for node in _own(function) if isinstance(node, ast.Raise) and node.exc is not None]
    made = [error.func if isinstance(error, ast.Call) else error for error in raises]
    return {getattr(error, "id", getattr(error, "attr", "")) for error in made}


def _public(tree):
    """Public functions and methods, special ones included, each with the docstring of its class in front of its own."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                special = isinstance(method, ast.FunctionDef) and method.name.startswith("__")
                if isinstance(method, ast.FunctionDef) and (special or not method.name.startswith("_")):
                    of_class = ast.get_docstring(node) or "" if method.name == "__init__" else ""
                    yield method, of_class + (ast.get_docstring(method) or "")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node, ast.get_docstring(node) or ""


def _unnamed(source):
    """Names of functions and of errors that they raise and do not name."""
    return [
        (function.name, error)
        for function, told in _public(ast.parse(source))
        for error in sorted(_raised(function))
        if (error if error[:1].isupper() else "Error") not in told  # else a function that makes the error
    ]


def test_errors_are_named_in_docstrings():
    files = sorted(ADAPTERS.rglob("*.py"))
    assert len(files) > 30
    found = {path.relative_to(ADAPTERS).as_posix(): _unnamed(path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f():\n    raise ModelError('x')", [("f", "ModelError")]),
        ("def f():\n    '''Raises ModelError.'''\n    raise errors.ModelError('x') from None", []),
        ("class A:\n    '''Raises OSError.'''\n    def __init__(self):\n        raise OSError", []),
        (
            "class A:\n    '''Raises OSError.'''\n    def f(self):\n        if self:\n            raise OSError",
            [("f", "OSError")],
        ),
        (
            "def f():\n    def g():\n        raise OSError\n    try:\n        g()\n    except OSError:\n        raise",
            [],
        ),
        ("def _f():\n    raise OSError", []),
    ],
)
def test_an_error_without_a_name_is_found(source, names):
    assert _unnamed(source) == names
