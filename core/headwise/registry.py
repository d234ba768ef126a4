"""Name -> entry point -> strategy, and every sentence a user can meet on that way.

Names come from distribution metadata alone; only the one strategy that is asked for gets imported.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import attrs

from headwise.blame import blamed, message
from headwise.errors import StrategyError
from headwise.hints import did_you_mean
from headwise.hookspecs import CONTRACT, HOOKS
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

    @property
    def who(self) -> str:
        """How a sentence names it: hook, text and who ships it."""
        return f"{self.hook} strategy {self.text!r} ({self.owner})"


def owner_of(entry: EntryPoint) -> str:
    """``distribution version`` of an entry point."""
    return " ".join(filter(None, distribution(entry.dist))) if entry.dist else "an unknown distribution"


@functools.lru_cache(maxsize=64)
def distribution(found: Distribution) -> tuple[str, str]:
    """Name and version, remembered because each look at them reads and parses the metadata file."""
    try:
        return str(found.name or "a distribution without a name"), str(found.version or "")
    except Exception:  # the metadata file is missing, or is not text
        return "a distribution without metadata", ""


def load(entry: EntryPoint) -> Any:
    """Import what an entry point names; raises StrategyError naming the owner when that fails."""
    try:
        return entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, so that a plugin cannot end our program
        raise StrategyError(
            f"{entry.name!r} from {owner_of(entry)} ({entry.value}) does not import: {_reason(error)}"
        ) from error


def built(entry: EntryPoint, *arguments: object) -> Any:
    """Import what an entry point names and call it; raises StrategyError naming the owner when either fails."""
    factory = load(entry)
    with blamed(f"{entry.name!r} from {owner_of(entry)}"):
        return factory(*arguments)


def installed(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> entry points of ``headwise.<group>``, sorted by name; more than one under a name is a clash."""
    return dict(_installed(group, tuple(sys.path)))


@functools.lru_cache(maxsize=64)
def _installed(group: str, _path: tuple[str, ...]) -> dict[str, tuple[EntryPoint, ...]]:
    """Remembered for one search path, because reading every distribution's metadata takes tens of milliseconds."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in _every(_path)[0]:
        if entry.group == f"headwise.{group}":
            found[entry.name] = (*found.get(entry.name, ()), entry)
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=8)
def _every(_path: tuple[str, ...]) -> tuple[tuple[EntryPoint, ...], tuple[str, ...]]:
    """All entry points of headwise, and the distributions whose own cannot be read; those spoil nobody else's."""
    entries: list[EntryPoint] = []
    broken: list[str] = []
    names: set[str] = set()
    for found in distributions():
        try:
            if "headwise." not in (found.read_text("entry_points.txt") or ""):
                continue
            mine = [entry for entry in found.entry_points if entry.group.startswith("headwise.")]
        except Exception:
            broken.append(" ".join(filter(None, distribution(found))))
            continue
        name = re.sub(r"[-_.]+", "-", distribution(found)[0]).lower()
        if name not in names:  # of two copies, Python imports the first on the search path
            entries += mine
            names.add(name)
    return tuple(entries), tuple(dict.fromkeys(broken))


def _unread() -> str:
    """Which distributions may have had what was not found."""
    broken = _every(tuple(sys.path))[1]
    return f"; the entry points of {', '.join(broken)} cannot be read" if broken else ""


def only(kind: str, name: str, found: Mapping[str, tuple[EntryPoint, ...]], owner: str | None = None) -> EntryPoint:
    """The one entry point called ``name`` (of distribution ``owner``); raises StrategyError for none or several."""
    match = [entry for entry in found.get(name, ()) if owner in (None, entry.dist and distribution(entry.dist)[0])]
    if len(match) == 1:
        return match[0]
    if match:
        owners = ", ".join(sorted(map(owner_of, match)))
        raise StrategyError(f"{kind} {name!r} is provided by {owners}; write OWNER/{name} or uninstall one")
    source = f" from {owner!r}" if owner else ""
    raise StrategyError(f"unknown {kind} {name!r}{source}{did_you_mean(name, found) or _known(found)}{_unread()}")


def configured(kind: str, text: str, entry: EntryPoint, **given: object) -> Any:
    """Import what an entry point names and build it with the options of a strategy text, and what is ``given`` beside.

    Raises StrategyError for an option it does not have, or a value it refuses.
    """
    parsed = StrategyText.parse(text)
    factory = load(entry)
    who = f"{kind} {parsed.name!r} ({owner_of(entry)})"
    try:
        known = [name for name in inspect.signature(factory).parameters if name not in given]
    except Exception as error:
        raise StrategyError(f"{who}: {entry.value} is not a class or function, so it cannot be built") from error
    for key in parsed.options:
        if key not in known:
            options = f"its options are {', '.join(known)}" if known else "it has none"
            raise StrategyError(f"{who} has no option {key!r}{did_you_mean(key, known)}; {options}")
    try:
        return factory(**parsed.options, **given)
    except KeyboardInterrupt:
        raise
    except (TypeError, ValueError) as error:
        raise StrategyError(f"{who} refuses {text!r}: {_reason(error)}") from error
    except BaseException as error:
        raise StrategyError(f"{who} failed on {text!r}: {type(error).__name__}: {_reason(error)}") from error


