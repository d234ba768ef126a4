"""A page for every strategy and recipe, made from its file, and one for every kind with the contract of its hook."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

from headwise.hookspecs import HOOKS, Specs
from headwise.listing import Row, rows
from headwise.recipe import OWN, RECIPE_HOOKS, Preset, asked_by, with_asked
from headwise.registry import Registry, Strategy, load, resolve
from headwise.source import Option, find
from headwise.text import show
from headwise_site import measured
from headwise_site.text import cell, indented, prose, table

ROOT = Path(__file__).parents[2]
FOLDER = "reference/strategies"

TITLES = {
    "query_selection": "Query selection",
    "head_scoring": "Head scoring",
    "head_count": "Head count",
    "token_pruning": "Token pruning",
    "kv_eviction": "KV eviction",
    "head_classification": "Head classification",
    "recipe": "Recipes",
    "observers": "Observers",
}
_ABOUT = {
    "recipe": "A recipe is a name for strategies and settings that belong together: `--recipe NAME`, or"
    ' `headwise.Recipe.of(name="NAME", tokens=48)`. Strategies and settings that stand beside it override its parts.'
    " `random` and `uniform` (before the language model), `random-layer-2` and `uniform-layer-2` are controls.",
    "observers": "Observers see every decision of a run and change none. In Python they are given to `headwise.attach`:"
    " `observers=[...]`.",
    "token_pruning": "A method named alone asks what its paper asks (`sparsevlm` its raters); what you name overrides"
    " it. `random`, `uniform` and `pooling` are controls.",
    "head_scoring": "`random` is a control: what is not better than random heads, does not choose heads well.",
    "kv_eviction": "Strategies by position cost nothing more while the model runs; those by score look at keys, values"
    " or attention: [KV plans](../../../explanation/kv-plans.md). `permuted` and `random` are controls.",
}

_INDEX = """# Strategies

All strategies that headwise ships, by the hook that they answer. Every page is made from the strategy's own file when
the site is built: what it does and the paper it is from, its options, what was measured of it, and its source.
`headwise strategies` lists the same on a terminal, with those of other packages, and `headwise show NAME` says one in
full.

