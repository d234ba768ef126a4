"""The way to use a strategy within a strategy: found by name, and called, checked, watched and blamed as in a run."""

from __future__ import annotations

from headwise.heads import HeadProfile
from headwise.pipeline import Pipeline, watching
from headwise.recipe import Recipe
from headwise.registry import Strategy, resolve, spelled_out


class Inner:
    """The strategies that another strategy uses; they are built once and remembered.

    A field of the strategy, ``_inner: Inner = attrs.field(init=False, factory=Inner)``. The strategy asks what ``run``
    returns as a run asks its own strategies: core checks every answer, an error names the strategy that it came from,
    and the observers of the run around it see each call.
    """

    def __init__(self) -> None:
        self._built: dict[tuple[str, str, str | None], Strategy] = {}
        self._runs: dict[tuple[object, ...], Pipeline] = {}
        self._observers: tuple[object, ...] = ()

    def run(self, *, profile: HeadProfile | None = None, prefer: str | None = None, **texts: str) -> Pipeline:
        """A pipeline of strategies, ``run(head_scoring="sparsity", head_count="fixed:heads=4").choose_heads(...)``.

        ``texts``: hook -> strategy text. ``prefer``: the distribution whose strategy is meant where several provide a
        name. Raises StrategyError for a text that names no strategy of its hook, or options that it refuses.
        """
        observers = watching()
        if [*map(id, observers)] != [*map(id, self._observers)]:  # these runs have the observers of an earlier one
            self._runs.clear()
            self._observers = observers
        key = (profile, prefer, *texts.items())
        if key not in self._runs:  # finding what is installed takes longer than most strategies
            strategies = {hook: self._strategy(hook, text, prefer) for hook, text in texts.items()}
            self._runs[key] = Pipeline(Recipe(strategies=strategies, profile=profile), observers)
        return self._runs[key]

    def _strategy(self, hook: str, text: str, prefer: str | None) -> Strategy:
        key = (hook, text, prefer)
        if key not in self._built:
            self._built[key] = resolve(text, (hook,), prefer=prefer)
        return self._built[key]


def named(hook: str, text: str) -> str:
    """The canonical text, every option spelled out, of the strategy of ``hook`` that an option's value names.

    Raises StrategyError for a text that names none.
    """
    return spelled_out(text, resolve(text, (hook,)))


def kv_eviction_named(text: str) -> str:
    """``named("kv_eviction", text)``, as the converter of an option."""
    return named("kv_eviction", text)
