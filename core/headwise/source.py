"""What a plugin says about itself, read from its source text: nothing is imported, so a listing costs milliseconds.

A summary is the first line of a docstring, and options are the fields or arguments with their defaults. What cannot
be read this way is None, and the caller points to ``headwise show``.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint
from pathlib import Path

import attrs

_NO_FIELDS = ("object", "ABC", "Protocol", "Generic")  # bases without options


@attrs.frozen
class Option:
    """An option of a plugin: its default, or that it has none, and its help where the source gives one."""

    name: str
    default: object = None
    required: bool = False
    help: str | None = None


@attrs.frozen
class PresetText:
    """A ``Preset`` as it is written: strategy texts and settings, or what is said of one that code makes."""

    strategies: tuple[str, ...] = ()
    settings: Mapping[str, object] = attrs.field(factory=dict)
    told: str = ""


@attrs.frozen
class Description:
    """What a plugin's source says of it; None where it does not say, and ``why`` it says nothing at all.

    ``preset``: what a recipe is made of. ``asks``: what a strategy asks for by default; without either, it is empty.
    """

    summary: str | None = None
    options: tuple[Option, ...] | None = None
    why: str = ""
    documentation: str = ""
    preset: PresetText | None = None
    asks: PresetText | None = None

    @property
    def told(self) -> str:
        """The summary, or a sentence on why there is none."""
        return self.summary or f"no summary: {self.why or 'its source has no docstring'}"


def describe(module: str, attribute: str) -> Description:
    """Describe ``attribute`` of ``module`` from the module's source."""
    path = find(module)
    if path is None:
        return Description(why=f"there is no source of {module}")
    try:
        source = Source(ast.parse(path.read_bytes()))
        return Description(
            source.summary(attribute),
            source.options(attribute),
            documentation=source.documentation(attribute),
            preset=source.preset(attribute),
            asks=source.asks(attribute),
        )
    except (
        OSError,
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # the last two: nested too deep
        return Description(why=f"the source of {module} cannot be read")


def describe_entry(entry: EntryPoint) -> Description:
    """Describe what an entry point names; nothing is known where it is not of the form ``module:attribute``."""
    try:
        module, attribute = entry.module, entry.attr
    except AttributeError:
        return Description(why=f"its entry point is {entry.value!r}, and not of the form module:name")
    return describe(module, attribute)


def find(module: str) -> Path | None:
    """The source file of a module; only the top-level package is looked up, and no parent is imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except Exception:  # an import finder of another package may raise anything
        return None
    if spec is None:
        return None
    if rest:
        bases = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
        found = [path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py")]
    else:
        found = [Path(spec.origin)] if spec.origin else []
    return next((path for path in found if path.suffix == ".py" and path.is_file()), None)


@attrs.frozen
class Source:
    """A parsed module, asked about the names it defines."""

    tree: ast.Module

    @cached_property
    def _defined(self) -> dict[str, ast.stmt]:
        """Name -> the statement that defines it at the top of the module."""
        return {name: node for node in self.tree.body for name in _names(node)}

    def summary(self, attribute: str) -> str | None:
        """First line of what ``attribute`` is documented with, else of what it is made from, else of the module."""
        node = self._defined.get(attribute)
        if node is None:
            return None
        made_from = _preset(node)
        inherited = self.summary(made_from[0]) if made_from else _first_line(ast.get_docstring(self.tree))
        return _first_line(_documentation(node, self.tree.body)) or inherited

    def documentation(self, attribute: str) -> str:
        """All that ``attribute`` is documented with; a recipe, which has one of its own rarely, with its module."""
        node, summary = self._defined.get(attribute), self.summary(attribute) or ""
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            return ast.get_docstring(node) or ""
        of_module = ast.get_docstring(self.tree) or ""
        whole = _is_preset(getattr(node, "value", None)) and of_module.startswith(summary)
        return of_module if whole else summary

    def preset(self, attribute: str) -> PresetText | None:
        """What the recipe ``attribute`` is made of; None for what is no recipe, and for one that code makes."""
        value = getattr(self._defined.get(attribute), "value", None)
        if isinstance(value, ast.Tuple):
            return _texts(value.elts, ())
        return _texts(value.args, value.keywords) if isinstance(value, ast.Call) and _is_preset(value) else None

    def asks(self, attribute: str) -> PresetText | None:
        """What the class ``attribute`` asks for; None where the source does not say."""
        node = self._defined.get(attribute)
        if not isinstance(node, ast.ClassDef):
            return None if _preset(node) else PresetText()
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "asks":
                return _returned(item) or PresetText(told=_first_line(ast.get_docstring(item)) or "its options decide")
            if "asks" in _names(item):
                value = getattr(item, "value", None)
                return _texts(value.args, value.keywords) if isinstance(value, ast.Call) and _is_preset(value) else None
        bases = [base for base in map(_last_name, node.bases) if base not in _NO_FIELDS]
        return self._asks_of(bases[0]) if bases else PresetText()

    def _asks_of(self, base: str) -> PresetText | None:
        if base in self._defined:
            return self.asks(base)
        origin = self._imported.get(base)
        return describe(*origin).asks if origin else None

    def options(self, attribute: str) -> tuple[Option, ...] | None:
        """The options of a class, function or preset; None where they cannot be told without running code."""
        node = self._defined.get(attribute)
        preset = _preset(node)
        if preset:
            return _preset_options(self.options(preset[0]), preset[1])
        if isinstance(node, ast.ClassDef):
            return self._class_options(node)
        if isinstance(node, ast.FunctionDef):
            return self._arguments(node.args)
        value = getattr(node, "value", None)
        if _is_preset(value):  # recipes have no options
            return ()
        return () if isinstance(value, ast.Tuple | ast.List | ast.Constant) else None

    def _class_options(self, node: ast.ClassDef) -> tuple[Option, ...] | None:
        """Fields of the class and of its bases, in the order that attrs, or a transformer of ours, gives them."""
        found: dict[str, Option] = {}
        for base in map(_last_name, node.bases):
            inherited = () if base in _NO_FIELDS else self._inherited(base)
            if inherited is None:
                return None
            found |= {option.name: option for option in inherited}
        if any(map(_declares_fields, node.decorator_list)):
            own = self._fields(node.body)
        else:
            inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            own = self._arguments(inits[-1].args)[1:] if inits else ()
        return tuple(_ordered(found, {option.name: option for option in own}, node).values())

    def _inherited(self, base: str) -> tuple[Option, ...] | None:
        """The options of a base class, here or in the module that it is imported from."""
        if base in self._defined:
            return self.options(base)
        origin = self._imported.get(base)
        return describe(*origin).options if origin else None

    @cached_property
    def _imported(self) -> dict[str, tuple[str, str]]:
        """Name -> (module, its name there), of what is imported at the top from a module by its whole name."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            for alias in node.names
        }

    def _fields(self, body: Sequence[ast.stmt]) -> tuple[Option, ...]:
        fields = [(node, name) for node in body if not _is_class_variable(node) for name in _names(node, fields=True)]
        options = [self._field(name, node, _documentation(node, body)) for node, name in fields]
        computed = {ast.unparse(call) for node in body for call in getattr(node, "decorator_list", ())}
        return tuple(
            attrs.evolve(option, default="?", required=False) if f"{option.name}.default" in computed else option
            for option in options
            if option is not None
        )

    def _field(self, name: str, node: ast.stmt, help: str | None) -> Option | None:
        """One attrs field, written out with ``attrs.field(...)`` or as a plain default; None where it is no option."""
        value = getattr(node, "value", None)
        if not (isinstance(value, ast.Call) and _last_name(value.func) in ("field", "ib", "attrib")):
            return self._option(name.lstrip("_"), value, help)
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if self._value(given.get("init")) is False:
            return None
        metadata = self._value(given.get("metadata"))
        help = metadata.get("help", help) if isinstance(metadata, Mapping) else help
        alias = str(self._value(given.get("alias")) or "") or name.lstrip("_")
        default = given.get("default")
        imported = isinstance(default, ast.Name) and default.id not in self._defined
        if "factory" in given or imported:
            return Option(alias, "?", help=help)
        return self._option(alias, default, help)

    def _arguments(self, arguments: ast.arguments) -> tuple[Option, ...]:
        positional = [*arguments.posonlyargs, *arguments.args]
        missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
        defaults = [*missing, *arguments.defaults, *arguments.kw_defaults]
        named = zip([*positional, *arguments.kwonlyargs], defaults, strict=True)
        return tuple(self._option(argument.arg, default) for argument, default in named)

    def _option(self, name: str, default: ast.expr | None, help: str | None = None) -> Option:
        if default is None:
            return Option(name, required=True, help=help)
        return Option(name, self._value(default), help=help)

    def _value(self, node: ast.expr | None) -> object:
        """A literal or module constant as a value, anything else as the text it is written as."""
        if node is None:
            return None
        if isinstance(node, ast.Name) and node.id in self._defined:
            constant = getattr(self._defined[node.id], "value", None)
            return self._value(constant) if constant is not None else node.id
        try:
            return ast.literal_eval(node)
        except ValueError:
            return ast.unparse(node)


