"""Strategy texts with ranges: ``fixed:heads=1..8`` stands for every whole number from 1 to 8."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import attrs

from headwise.errors import StrategyError
from headwise.text import StrategyText, show

_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_BETWEEN = 0.381966  # of a range; of no range with whole ends a whole number
_WHOLE = re.compile(r"[+-]?\d+")


@attrs.frozen
class Range:
    """All numbers from ``low`` to ``high``, both included; only the whole ones where ``whole``."""

    low: float
    high: float
    whole: bool

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """``1..8``, or with decimals in either end ``0.5..1``; None for what is no range.

        Raises StrategyError where the ends are the wrong way round.
        """
        found = _RANGE.fullmatch(text)
        if found is None:
            return None
        low, high = found.groups()
        whole = all(_WHOLE.fullmatch(end) for end in (low, high))
        if not (float(low) <= float(high) and math.isfinite(float(high))):
            raise StrategyError(f"the range {text} has its ends the wrong way round; write the smaller number first")
        return cls(float(low), float(high), whole)

    def show(self, value: float) -> str:
        """A number of the range as an option's value; of a fraction six digits, as in canonical texts."""
        return str(round(value)) if self.whole else f"{value:g}"


@attrs.frozen
class Choice:
    """A strategy that may be chosen, with ranges among its options; ``label`` is how the user wrote it."""

    hook: str
    label: str
    name: str
    options: Mapping[str, str | Range]

    @classmethod
    def parse(cls, hook: str, text: str) -> Choice:
        """Read a strategy text in which option values may be ranges; raises StrategyError for what does not fit."""
        bare = text.removeprefix(f"{hook}=")
        parsed = StrategyText.parse(bare)
        name = f"{parsed.owner}/{parsed.name}" if parsed.owner else parsed.name
        options = {option: Range.parse(value) or value for option, value in parsed.options.items()}
        return cls(hook, bare, name, options)

    @property
    def ranges(self) -> dict[str, Range]:
        """The options that are ranges."""
        return {option: value for option, value in self.options.items() if isinstance(value, Range)}

    def text(self, values: Mapping[str, float]) -> str:
        """The strategy text with a value in place of every range."""
        told = {option: self._value(option, value, values) for option, value in self.options.items()}
        listed = ",".join(f"{option}={value}" for option, value in told.items())
        return f"{self.name}:{listed}" if listed else self.name

    def _value(self, option: str, value: str | Range, values: Mapping[str, float]) -> Any:
        return value.show(values[option]) if isinstance(value, Range) else show(value)

    def samples(self) -> list[str]:
        """The texts with every range at its low end, at its high end, and somewhere between."""
        return [
            self.text({option: found.low + part * (found.high - found.low) for option, found in self.ranges.items()})
            for part in (0, 1, _BETWEEN)
        ]
