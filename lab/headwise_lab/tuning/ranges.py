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
_BETWEEN = 0.381966  # a point inside a range, as a share of its length; irrational, so that it is no whole number
_WHOLE = re.compile(r"[+-]?\d+")


@attrs.frozen
class Range:
    """All numbers from ``low`` to ``high``, both included; only the whole ones where ``whole``."""

    low: float
    high: float
    whole: bool

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """The range in a text such as ``1..8``, or ``0.5..1`` with decimals; None where the text is no range.

        Raises StrategyError where the larger number comes first.
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
        """A number of the range as text for an option; fractions have six digits, as in canonical texts."""
        return str(round(value)) if self.whole else f"{value:g}"


@attrs.frozen
class StrategyChoice:
    """A strategy that the search may choose; its options may be ranges. ``label``: the text as the user wrote it."""

    hook: str
    label: str
    name: str
    options: Mapping[str, str | Range]

    @classmethod
    def parse(cls, hook: str, text: str) -> StrategyChoice:
        """Read a strategy text whose option values may be ranges; raises StrategyError where it is malformed."""
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
        """The strategy text with ``values`` in place of its ranges."""
        listed = ",".join(f"{option}={self._value(option, value, values)}" for option, value in self.options.items())
        return f"{self.name}:{listed}" if listed else self.name

    def _value(self, option: str, value: str | Range, values: Mapping[str, float]) -> Any:
        return value.show(values[option]) if isinstance(value, Range) else show(value)

    def samples(self) -> list[str]:
        """Three texts: with every range at its low end, at its high end, and at a point between them."""
        return [
            self.text({option: found.low + part * (found.high - found.low) for option, found in self.ranges.items()})
            for part in (0, 1, _BETWEEN)
        ]