@attrs.frozen
class Registry:
    """The strategies installed for one hook, by name; nothing is imported until ``build``."""

    hook: str
    found: Mapping[str, tuple[EntryPoint, ...]]

    @classmethod
    def installed(cls, hook: str) -> Registry:
        """What the installed distributions offer for ``hook``; raises StrategyError for an unknown hook."""
        if hook not in HOOKS:
            raise StrategyError(f"unknown hook {hook!r}{did_you_mean(hook, HOOKS)}; hooks are {', '.join(HOOKS)}")
        return cls(hook, installed(hook))

    def find(self, name: str, owner: str | None = None) -> EntryPoint:
        """The one entry point called ``name``; raises StrategyError for none or several."""
        return only(f"{self.hook} strategy", name, self.found, owner)

    def build(self, text: str, *, prefer: str | None = None) -> Strategy:
        """Import and configure the strategy a text names; raises StrategyError with everything one needs to know."""
        parsed = StrategyText.parse(text)
        owners = [entry.dist and distribution(entry.dist)[0] for entry in self.found.get(parsed.name, ())]
        entry = self.find(parsed.name, parsed.owner or (prefer if prefer in owners else None))
        plugin = configured(f"{self.hook} strategy", text, entry)
        who = f"{self.hook} strategy {parsed.name!r} ({owner_of(entry)})"
        self._check_hook(plugin, who)
        check_contract(plugin, who)
        return Strategy(self.hook, parsed.name, owner_of(entry), plugin)

    def _check_hook(self, plugin: object, who: str) -> None:
        """A strategy implements its own hook and no other; found here, a mistake still has its owner's name on it."""
        if isinstance(plugin, type):
            raise StrategyError(f"{who} is a class that was not built; its entry point must name the class itself")
        implemented = [hook for hook in HOOKS if hasattr(getattr(type(plugin), hook, None), "headwise_impl")]
        if implemented != [self.hook]:
            what = ", ".join(implemented) or "no hook"
            raise StrategyError(f"{who} implements {what}; a {self.hook} strategy implements {self.hook} and no other")


def check_contract(plugin: object, who: str) -> None:
    """Raise StrategyError where a plugin says that it was written for a contract that this headwise does not have."""
    written = getattr(plugin, "hook_contract", "1.0")
    ours = ".".join(map(str, CONTRACT))
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", written) if isinstance(written, str) else None
    if found is None:
        raise StrategyError(f"{who} has hook_contract={written!r}; wanted two numbers as text, such as {ours!r}")
    major, minor = int(found[1]), int(found[2])
    if major < CONTRACT[0] or (major, minor) > CONTRACT:
        newer = "version of it" if major < CONTRACT[0] else "headwise"
        raise StrategyError(
            f"{who} is written for hook contract {written}, and this is {ours}; install a newer {newer}"
        )


def resolve(text: str, hooks: Sequence[str] = HOOKS, *, prefer: str | None = None) -> Strategy:
    """Build the strategy of a text, whichever of ``hooks`` it belongs to; a bare name must be unique among them.

    ``prefer``: the distribution whose strategy is meant by a name without owner that several provide. Raises
    StrategyError for a text that names none of them, or several, and for options that the strategy refuses.
    """
    parsed = StrategyText.parse(text)
    if parsed.hook:
        registry = Registry.installed(parsed.hook)
        if parsed.hook not in hooks:
            raise StrategyError(f"{text!r} is a {parsed.hook} strategy; what is wanted here is {' or '.join(hooks)}")
        return registry.build(text.strip().partition("=")[2], prefer=prefer)
    registries = [Registry.installed(hook) for hook in hooks]
    owning = [registry for registry in registries if parsed.name in registry.found]
    if len(owning) == 1:
        return owning[0].build(text, prefer=prefer)
    if owning:
        forms = " or ".join(f"{registry.hook}={parsed.name}" for registry in owning)
        raise StrategyError(f"strategy {parsed.name!r} exists for more than one hook; write {forms}")
    names = [name for registry in registries for name in registry.found]
    kind = f"{hooks[0]} strategy" if len(hooks) == 1 else "strategy"
    hint = did_you_mean(parsed.name, names) or _list_command()
    raise StrategyError(f"unknown {kind} {parsed.name!r}{hint}{_unread()}")


def spelled_out(text: str, strategy: Strategy) -> str:
    """The canonical text of the ``strategy`` a text names, so that two ways to write one are the same in records."""
    owner = StrategyText.parse(text).owner
    return f"{owner}/{strategy.text}" if owner else strategy.text


def _reason(error: BaseException) -> str:
    """The error in one line; attrs puts the field and the validator behind the message, which nobody reads."""
    said = message(error)
    for told, wanted in _CONVERSIONS.items():
        if said.startswith(told):
            return f"{said.removeprefix(told)} is not {wanted}"
    return said or type(error).__name__


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
