"""The page of the Python names: everything in ``headwise.__all__``, with its docstring, and the conformance kit."""

from __future__ import annotations

import headwise
from headwise import errors, testing

_GROUPS = {
    "Attach": (
        "attach",
        "cache",
        "Recipe",
        "Preset",
        "Attachment",
        "KeptRow",
        "KeptToken",
        "CacheReading",
        "EvictingCache",
    ),
    "Plan without a model": ("shape", "Geometry", "Budget", "Pipeline"),
    "What strategies are given and return": (
        "Layout",
        "Queries",
        "PruningPlan",
        "Stage",
        "Merged",
        "Selection",
        "CacheEvidence",
        "WindowPlan",
        "ScorePlan",
        "HeadStatistics",
        "HeadProfile",
        "HeadLabels",
    ),
    "Find strategies": ("Registry", "resolve", "hookimpl", "HOOKS"),
}

_ABOUT = """# Python

The public names of `headwise`, made from their docstrings. `import headwise` imports neither torch nor transformers;
what needs them is loaded when it is first used. Contracts of hooks stand with the [strategies](strategies/index.md),
errors under [errors and exit codes](errors.md). The letters of shapes: b batch rows, h heads, q query tokens, v
visual tokens, l decoder layers.
"""


def pages() -> dict[str, str]:
    """Path -> text."""
    grouped = {name for names in _GROUPS.values() for name in names}
    told = {name for name in headwise.__all__ if hasattr(errors, name)}
    others = [name for name in headwise.__all__ if name not in grouped | told]
    groups = {**_GROUPS, **({"Other names": tuple(others)} if others else {})}
    parts = [_ABOUT, *(_section(title, "headwise", names) for title, names in groups.items())]
    return {"reference/python.md": "\n".join([*parts, _section("Testing", "headwise.testing", testing.__all__)])}


def _section(title: str, module: str, names: tuple[str, ...] | list[str]) -> str:
    return "\n\n".join([f"## {title}", *(f"::: {module}.{name}" for name in names)]) + "\n"