def _ordered(inherited: dict[str, Option], own: dict[str, Option], node: ast.ClassDef) -> dict[str, Option]:
    """Options of a class: inherited ones first and those declared anew last, unless a transformer says otherwise.

    The transformers that are known are those of ``headwise.options``.
    """
    calls = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
    given = {key.arg: _last_name(key.value) for call in calls for key in call.keywords}
    if given.get("field_transformer") == "in_place":
        return inherited | own
    rest = {name: option for name, option in inherited.items() if name not in own}
    return own | rest if given.get("field_transformer") == "own_first" else rest | own


def _texts(strategies: Sequence[ast.expr], settings: Sequence[ast.keyword]) -> PresetText | None:
    """The strategy texts and settings that are written out; None where one of them is computed."""
    try:
        texts = tuple(str(ast.literal_eval(text)) for text in strategies)
        return PresetText(texts, {str(one.arg): ast.literal_eval(one.value) for one in settings})
    except ValueError:
        return None


def _returned(function: ast.FunctionDef) -> PresetText | None:
    """The preset that a property always returns, where it is written out; None where it depends on something."""
    last = function.body[-1]
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    call = last.value if returns == [last] and isinstance(last, ast.Return) else None
    return _texts(call.args, call.keywords) if isinstance(call, ast.Call) and _is_preset(call) else None


