"""``headwise status``: how many trials of a sweep are done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.hints import number_of
from headwise.output import answer
from headwise.verbosity import warn
from headwise_lab.commands.options import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from headwise_lab.sweeps.status import Status


def status(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Output folder or URL of `headwise sweep`.")],
    as_json: AsJson = False,
) -> None:
    """Show the progress of a sweep: done, running, failed, time left, best so far.

    Reads the plan and the records, while the sweep runs or after it ended, and changes nothing.
    """
    from headwise_lab.store.locations import place
    from headwise_lab.sweeps.status import look
    from headwise_lab.terminal import Terminal

    found = look(place(folder))
    if as_json:
        answer(json.dumps(as_dict(found), ensure_ascii=False, indent=2))
        return
    for warning in found.warnings:
        warn(f"{warning}")
    console = Terminal(soft_wrap=True)
    console.print(sentence(found))
    console.print(table(found))
    for line in details(found):
        console.print(line)


def sentence(found: Status) -> str:
    """The sweep in one line."""
    from headwise_lab.sweeps.status import STATES

    counts = ", ".join(f"{found.count(state)} {state}" for state in STATES if found.count(state) or state == "done")
    left = "" if found.left is None else f"; about {duration(found.left)} left"
    activity = "running" if found.active else "not running"
    return f"{found.title}: {number_of(len(found.trials), 'trial')}, {counts}; {activity}{left}"


def duration(seconds: float) -> str:
    """A duration in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def table(found: Status) -> Table:
    """A table with a row for each model and benchmark."""
    from rich.table import Table
    from rich.text import Text

    from headwise_lab.sweeps.status import STATES

    shown = Table("model", "benchmark", *STATES, box=None)
    for (model, benchmark), states in found.groups().items():
        shown.add_row(*map(Text, (model, benchmark, *(str(states[state]) for state in STATES))))
    return shown


def best_text(found: Status, model: str, benchmark: str) -> str:
    """The best trial that prunes, with its headline metric."""
    from headwise_lab.sweeps.tally import headline

    best = found.best(model, benchmark)
    return "-" if best is None else f"{model}, {best[0].label}: {headline(best[1])}"


def details(found: Status) -> list[str]:
    """The best so far, what runs now, and why trials failed or cannot be run."""
    from headwise_lab.sweeps.status import FAILED, REFUSED, RUNNING

    lines = [f"best so far: {best_text(found, *group)}" for group in found.groups() if found.best(*group)]
    for trial, state in found.trials:
        record = found.records.get(trial.id)
        if state == RUNNING:
            lines.append(f"running: {trial.label}")
        elif state == FAILED and record is not None:
            lines.append(f"failed (attempt {record.attempt or 1}): {trial.label}: {record.error}")
        elif state == REFUSED:
            lines.append(f"not run: {trial.label}: {trial.refused or (record and record.refused)}")
    return lines


def as_dict(found: Status) -> dict[str, object]:
    """The status as JSON."""
    from headwise_lab.sweeps.status import STATES, figure

    best = {}
    for model, benchmark in found.groups():
        pair = found.best(model, benchmark)
        best[f"{model} {benchmark}"] = pair and {"id": pair[0].id, "label": pair[0].label, "value": figure(pair[1])}
    return {
        "title": found.title,
        "active": found.active,
        "seconds_left": found.left,
        **{state: found.count(state) for state in STATES},
        "best": best,
        "trials": [{"id": trial.id, "label": trial.label, "state": state} for trial, state in found.trials],
        "warnings": list(found.warnings),
    }
