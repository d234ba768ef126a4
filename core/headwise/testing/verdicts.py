"""The laws of a hook one after the other, for people: each with its verdict and the smallest input that breaks it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

import headwise
from headwise.registry import Registry
from headwise.testing.kit import FIRST, ConformanceError, call_of, failure_of, laws, problem_with, words_of
from headwise.testing.kits import kinds, kit_of
from headwise.testing.samples import Sample
from headwise.testing.subject import Subject


@attrs.frozen
class Verdict:
    """One law and what came of it.

    ``demand``: the first line of its docstring. ``problem``: what is wrong, None where nothing is. ``place``: the line
    of the strategy that raised, empty where its answer is wrong. ``again``: Python that runs the failing case again.
    """

    law: str
    demand: str
    problem: str | None = None
    place: str = ""
    again: str = ""


def verdicts(hook: str, text: str, data: str | None = None) -> Iterator[Verdict]:
    """Hold a strategy to the laws of its hook, those on the form of its answer first; stops after one of them breaks.

    Raises StrategyError for a strategy that cannot be built, ValueError for a hook without laws.
    """
    if hook in kinds():
        yield from _other_verdicts(hook, text, data)
        return
    subject = Subject.of(Registry.installed(hook), text)
    known = laws(hook)
    for law in known:
        demand = (known[law].__doc__ or "").strip().partition("\n")[0]
        error = failure_of(subject, text, law)
        if error is None:
            yield Verdict(law, demand)
            continue
        yield _broken(subject, text, law, demand, error)
        if law in FIRST[hook]:
            return


def _other_verdicts(kind: str, name: str, data: str | None) -> Iterator[Verdict]:
    """The same for a plugin that is no strategy, by the kit of its kind."""
    kit = kit_of(kind)
    kit.check_given(name, data)
    for law, demanded in kit.laws().items():
        demand, problem = (demanded.__doc__ or "").strip().partition("\n")[0], kit.problem(name, law, data)
        if problem is None:
            yield Verdict(law, demand)
            continue
        place = _place(problem, kit=[inspect.getfile(type(kit)), inspect.getfile(demanded)])
        yield Verdict(law, demand, words_of(problem), place, call_of(kind, name, law, data))
        if law in kit.first:
            return


def _broken(subject: Subject, text: str, law: str, demand: str, error: ConformanceError) -> Verdict:
    sample, problem = _smallest(subject, law, error.sample or LEAST, error.problem)
    again = call_of(subject.strategy.hook, text, law, sample)
    return Verdict(law, demand, words_of(problem), _place(problem), again)


LEAST = Sample(seed=0, rows=2, heads=8, visual=9)
"""The smallest of the samples that are generated."""


def _smallest(subject: Subject, law: str, sample: Sample, problem: Exception) -> tuple[Sample, Exception]:
    """A failing sample with each number made as small as samples get, as long as the law stays broken."""
    for name in ("rows", "heads", "visual", "kind", "seed"):
        simpler = attrs.evolve(sample, **{name: getattr(LEAST, name)})
        found = problem_with(subject, law, simpler)
        if found is not None:
            sample, problem = simpler, found
    return sample, problem


def _place(problem: BaseException, *, kit: Sequence[str] = ()) -> str:
    """The last line of the traceback that is neither headwise's own nor in a file of ``kit``; empty without one."""
    ours = (str(Path(headwise.__file__).parent), *kit)
    raised = problem
    while raised.__cause__ is not None:  # core tells of what a strategy raises in a sentence of its own
        raised = raised.__cause__
    frames = [frame for frame in traceback.extract_tb(raised.__traceback__) if not frame.filename.startswith(ours)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