def _is_preset(node: ast.expr | None) -> bool:
    """What a recipe is, or what a strategy asks for: no option."""
    return isinstance(node, ast.Call) and _last_name(node.func) == "Preset"


def _names(node: ast.stmt, fields: bool = False) -> list[str]:
    """Names a statement binds: a class, a function, an assignment; of ``fields``, assignments only."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [] if fields else [node.name]
    targets: Iterable[ast.expr] = ()
    if isinstance(node, ast.Assign) and (
        not fields or (isinstance(node.value, ast.Call) and not _is_preset(node.value))
    ):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = (node.target,)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _preset(node: ast.stmt | None) -> tuple[str, ast.Call] | None:
    """The function a ``functools.partial`` is made from, and the call that makes it."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Call) and _last_name(value.func) == "partial" and value.args:
        return _last_name(value.args[0]), value
    return None


def _preset_options(options: tuple[Option, ...] | None, call: ast.Call) -> tuple[Option, ...] | None:
    """Options that a preset leaves open: positional ones are settled, keywords are new defaults."""
    if options is None:
        return None
    bound = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    left = options[len(call.args) - 1 :]
    try:
        given = {name: ast.literal_eval(text) for name, text in bound.items()}
    except ValueError:
        return None
    return tuple(
        attrs.evolve(option, default=given[option.name], required=False) if option.name in given else option
        for option in left
    )


def _documentation(node: ast.stmt, body: Sequence[ast.stmt]) -> str | None:
    """The docstring of a class or function, or the string that stands under an assignment."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return ast.get_docstring(node)
    after = body[body.index(node) + 1 :][:1]
    if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
        text = after[0].value.value
        return " ".join(text.split()) if isinstance(text, str) else None
    return None


def _declares_fields(decorator: ast.expr) -> bool:
    name = _last_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return name in ("define", "frozen", "mutable", "dataclass")


def _is_class_variable(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and "ClassVar" in ast.unparse(node.annotation)


def _last_name(node: ast.expr) -> str:
    """``field`` of ``attrs.field``; of ``Base[T]``, ``Base``."""
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    return ast.unparse(node).rpartition(".")[2]


def _first_line(text: str | None) -> str | None:
    return text.strip().splitlines()[0].strip() if text and text.strip() else None