`--strategy` takes `NAME[:option=value,...]`, or `hook=NAME` where a name exists for several hooks
(`head_scoring=random`, `token_pruning=none`). A strategy within a strategy stands in brackets:
`adakv:of=[snapkv:budget=256],floor=0.3`.
"""


@cache
def shipped() -> dict[str, list[Row]]:
    """Kind -> what headwise itself ships of it, in alphabetical order."""
    return {kind: [row for row in rows(kind) if row.distribution == "headwise"] for kind in TITLES}


def navigation() -> list[object]:
    """The entries of the navigation: an overview, then the kinds with their pages."""
    return [f"{FOLDER}/index.md", *({TITLES[kind]: _entries(kind, listed)} for kind, listed in shipped().items())]


def _entries(kind: str, listed: list[Row]) -> list[object]:
    return [f"{FOLDER}/{kind}/index.md", *({row.name: f"{FOLDER}/{kind}/{row.name}.md"} for row in listed)]


def pages() -> dict[str, str]:
    """Path -> text."""
    made = {f"{FOLDER}/index.md": _overview()}
    for kind, listed in shipped().items():
        made[f"{FOLDER}/{kind}/index.md"] = _kind(kind, listed)
        made |= {f"{FOLDER}/{kind}/{row.name}.md": _page(row) for row in listed}
    return made


def _overview() -> str:
    lines = [
        f"## {TITLES[kind]}\n\n[{kind}]({kind}/index.md): "
        + ", ".join(f"[{row.name}]({kind}/{row.name}.md)" for row in listed)
        for kind, listed in shipped().items()
    ]
    return "\n".join([_INDEX, "\n\n".join(lines)])


def _kind(kind: str, listed: list[Row]) -> str:
    names = [[f"[{row.name}]({row.name}.md)", cell(row.description.summary or "")] for row in listed]
    return f"# {TITLES[kind]}\n\n{_contract(kind)}\n\n{table(['name', 'what it does'], names)}"


def _contract(kind: str) -> str:
    about = _ABOUT.get(kind, "")
    if kind not in HOOKS:
        return about
    spec = getattr(Specs, kind)
    arguments = ", ".join(f"`{name}`" for name in inspect.signature(spec).parameters if name != "self")
    laws = f"[Laws](../../laws.md#{kind}) that every strategy of this kind is held to."
    return f"Hook `{kind}`, of {arguments}.\n\n{prose(inspect.getdoc(spec) or '')}\n\n{about}\n\n{laws}"


def _page(row: Row) -> str:
    module, own = documentation(row)
    parts = [
        f"---\ntitle: {row.name}\n---\n\n# {row.name}",
        f"{TITLES[row.hook]} · `{_typed(row)}`",
        prose(own or module),
        prose(module) if own else "",
        _options(row),
        _asked(row),
        _measured(row),
        _source(row),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _typed(row: Row) -> str:
    """How it is named on the command line, shortest form."""
    if row.hook == "recipe":
        return f"--recipe {row.name}"
    alone = sum(row.name == other.name for kind in HOOKS for other in shipped()[kind]) == 1
    return f"--strategy {row.name if alone else f'{row.hook}={row.name}'}" if row.hook in HOOKS else row.name


def documentation(row: Row) -> tuple[str, str]:
    """What the module says, and what the class, function or assignment says."""
    path = find(row.entry.module)
    tree = ast.parse(path.read_text(encoding="utf-8")) if path else ast.Module([], [])
    made = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    own = next((ast.get_docstring(node) for node in made if node.name == row.entry.attr), None)
    return ast.get_docstring(tree) or "", own or (row.description.summary or "" if row.hook != "recipe" else "")


def _options(row: Row) -> str:
    options = row.description.options or ()
    if row.hook == "recipe" or not options:
        return "" if row.hook == "recipe" else "It has no options."
    helped = any(option.help for option in options)
    head = ["option", "default", *(["meaning"] if helped else [])]
    lines = [[f"`{one.name}`", _default(one), *([cell(one.help or "")] if helped else [])] for one in options]
    return f"## Options\n\n{table(head, lines)}"


def _default(option: Option) -> str:
    if option.required:
        return "required"
    if option.default == "?":
        return "computed from the others"
    return f"`{'none' if option.default is None else show(option.default)}`"


def _asked(row: Row) -> str:
    """The strategies and settings that a recipe names, and those that it or a strategy asks for."""
    if row.hook == "recipe":
        return _recipe(load(row.entry))
    if row.hook not in RECIPE_HOOKS or any(option.required for option in row.description.options or ()):
        return ""
    strategy = Registry.installed(row.hook).build(f"headwise/{row.name}")
    if not hasattr(strategy.plugin, "asks"):
        return ""
    asks = asked_by(strategy)
    return _listed("Asks for, unless you name others", [*asks.strategies, *_set(asks.settings)])


def _recipe(preset: Preset) -> str:
    named: dict[str, Strategy] = {}
    for text in preset.strategies:
        strategy = resolve(text, RECIPE_HOOKS, prefer=OWN)
        named[strategy.hook] = strategy
    whole, settings = with_asked(named, preset.settings)
    linked = [f"[`{one.hook}={one.text}`](../{one.hook}/{one.name}.md)" for one in whole.values()]
    return "## What is in it\n\n" + "\n".join(f"* {line}" for line in [*linked, *_ticked(_set(settings))])


def _set(settings: object) -> list[str]:
    return [f"{key}={value}" for key, value in dict(settings).items()]


def _ticked(texts: list[str]) -> list[str]:
    return [f"`{text}`" for text in texts]


def _listed(title: str, texts: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"* {text}" for text in _ticked(texts)) if texts else ""


def _measured(row: Row) -> str:
    found = measured.of(row.hook, row.name)
    return "\n\n".join(["## Measured", *found]) if found else ""


def _source(row: Row) -> str:
    path = find(row.entry.module)
    if path is None:
        return ""
    code = f"```python\n{path.read_text(encoding='utf-8')}```"
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f'## Source\n\n??? abstract "{shown}"\n\n{indented(code)}'
