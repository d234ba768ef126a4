"""Reads the model arguments of a harness, ``pretrained=...,strategy=...``: which model to load and its recipe.

Both harnesses split ``--model_args`` at commas, except inside brackets. So users put a text with commas in brackets,
and join several texts by ``+`` or blanks: ``strategy=fastv:layer=2+sparsity+fixed:heads=4``,
``strategy=[streaming:sinks=4,window=60]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from headwise.errors import DataError, HeadwiseError, StrategyError
from headwise.hints import did_you_mean
from headwise.reading import shortened, shown
from headwise.recipe import Recipe
from headwise_lab.models.placing import AUTO

BRACKETS = (
    "in --model_args a comma ends an argument, so put strategies with several options in brackets:"
    " strategy=[NAME:option=1,other=2]"
)


def strategy_texts(given: object) -> tuple[str, ...]:
    """The strategy texts of one argument, which is a list of texts, or one text with ``+``, blanks and brackets.

    >>> strategy_texts("fastv:layer=2+[streaming:sinks=4,window=60]")
    ('fastv:layer=2', 'streaming:sinks=4,window=60')
    """
    if given is None:
        return ()
    if isinstance(given, list | tuple):
        return tuple(text for item in given for text in strategy_texts(item))
    found: list[str] = []
    for part in _cut(_unquoted(str(given)), _between_texts):
        found += strategy_texts(part[1:-1]) if part.startswith("[") and part.endswith("]") else [part]
    return tuple(found)


def model_arguments(given: object) -> dict[str, object]:
    """``--model_args`` of a result file, a text or an object, as a dictionary; raises DataError for other text.

    >>> model_arguments("pretrained=demo-llava,strategy=[streaming:sinks=4,window=60]")
    {'pretrained': 'demo-llava', 'strategy': '[streaming:sinks=4,window=60]'}
    """
    if isinstance(given, Mapping):
        return dict(given)
    pairs = [part.partition("=") for part in _cut(str(given or ""), lambda mark, _: mark == ",")]
    for key, equals, _ in pairs:
        if not equals:
            raise DataError(f"model argument {shown(key)} is not of the form key=value")
    return {key: _unquoted(value) for key, _, value in pairs}


def _unquoted(text: str) -> str:
    """The text without quotes around it, which lmms-eval does not remove."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _between_texts(mark: str, following: str) -> bool:
    """Whether ``mark`` separates texts: a blank, or a plus that is not part of a number such as 1e+5."""
    return mark.isspace() or (mark == "+" and not following.isdigit())


def _cut(text: str, separates: Callable[[str, str], bool]) -> list[str]:
    """The non-empty parts of a text between separators; separators inside brackets do not count."""
    parts, depth = [""], 0
    for place, mark in enumerate(text):
        depth += (mark == "[") - (mark == "]")
        if depth < 0:
            break
        if depth == 0 and separates(mark, text[place + 1 : place + 2]):
            parts.append("")
        else:
            parts[-1] += mark
    if depth:
        raise StrategyError(f"{shortened(text)} has a bracket without its partner; {BRACKETS}")
    return [part for part in parts if part]


def _real(given: str | float | None) -> float | None:
    try:
        return None if given is None else float(given)
    except (TypeError, ValueError) as error:
        raise HeadwiseError(
            f"model argument {shown(given)} is no number; tokens, min_mass and sink_share have to be numbers"
        ) from error


def _whole(given: str | int | None) -> int | None:
    try:
        return None if given is None else int(given)
    except (TypeError, ValueError) as error:
        raise HeadwiseError(
            f"model argument {shown(given)} is no whole number; keep and max_length have to be whole numbers"
        ) from error


def _rows(given: str | int | None) -> int:
    """The rows of a batch; harnesses pass a text, or None where the user gave no number."""
    try:
        rows = 1 if given is None else int(given)
    except (TypeError, ValueError):
        rows = 0
    if rows < 1:
        raise HeadwiseError(
            f"batch_size={shown(given)} is not a number of rows; give one, such as 8 (there is no auto)"
        )
    return rows


def _device(given: object) -> str:
    return str(given or AUTO)


@attrs.frozen(kw_only=True)
class Arguments:
    """The arguments in ``--model_args`` and their defaults.

    ``pretrained``: a model that ships, a local model folder, or a hub id. ``strategy``, ``recipe``, ``tokens``,
    ``keep``, ``positions``, ``aggregate``, ``min_mass``, ``sink_share``, ``profile``: the recipe, as in `headwise run`
    and `ppl`. ``max_length``: the most tokens that a language model is given, by default its own maximum.
    """

    pretrained: str
    strategy: tuple[str, ...] = attrs.field(default=(), converter=strategy_texts)
    recipe: str | None = None
    tokens: float | None = attrs.field(default=None, converter=_real)
    keep: int | None = attrs.field(default=None, converter=_whole)
    positions: str | None = None
    aggregate: str | None = None
    min_mass: float | None = attrs.field(default=None, converter=_real)
    sink_share: float | None = attrs.field(default=None, converter=_real)
    profile: str | None = None
    dtype: str = AUTO
    device: str = attrs.field(default=None, converter=_device)
    attention: str = "sdpa"
    batch_size: int = attrs.field(default=None, converter=_rows)
    max_length: int | None = attrs.field(default=None, converter=_whole)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Arguments:
        """From a harness's keyword arguments; raises HeadwiseError, which names an unknown or missing argument."""
        asked = {key: value for key, value in given.items() if key != "max_batch_size"}  # only for batch_size=auto
        known = attrs.fields_dict(cls)
        for key, value in asked.items():
            if key not in known:
                wrong = shortened(f"{key}={value}")
                raise HeadwiseError(f"unknown model argument {wrong}{did_you_mean(key, known)}; {BRACKETS}")
        if not asked.get("pretrained"):
            raise HeadwiseError("no model is named; write --model_args pretrained=MODEL,strategy=...")
        return cls(**asked)

    def make_recipe(self) -> Recipe:
        """The recipe; raises what :meth:`headwise.Recipe.of` raises."""
        names = ("positions", "aggregate", "min_mass", "sink_share", "profile")
        settings = {name: getattr(self, name) for name in names}
        return Recipe.of(*self.strategy, name=self.recipe, tokens=self.tokens, keep=self.keep, **settings)


def alone() -> None:
    """Raise HeadwiseError where a launcher has started several processes, because each would do all the work."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise HeadwiseError(
            f"headwise runs in one process of a harness, and a launcher started {os.environ['WORLD_SIZE']}; start the"
            " harness without accelerate launch or torchrun"
        )
