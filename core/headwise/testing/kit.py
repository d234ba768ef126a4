"""From strategy texts to tests: one per text and law, with failures that can be run again."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import headwise
from headwise.errors import HeadwiseError
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

FIRST: Mapping[str, Sequence[str]] = {
    "query_selection": ("weights_sum_to_one",),
    "head_scoring": ("shape_dtype_device",),
    "head_count": ("shape_dtype_device", "within_the_heads"),
    "token_pruning": ("plan_is_valid", "kept_tokens_are_valid"),
    "kv_eviction": ("plan_is_valid", "scores_are_numbers"),
    "head_classification": ("complete_and_in_range",),
}
"""Laws on what an answer is at all. Where one of them is broken, the others would repeat it, and are not tried."""

_unfit: dict[tuple[str, str], str] = {}
"""What is wrong at all with strategies that were tried: (hook, text) -> a sentence. Their other laws are not tried."""

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

    Laws without which others cannot be tried come first.

    Raises ValueError for a hook without laws.
    """
    if hook in kinds():
        return dict(kit_of(hook).laws())
    if hook not in _LAWS:
        raise ValueError(f"no laws are known for hook {hook!r}; there are some for {', '.join((*_LAWS, *kinds()))}")
    module = _LAWS[hook]
    found = dict(inspect.getmembers(module, inspect.isfunction))
    names = (name for name, law in found.items() if law.__module__ == module.__name__ and not name.startswith("_"))
    return {name: found[name] for name in dict.fromkeys((*FIRST[hook], *names))}


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
            partial(check, hook, text, law, data, expected=law in exceptions),
            id=f"{hook}={text}-{law}",
            marks=[pytest.mark.xfail(reason=exceptions[law], strict=True, raises=ConformanceError)]
            if law in exceptions
            else [],
        )
        for text in texts
        for law in known
    ]


def check(hook: str, text: str, law: str, data: str | None = None, *, expected: bool = False) -> None:
    """Hold one strategy to one law on generated samples, or one benchmark on its questions; raises ConformanceError.

    Where it cannot be built, or its answer has not even the right form, its other laws are skipped, for they would
    repeat that; unless it is ``expected`` to break this law. Raises StrategyError the first time it cannot be built.
    """
    __tracebackhide__ = True  # pytest shows the strategy's own frames, not those of the kit
    if (hook, text) in _unfit:
        pytest.skip(f"not tried: {_unfit[hook, text]}")
    try:
        _check(hook, text, law, data)
    except (ConformanceError, HeadwiseError) as error:
        _show_own_frames_only(error)
        first = kit_of(hook).first if hook in kinds() else FIRST[hook]
        if not expected and (law in first or isinstance(error, HeadwiseError)):
            _unfit[hook, text] = str(error).partition("\n")[0]
        raise error.with_traceback(None)  # noqa: B904  # its cause stays


def _show_own_frames_only(error: BaseException) -> None:
    """Take headwise's frames out of the tracebacks of what caused an error; a cause without other frames is no news."""
    ours = str(Path(headwise.__file__).parent)
    at: BaseException = error
    while at.__cause__ is not None:
        cause, kept = at.__cause__, None
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            if not (frame.f_code.co_filename.startswith(ours) or "importlib" in frame.f_code.co_filename):
                kept = TracebackType(kept, frame, frame.f_lasti, line)
        cause.__traceback__ = kept
        if kept is None:
            at.__cause__, at.__suppress_context__ = cause.__cause__, True
        else:
            at = cause


def _check(hook: str, text: str, law: str, data: str | None) -> None:
    __tracebackhide__ = True
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
