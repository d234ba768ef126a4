"""A line on a terminal while something takes its time, such as importing torch; it goes away when that is done.

Nothing is written where standard error is no terminal, or under ``--quiet``. ``--verbose`` writes lines that stay.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType

from headwise.printing import printable
from headwise.verbosity import is_quiet, is_verbose

SLOW = ("torch", "transformers", "matplotlib", "scipy.stats", "ray")
"""Modules whose import takes so long that one wonders."""

_shown: list[str] = []
"""What is being waited for, the innermost last."""


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show ``what`` while the block runs."""
    begun = time.perf_counter()
    _shown.append(what)
    _draw("")
    try:
        yield
    finally:
        _shown.pop()
        _draw(what)
        if is_verbose() and sys.stderr is not None:
            sys.stderr.write(f"headwise: {printable(what)}: {time.perf_counter() - begun:.1f} s\n")


def _draw(before: str) -> None:
    """Write the innermost line over the one that stood there ``before``."""
    if is_quiet() or is_verbose() or sys.stderr is None or not sys.stderr.isatty():
        return
    room = shutil.get_terminal_size().columns - 1
    line = f"headwise: {printable(_shown[-1])} ..."[:room] if _shown else ""
    sys.stderr.write(f"\r{' ' * min(len(before) + 14, room)}\r{line}" if before else f"\r{line}")
    sys.stderr.flush()


class _Told(SourceFileLoader):
    """Loads a module from its source, as usual, and says so meanwhile."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's source below a line that names it."""
        with waiting(f"loading {module.__name__}"):
            super().exec_module(module)


class _Finder:
    """Finds slow modules where Python finds them, and has them loaded by ``_Told``."""

    def __init__(self) -> None:
        self._asked: set[str] = set()

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        """The module's usual specification; None for every other module, which Python then finds itself."""
        if name not in SLOW or name in self._asked:
            return None
        self._asked.add(name)  # the finders behind this one are asked in its place
        try:
            spec = find_spec(name)
        finally:
            self._asked.discard(name)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Told(spec.loader.name, spec.loader.path)
        return spec


@contextmanager
def telling_of_imports() -> Iterator[None]:
    """Inside, the import of a slow module is shown while it lasts."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
