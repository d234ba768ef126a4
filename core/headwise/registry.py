"""Name -> entry point -> strategy, and every sentence a user can meet on that way.

Names come from distribution metadata alone; only the one strategy that is asked for gets imported.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

import attrs

from headwise.errors import StrategyError
from headwise.hints import did_you_mean
from headwise.hookspecs import HOOKS
from headwise.text import StrategyText, canonical


@attrs.frozen(eq=False)
class Strategy:
    """A strategy as chosen: its hook, name, who ships it, and the pluggy plugin built from the text."""

    hook: str
    name: str
    owner: str
    plugin: Any

    @property
    def text(self) -> str:
        """Canonical text, every option spelled out."""
        return canonical(self.name, self.plugin)


def owner_of(entry: EntryPoint) -> str:
    """``distribution version`` of an entry point."""
    return " ".join(_distribution(entry.dist)) if entry.dist else "an unknown distribution"


@functools.lru_cache(maxsize=64)
def _distribution(found: Distribution) -> tuple[str, str]:
    """Name and version, remembered because each look at them reads and parses the metadata file."""
    return found.name, found.version


def load(entry: EntryPoint) -> Any:
    """Import what an entry point names; raises StrategyError naming the owner when that fails."""
    try:
        return entry.load()
    except Exception as error:
        raise StrategyError(
            f"{entry.name!r} from {owner_of(entry)} ({entry.value}) does not import: {_reason(error)}"
        ) from error


def installed(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> entry points of ``headwise.<group>``, sorted by name; more than one under a name is a clash."""
    return dict(_installed(group, tuple(sys.path)))


@functools.lru_cache(maxsize=64)
def _installed(group: str, _path: tuple[str, ...]) -> dict[str, tuple[EntryPoint, ...]]:
    """Remembered for one search path, because reading every distribution's metadata takes tens of milliseconds."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=f"headwise.{group}"):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return dict(sorted(found.items()))


def only(kind: str, name: str, found: Mapping[str, tuple[EntryPoint, ...]], owner: str | None = None) -> EntryPoint:
    """The one entry point called ``name`` (of distribution ``owner``); raises StrategyError for none or several."""
    match = [entry for entry in found.get(name, ()) if owner in (None, entry.dist and _distribution(entry.dist)[0])]
    if len(match) == 1:
        return match[0]
    if match:
        owners = ", ".join(sorted(map(owner_of, match)))
        raise StrategyError(f"{kind} {name!r} is provided by {owners}; write OWNER/{name} or uninstall one")
    source = f" from {owner!r}" if owner else ""
    raise StrategyError(f"unknown {kind} {name!r}{source}{did_you_mean(name, found) or _known(found)}")


def configured(kind: str, text: str, entry: EntryPoint, **given: Any) -> Any:
    """Import what an entry point names and build it with the options of a strategy text, and what is ``given`` beside.

    Raises StrategyError for an option it does not have, or a value it refuses.
    """
    parsed = StrategyText.parse(text)
    factory = load(entry)
    who = f"{kind} {parsed.name!r} ({owner_of(entry)})"
    try:
        known = [name for name in inspect.signature(factory).parameters if name not in given]
    except (TypeError, ValueError) as error:
        raise StrategyError(f"{who}: {entry.value} is not a class or function, so it cannot be built") from error
    for key in parsed.options:
        if key not in known:
            options = f"its options are {', '.join(known)}" if known else "it has none"
            raise StrategyError(f"{who} has no option {key!r}{did_you_mean(key, known)}; {options}")
    try:
        return factory(**parsed.options, **given)
    except (TypeError, ValueError) as error:
        raise StrategyError(f"{who} refuses {text!r}: {_reason(error)}") from error


@attrs.frozen
class Registry:
    """The strategies installed for one hook, by name; nothing is imported until ``build``."""

    hook: str
    found: Mapping[str, tuple[EntryPoint, ...]]

    @classmethod
    def installed(cls, hook: str) -> Registry:
        """What the installed distributions offer for ``hook``."""
        if hook not in HOOKS:
            raise StrategyError(f"unknown hook {hook!r}{did_you_mean(hook, HOOKS)}; hooks are {', '.join(HOOKS)}")
        return cls(hook, installed(hook))

    def find(self, name: str, owner: str | None = None) -> EntryPoint:
        """The one entry point called ``name``; raises StrategyError for none or several."""
        return only(f"{self.hook} strategy", name, self.found, owner)

    def build(self, text: str) -> Strategy:
        """Import and configure the strategy a text names; raises StrategyError with everything one needs to know."""
        parsed = StrategyText.parse(text)
        entry = self.find(parsed.name, parsed.owner)
        plugin = configured(f"{self.hook} strategy", text, entry)
        who = f"{self.hook} strategy {parsed.name!r} ({owner_of(entry)})"
        self._check_hook(plugin, who)
        return Strategy(self.hook, parsed.name, owner_of(entry), plugin)

    def _check_hook(self, plugin: object, who: str) -> None:
        """A strategy implements its own hook and no other; found here, a mistake still has its owner's name on it."""
        if isinstance(plugin, type):
            raise StrategyError(f"{who} is a class that was not built; its entry point must name the class itself")
        implemented = [hook for hook in HOOKS if hasattr(getattr(type(plugin), hook, None), "headwise_impl")]
        if implemented != [self.hook]:
            what = ", ".join(implemented) or "no hook"
            raise StrategyError(f"{who} implements {what}; a {self.hook} strategy implements {self.hook} and no other")


def resolve(text: str, hooks: Sequence[str] = HOOKS) -> Strategy:
    """Build the strategy of a text, whichever of ``hooks`` it belongs to; a bare name must be unique among them."""
    parsed = StrategyText.parse(text)
    if parsed.hook:
        registry = Registry.installed(parsed.hook)
        if parsed.hook not in hooks:
            raise StrategyError(f"{text!r} is a {parsed.hook} strategy; what is wanted here is {' or '.join(hooks)}")
        return registry.build(text.strip().partition("=")[2])
    registries = [Registry.installed(hook) for hook in hooks]
    owning = [registry for registry in registries if parsed.name in registry.found]
    if len(owning) == 1:
        return owning[0].build(text)
    if owning:
        forms = " or ".join(f"{registry.hook}={parsed.name}" for registry in owning)
        raise StrategyError(f"strategy {parsed.name!r} exists for more than one hook; write {forms}")
    names = [name for registry in registries for name in registry.found]
    kind = f"{hooks[0]} strategy" if len(hooks) == 1 else "strategy"
    raise StrategyError(f"unknown {kind} {parsed.name!r}{did_you_mean(parsed.name, names) or _list_command()}")


def spelled_out(text: str, strategy: Strategy) -> str:
    """The canonical text of the ``strategy`` a text names, so that two ways to write one are the same in records."""
    owner = StrategyText.parse(text).owner
    return f"{owner}/{strategy.text}" if owner else strategy.text


def _reason(error: BaseException) -> str:
    """The error in one line; attrs puts the field and the validator behind the message, which nobody reads."""
    message = str(error.args[0]) if error.args else str(error)
    for told, wanted in _CONVERSIONS.items():
        if message.startswith(told):
            return f"{message.removeprefix(told)} is not {wanted}"
    return message.splitlines()[0] if message else type(error).__name__


_CONVERSIONS = {
    "invalid literal for int() with base 10: ": "a whole number",
    "could not convert string to float: ": "a number",
}
"""How Python says that a text is no number, and what a person would say."""


def _known(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"; known: {listed}" if listed else "; none is installed"


def _list_command() -> str:
    return "; `headwise strategies` lists what is installed"
