"""What commands that run many trials share: options that override a file, a locked folder, plans that are run in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from headwise.hints import number_of
from headwise.verbosity import warn

if TYPE_CHECKING:
    from rich.console import Console

    from headwise.errors import HeadwiseError
    from headwise_lab.sweeps.executor import Executor
    from headwise_lab.sweeps.plan import Part, Plan
    from headwise_lab.sweeps.schema import SweepFile
    from headwise_lab.tuning.schema import SpaceFile

File = TypeVar("File", bound="SweepFile | SpaceFile")


def carry_out(
    plans: Callable[[Path], Sequence[Plan]],
    out: str,
    kind: str,
    console: Console,
    *,
    title: str | None = None,
    runs: Executor | None = None,
    retries: int = 0,
    part: Part | None = None,
) -> None:
    """Plan, run what is missing and build the report; all of it in this process where ``runs`` is None.

    ``plans`` gets the output folder once it is ours to write to. Raises HeadwiseError where that or the plans stand in
    the way, or trials failed.
    """
    from headwise_lab.commands.ending import finish
    from headwise_lab.store.locations import place
    from headwise_lab.store.output_folder import Store
    from headwise_lab.sweeps.display import Display
    from headwise_lab.sweeps.folder import locked
    from headwise_lab.sweeps.local import Local
    from headwise_lab.sweeps.plan import numbered
    from headwise_lab.sweeps.running import Order, run

    folder = place(out)
    Store.check(folder, kind)
    with locked(folder, part):
        store = Store.open(folder, kind)
        for warning in store.warnings:
            warn(warning)
        made = plans(folder)
        tell(console, *(remark for plan in made for remark in plan.remarks))
        mine, heading = numbered(made, part), title or made[0].title
        if part is not None and not mine:
            tell(
                console,
                f"part {part[0]}/{part[1]} has nothing to do: the sweep has {number_of(len(numbered(made)), 'trial')}",
            )
            return
        order = Order(title=heading, plans=made, store=store, executor=runs or Local(0), retries=retries, part=part)
        finish(store, run(order, Display(console, mine)), heading, console)


def overridden(found: File, given: dict[str, Any]) -> File:
    """A file with the command line's values in place of its own; they are checked as the file's are.

    Raises DataError that names the option where a value is not allowed.
    """
    import attrs

    from headwise.errors import DataError
    from headwise_lab.schema.wrong_values import WrongValue

    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        return attrs.evolve(found, **values)
    except WrongValue as error:
        name = error.path.partition("[")[0].removesuffix("s").replace("_", "-")
        raise DataError(f"--{name}: {error.problem}") from error


def plans_of(sweep: SweepFile, folder: Path | None, may_refuse: type[HeadwiseError] | None = None) -> Sequence[Plan]:
    """The plans of a sweep file; ``may_refuse`` as in ``Study.plans``, HeadwiseError where it is None."""
    from headwise.errors import HeadwiseError
    from headwise_lab.sweeps.study import find_study

    return find_study(sweep.study_text).plans(sweep, folder, may_refuse=may_refuse or HeadwiseError)


def tell(console: Console, *sentences: str) -> None:
    """Print sentences as they are."""
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
