"""The house as its imports draw it, in docs/house.md: which room is for what, and which room imports which.

``python -m tests.house`` writes what stands between the marks of that page anew; ``tests/test_house.py`` fails where
the page is not what the code says. Rooms are the packages below the four roots; what a room is for is the first line of
its docstring.
"""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import grimp

PAGE = Path(__file__).parents[1] / "docs" / "house.md"
ROOTS = ("headwise_lab", "headwise_adapters", "headwise_plugins", "headwise")
_MARKED = re.compile(r"(<!-- (\w+): written by python -m tests.house -->\n).*?(<!-- end -->)", re.DOTALL)

Arrows = dict[str, set[str]]


def graph() -> grimp.ImportGraph:
    """All imports of the four roots, those inside functions too, without those for type checkers alone."""
    return grimp.build_graph(*ROOTS, exclude_type_checking_imports=True, cache_dir=None)


def arrows(drawn: grimp.ImportGraph, parent: str) -> Arrows:
    """Room below ``parent`` -> the rooms there that any module of it imports."""
    rooms = sorted(child for child in drawn.find_children(parent) if drawn.find_children(child) or _is_package(child))
    inside = {module: room for room in rooms for module in {room, *drawn.find_descendants(room)}}
    found: Arrows = {room: set() for room in rooms}
    for module, room in inside.items():
        imported = drawn.find_modules_directly_imported_by(module) & set(inside)
        found[room] |= {inside[one] for one in imported} - {room}
    return found


def picture(drawn: grimp.ImportGraph) -> str:
    """A Mermaid graph of the roots and their rooms; an arrow that follows from two others is left out."""
    lines = ["```mermaid", "flowchart TD"]
    for root in ROOTS:
        lines.append(f"  subgraph {root}")
        lines += [f'    {_node(room)}["{_short(room)}"]' for room in arrows(drawn, root)]
        lines.append("  end")
    between = {root: _roots(drawn.find_upstream_modules(root, as_package=True)) - {root} for root in ROOTS}
    for told in (between, *(arrows(drawn, root) for root in ROOTS)):
        lines += [f"  {_node(one)} --> {_node(other)}" for one, others in _reduced(told) for other in others]
    return "\n".join([*lines, "```", ""])


def table(drawn: grimp.ImportGraph) -> str:
    """Every room, what it is for and what it imports of its own root."""
    lines = []
    for root in ROOTS:
        lines += [f"\n**{root}**: {_purpose(root)}\n", "| room | what it is for | imports |", "|---|---|---|"]
        for room, others in arrows(drawn, root).items():
            lines.append(_row(room, others, 1))
            lines += [_row(inner, wanted, 2) for inner, wanted in arrows(drawn, room).items()]
    return "\n".join([*lines, ""])


def page(text: str, drawn: grimp.ImportGraph) -> str:
    """The page with what is between its marks drawn anew."""
    made = {"picture": picture(drawn), "rooms": table(drawn)}
    return _MARKED.sub(lambda found: f"{found[1]}{made[found[2]]}{found[3]}", text)


def _roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def _reduced(told: Arrows) -> list[tuple[str, list[str]]]:
    """Room -> what it imports that it does not reach by way of another."""

    def reached(room: str) -> set[str]:
        return told[room].union(*(reached(other) for other in told[room]))

    return [(room, sorted(others - set().union(*map(reached, others)))) for room, others in sorted(told.items())]


def _row(room: str, others: set[str], depth: int) -> str:
    name = "/".join(room.split(".")[-depth:])
    return f"| `{name}` | {_purpose(room)} | {', '.join(_short(other) for other in sorted(others))} |"


def _purpose(package: str) -> str:
    return (ast.get_docstring(ast.parse(_source(package).read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _is_package(module: str) -> bool:
    return _source(module).name == "__init__.py"


def _source(module: str) -> Path:
    spec = find_spec(module)
    assert spec
    assert spec.origin
    return Path(spec.origin)


def _short(room: str) -> str:
    return room.rpartition(".")[2]


def _node(room: str) -> str:
    return room.replace(".", "_")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), graph()), encoding="utf-8")
