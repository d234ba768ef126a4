"""The schema of records stands once: in the classes, which the page is made from; nobody else reads records by key."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.records import PAGE, page

import headwise_lab

LAB = Path(headwise_lab.__file__).parent
READERS = sorted(path for path in LAB.rglob("*.py") if path.relative_to(LAB).parts[0] != "store")
NAMES = ("record", "outcome", "metric", "head")
"""What variables are called that hold a record or a part of it."""


def test_the_page_says_what_the_classes_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.records"


def keys_read(source: str) -> Iterator[int]:
    """Lines that read a key, written as a text, of something called a record."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=value, slice=key) if _is_text(key) and _is_named(value):
                yield node.lineno
            case ast.Call(func=ast.Attribute(value=value, attr="get"), args=[key, *_]) if _is_text(key) and _is_named(
                value
            ):
                yield node.lineno


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_named(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.rpartition("_")[2] in NAMES


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.relative_to(LAB).as_posix())
def test_nothing_outside_the_store_reads_a_record_by_key(path):
    assert list(keys_read(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line", ['record["n"]', 'trial.record.get("seed")', 'run.record["text"]', 'one_outcome["score"]']
)
def test_reading_by_key_is_seen(line):
    assert list(keys_read(line)) == [1]


@pytest.mark.parametrize("line", ["record.n", "records[name]", 'told["n"]', "trial.record.seed"])
def test_other_reading_is_left_alone(line):
    assert list(keys_read(line)) == []
