"""From strategy texts to tests: one per text and law, with failures that can be run again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from headwise.registry import Registry
from headwise.testing import head_classification, head_count, head_scoring, kv_eviction, query_selection, token_pruning
from headwise.testing.kits import kinds, kit_of
from headwise.testing.samples import Sample, samples
from headwise.testing.subject import Subject

Law = Callable[[Subject, Sample], None]

_LAWS: Mapping[str, ModuleType] = {
    "query_selection": query_selection,
    "head_scoring": head_scoring,
    "head_count": head_count,
    "token_pruning": token_pruning,
    "kv_eviction": kv_eviction,
    "head_classification": head_classification,
}

_settings = settings(
    # Enough for every kind of input, few enough that the laws of a hook take a second or two.
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    # A sample is small as it is, and its seed does not shrink to anything simpler.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class ConformanceError(AssertionError):
    """A strategy breaks a law of its hook; the message says whose it is and how to see it again.

    ``sample`` is the input of a strategy, ``problem`` what the law, or the strategy, raised on it.
    """

    def __init__(self, message: str, sample: Sample | None, problem: Exception) -> None:
        super().__init__(message)
        self.sample, self.problem = sample, problem


def laws(hook: str) -> dict[str, Callable[..., None]]:
    """Name -> law of a hook, or of another kind of plugin that has a kit; its docstring says first what it demands.

    Raises ValueError for a hook without laws.
    """
    if hook in kinds():
        return dict(kit_of(hook).laws())
    if hook not in _LAWS:
        raise ValueError(f"no laws are known for hook {hook!r}; there are some for {', '.join((*_LAWS, *kinds()))}")
    module = _LAWS[hook]
    found = inspect.getmembers(module, inspect.isfunction)
    return {name: law for name, law in found if law.__module__ == module.__name__ and not name.startswith("_")}


def parametrize(
    hook: str,
    texts: Iterable[str],
    *,
    expected_failures: Mapping[str, str] | None = None,
    data: str | None = None,
) -> pytest.MarkDecorator:
    """Decorate a test that takes ``check`` and calls it: one test per strategy text and law.

    ``expected_failures`` maps the name of a law to the reason why these strategies do not follow it. ``hook`` may be
    ``benchmark``, too; ``data`` is the folder with the files of one that prepares no questions. Raises ValueError for a
    law that the hook does not have.
    """
    return pytest.mark.parametrize("check", cases(hook, texts, expected_failures=expected_failures, data=data))


def cases(
    hook: str,
    texts: Iterable[str],
    *,
    expected_failures: Mapping[str, str] | None = None,
    data: str | None = None,
) -> list[object]:
    """The parameters behind :func:`parametrize`, for tests that join several hooks or lists of exceptions.

    Raises ValueError for an expected failure of a law that the hook does not have.
    """
    exceptions, known = dict(expected_failures or {}), laws(hook)
    if not exceptions.keys() <= known.keys():
        unknown = ", ".join(sorted(exceptions.keys() - known.keys()))
        raise ValueError(f"expected failure of {unknown}: no such law of {hook}; its laws are {', '.join(known)}")
    return [
        pytest.param(
            partial(check, hook, text, law, data),
            id=f"{hook}={text}-{law}",
            marks=[pytest.mark.xfail(reason=exceptions[law], strict=True, raises=ConformanceError)]
            if law in exceptions
            else [],
        )
        for text in texts
        for law in known
    ]


def check(hook: str, text: str, law: str, data: str | None = None) -> None:
    """Hold one strategy to one law on generated samples, or one benchmark on its questions; raises ConformanceError."""
    __tracebackhide__ = True  # pytest shows the strategy's own frames, not those of the kit
    if hook in kinds():
        _check_other(hook, text, law, data)
        return
    error = failure_of(Subject.of(Registry.installed(hook), text), text, law)
    if error is not None:
        raise error.with_traceback(None) from error.problem


def _check_other(kind: str, name: str, law: str, data: str | None) -> None:
    __tracebackhide__ = True
    kit = kit_of(kind)
    kit.check_given(name, data)
    problem = kit.problem(name, law, data)
    if problem is not None:
        told = f"{kind} {name!r} breaks the law {law!r}: {words_of(problem)}"
        raise ConformanceError(f"{told}\nagain: {call_of(kind, name, law, data)}", None, problem) from problem


def failure_of(subject: Subject, text: str, law: str) -> ConformanceError | None:
    """The first of the generated samples on which a strategy breaks a law, as an error; None where it keeps to it."""

    @_settings
    @given(samples())
    def hold(sample: Sample) -> None:
        _hold(subject, text, law, sample)

    try:
        hold()
    except ConformanceError as error:
        return error
    return None


def reproduce(hook: str, text: str, law: str, sample: Sample | str | None = None) -> None:
    """Hold one strategy to one law on one sample, or one benchmark on a folder of data; raises ConformanceError."""
    __tracebackhide__ = True
    if not isinstance(sample, Sample):
        _check_other(hook, text, law, sample)
        return
    _hold(Subject.of(Registry.installed(hook), text), text, law, sample)


def problem_with(subject: Subject, law: str, sample: Sample) -> Exception | None:
    """What a law, or the strategy, raises on one sample; None where the law holds."""
    try:
        laws(subject.strategy.hook)[law](subject, sample)
    except Exception as error:
        return error
    return None


def _hold(subject: Subject, text: str, law: str, sample: Sample) -> None:
    __tracebackhide__ = True
    hook, error = subject.strategy.hook, problem_with(subject, law, sample)
    if error is not None:
        told = f"{subject.who} breaks the law {law!r}: {words_of(error)}"
        raise ConformanceError(f"{told}\nagain: {call_of(hook, text, law, sample)}", sample, error) from error


def words_of(problem: Exception) -> str:
    """What a problem says: a law's own words, or the class and words of what the strategy raised."""
    return f"{problem}" if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {problem}"


def call_of(hook: str, text: str, law: str, sample: Sample | str | None) -> str:
    """Python that runs one case once more."""
    if not isinstance(sample, Sample):
        return f"headwise.testing.reproduce({hook!r}, {text!r}, {law!r}{f', {sample!r}' if sample else ''})"
    return f"headwise.testing.reproduce({hook!r}, {text!r}, {law!r}, headwise.testing.{sample})"
