"""What every command has without saying so: ``--quiet``, ``--verbose``, and names that a shell completes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar, get_type_hints

from typer.models import ParameterInfo

from headwise.completing import complete_names
from headwise.verbosity import Quiet, Verbose

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = {"quiet": Quiet, "verbose": Verbose}


def with_shared_options(command: Callable[P, T], *, completes: bool = True) -> Callable[P, T]:
    """The command with ``--quiet`` and ``--verbose``, of which it has not to know; an option of its own comes first.

    ``completes``: names of plugins are completed, too, where an option or argument is called as in headwise.
    """
    hints = get_type_hints(command, include_extras=True)
    if completes:
        complete_names(hints)
    signature = inspect.signature(command)
    defaults = [one.default for one in signature.parameters.values()]
    own = {*signature.parameters, *_flags([*hints.values(), *defaults])}
    added = {name: kind for name, kind in _OPTIONS.items() if not own & {name, *_flags([kind])}}

    @functools.wraps(command)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        for name in added:  # they have done their work when they were read
            named.pop(name, None)
        return command(*arguments, **named)

    before = [one.replace(annotation=hints.get(one.name, one.annotation)) for one in signature.parameters.values()]
    behind = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
              for name, kind in added.items()]  # fmt: skip
    run.__annotations__ = hints | added
    run.__dict__["__signature__"] = signature.replace(parameters=[*before, *behind])
    return run


def _flags(declared: Iterable[object]) -> list[str]:
    """The short and long forms that options are declared with, in annotations or, as typer had it first, defaults."""
    told = [extra for one in declared for extra in getattr(one, "__metadata__", (one,))]
    infos = [extra for extra in told if isinstance(extra, ParameterInfo)]
    forms = [form for info in infos for form in (info.default, *(info.param_decls or ()))]  # typer puts the first there
    return [form for form in forms if isinstance(form, str) and form.startswith("-")]
