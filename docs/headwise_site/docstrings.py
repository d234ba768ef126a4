"""Docstrings as Markdown, for mkdocstrings: roles are code, and lines of a Python prompt are a block."""

from __future__ import annotations

import re

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):(`[^`]+`)")
_PROMPT = re.compile(r"^>>> .*\n(?:(?:>>>|\.\.\.)(?: .*)?\n?)*", re.MULTILINE)


class PlainDocstrings(Extension):
    """Rewrites every docstring once, when it is read."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """One module, class, function or attribute."""
        if obj.docstring is not None:
            told = _ROLE.sub(r"\1", obj.docstring.value)
            obj.docstring.value = _PROMPT.sub(_block, f"{told}\n").rstrip()


def _block(found: re.Match[str]) -> str:
    lines = [line[4:].removesuffix("# doctest: +SKIP").rstrip() for line in found[0].splitlines()]
    return "\n".join(["```python", *lines, "```", ""])
