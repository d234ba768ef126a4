"""Strategy text, the one notation for a choice: ``[hook=][owner/]NAME[:option=value,...]``.

A value that is itself a strategy text stands in brackets: ``adakv:of=[snapkv:budget=64],floor=0.3``.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from headwise.errors import StrategyError

LONGEST = 4096
"""Characters of a strategy text, paths of files in it included."""

DEEPEST = 8
"""Brackets within brackets."""


@attrs.frozen
class StrategyText:
    """A parsed strategy text; option values stay text until the strategy's own converters read them."""

    name: str
    options: Mapping[str, str] = attrs.field(factory=dict)
    hook: str | None = None
    owner: str | None = None

    @classmethod
    def parse(cls, text: str) -> StrategyText:
        """Read ``[hook=][owner/]NAME[:option=value,...]``; raises StrategyError with the part that does not fit."""
        _check_characters(text)
        head, colon, tail = text.strip().partition(":")
        hook, equals, name = head.rpartition("=")
        owner, slash, name = name.rpartition("/")
        if not name or (equals and not hook) or (slash and not owner):
            raise StrategyError(f"strategy text {text!r} has no name; write NAME, NAME:option=value or hook=NAME")
        if colon and not tail:
            raise StrategyError(f"strategy text {text!r} ends with ':'; write NAME:option=value or drop the colon")
        return cls(name.strip(), _options(text, tail), hook.strip() or None, owner.strip() or None)


def _check_characters(text: str) -> None:
    """Raise StrategyError for what no record and no terminal can hold, and for a text that is too long."""
    if len(text) > LONGEST:
        raise StrategyError(f"a strategy text of {len(text)} characters is too long; write at most {LONGEST}")
    wrong = next((character for character in text if not (character.isprintable() or character == "\t")), None)
    if wrong is not None:
        raise StrategyError(f"strategy text {text!r} has the character {wrong!r}, which no name or option has")


def _options(text: str, tail: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, _split(text, tail)):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        value = _bare(value)
        if not (key and equals and value):
            raise StrategyError(f"option {part!r} in strategy text {text!r} is not of the form option=value")
        if key in options:
            raise StrategyError(f"option {key!r} is given twice in strategy text {text!r}")
        options[key] = value
    return options


def _split(text: str, tail: str) -> list[str]:
    """The parts between commas, those inside brackets left alone."""
    parts, depth = [""], 0
    for character in tail:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            break
        if depth > DEEPEST:
            raise StrategyError(f"strategy text {text!r} has brackets in more than {DEEPEST} brackets; nest it less")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise StrategyError(f"strategy text {text!r} has a bracket without its partner; write NAME:of=[OTHER:a=1,b=2]")
    return parts


def _bare(value: str) -> str:
    return value[1:-1].strip() if value.startswith("[") and value.endswith("]") else value


def canonical(name: str, strategy: object) -> str:
    """The text that rebuilds a strategy, every option spelled out: ``top_k_sum:k=32``."""
    return written(name, chosen_options(strategy))


def written(name: str, options: Mapping[str, object]) -> str:
    """The text of a strategy with these options."""
    listed = ",".join(f"{key}={show(value)}" for key, value in options.items())
    return f"{name}:{listed}" if listed else name


def chosen_options(strategy: object) -> dict[str, object]:
    """Option -> value of a built strategy, in the order the class declares them; options that are None are left out."""
    kind = type(strategy)
    if not attrs.has(kind):
        return {}
    fields = [field for field in attrs.fields(kind) if field.init]
    values = {field.alias or field.name: getattr(strategy, field.name) for field in fields}
    return {key: value for key, value in values.items() if value is not None}


def show(value: object) -> str:
    """An option value as the user would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    shown = str(value)
    return f"[{shown}]" if any(mark in shown for mark in ",[]") else shown
