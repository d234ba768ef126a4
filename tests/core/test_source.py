"""Reading plugins without importing them: what is read must be what an import would find."""

from __future__ import annotations

import inspect
import sys

import attrs
import pytest

from headwise.hookspecs import HOOKS
from headwise.registry import installed, load
from headwise.source import Description, Option, PresetText, describe, find

PLUGIN = '''"""The module."""
import functools
from typing import ClassVar
import attrs
from elsewhere import HALF, Stranger, imported

raise RuntimeError("a listing imports nothing")

WIDTH = 7

@attrs.frozen(eq=False)
class Full:
    """What it does.

    More of it.
    """

    table: ClassVar[dict] = {}
    width: int = attrs.field(default=WIDTH, converter=int)
    """How wide."""
    shade: float = attrs.field(default=-0.5, metadata={"help": "How dark."})
    form: str = "l2"
    needed: int = attrs.field(converter=int)
    many: tuple = attrs.field(factory=tuple)
    share: float = attrs.field()
    _inner: int = 1
    _renamed: int = attrs.field(default=2, alias="outer")
    cache: dict = attrs.field(init=False, factory=dict)
    untyped = attrs.field(default=64 * 9)
    imported: float = attrs.field(default=HALF)
    constant = 3

    @share.default
    def _share(self):
        return 0.5

@attrs.define
class Derived(Full):
    width: int = 8
    extra: bool = True

class Plain:
    def __init__(self, k=3, *, deep=None):
        """No options of a class like this come from its body."""

class Silent:
    noise = 1

class Foreign(Stranger):
    """Has a base elsewhere."""

def function(k, size=2, *, form="x"):
    """A function."""

wide = functools.partial(Full, width=9)
"""Full, but wide."""

unsaid = functools.partial(function, 1, size=5)

RECIPE = ("a", "b")
"""Two words."""

alias = Full
'''


@pytest.fixture
def described(install):
    install("zebra", "1.2", {}, zebra_mod=PLUGIN)
    return lambda attribute: describe("zebra_mod", attribute)


FULL = (
    Option("width", 7, help="How wide."),
    Option("shade", -0.5, help="How dark."),
    Option("form", "l2"),
    Option("needed", required=True),
    Option("many", "?"),
    Option("share", "?"),
    Option("inner", 1),
    Option("outer", 2),
    Option("untyped", "64 * 9"),
    Option("imported", "?"),
)


@pytest.mark.parametrize(
    ("attribute", "summary", "options"),
    [
        ("Full", "What it does.", FULL),
        ("Derived", "The module.", (*FULL[1:], Option("width", 8), Option("extra", True))),
        ("Plain", "The module.", (Option("k", 3), Option("deep", None))),
        ("Silent", "The module.", ()),
        ("Foreign", "Has a base elsewhere.", None),
        ("function", "A function.", (Option("k", required=True), Option("size", 2), Option("form", "x"))),
        ("wide", "Full, but wide.", (Option("width", 9, help="How wide."), *FULL[1:])),
        ("unsaid", "A function.", (Option("size", 5), Option("form", "x"))),
        ("RECIPE", "Two words.", ()),
        ("alias", "The module.", None),
        ("imported", None, None),
        ("missing", None, None),
    ],
)
def test_summary_and_options_are_read_from_source(described, attribute, summary, options):
    found = described(attribute)
    assert (found.summary, found.options, found.why) == (summary, options, "")
    assert "zebra_mod" not in sys.modules


@pytest.mark.parametrize(
    ("attribute", "documentation", "asks"),
    [
        ("Full", "What it does.\n\nMore of it.", PresetText()),
        ("Foreign", "Has a base elsewhere.", None),
        ("function", "A function.", PresetText()),
        ("wide", "Full, but wide.", None),
        ("Plain", "", PresetText()),
    ],
)
def test_documentation_and_what_is_asked_for_are_read_from_source(described, attribute, documentation, asks):
    assert (described(attribute).documentation, described(attribute).asks) == (documentation, asks)


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        ('asks = Preset("raters", min_mass=0.5)', PresetText(("raters",), {"min_mass": 0.5})),
        ('@property\n    def asks(self):\n        return Preset("raters")', PresetText(("raters",))),
        (
            '@property\n    def asks(self):\n        """Who."""\n        return Preset(self.who)',
            PresetText(told="Who."),
        ),
        ("@property\n    def asks(self):\n        return self.x", PresetText(told="its options decide")),
        (
            '@property\n    def asks(self):\n        if self.x:\n            return 1\n        return Preset("raters")',
            PresetText(told="its options decide"),
        ),
        ("asks = made()", None),
    ],
)
def test_a_preset_is_read_only_where_it_is_written_out(install, body, asks):
    install("zebra", "1.2", {}, zebra_mod=f"class Herd:\n    {body}\n")
    assert describe("zebra_mod", "Herd").asks == asks


@pytest.mark.parametrize("source", ["def broken(:", "\0"])
def test_source_that_does_not_parse_is_described_as_unknown(install, source):
    install("zebra", "1.2", {}, zebra_mod=source)
    assert Description(why="the source of zebra_mod cannot be read") == describe("zebra_mod", "Full")


@pytest.mark.parametrize("module", ["no_such_package_here", "no_such_package_here.module", "headwise.no_such_module"])
def test_module_that_is_not_there_is_described_as_unknown(module):
    assert Description(why=f"there is no source of {module}") == describe(module, "Full")


def test_module_without_source_is_described_as_unknown():
    assert Description(why="there is no source of sys") == describe("sys", "path")


def test_modules_are_found_in_packages_that_are_not_imported(tmp_path, install, monkeypatch):
    package = tmp_path / "packages" / "zebra_package" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "__init__.py").write_text("")
    (package / "leaf.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert package / "leaf.py" == find("zebra_package.inner.leaf")
    assert package / "__init__.py" == find("zebra_package.inner")
    assert package.parent / "__init__.py" == find("zebra_package")
    assert "zebra_package" not in sys.modules


SHIPPED = [
    pytest.param(entry, id=f"{hook}={name}")
    for hook in HOOKS
    for name, entries in installed(hook).items()
    for entry in entries
    if entry.dist.name == "headwise"
]


@pytest.mark.parametrize("entry", SHIPPED)
def test_what_is_read_of_shipped_strategies_is_what_an_import_finds(entry):
    factory = load(entry)
    found = describe(entry.module, entry.attr)
    assert found.summary
    expected = {
        name: "?" if parameter.default is attrs.NOTHING else parameter.default
        for name, parameter in inspect.signature(factory).parameters.items()
    }
    assert found.options is not None
    assert list(expected.items()) == [
        (option.name, inspect.Parameter.empty if option.required else option.default) for option in found.options
    ]
