"""Every strategy that headwise ships meets every law of its hook, found by name as a user finds it."""

from __future__ import annotations

import pytest

from headwise.registry import Registry
from headwise.testing import cases

HOOKS = ("query_selection", "head_scoring", "head_count", "token_pruning")

EXCEPTIONS = {
    ("head_scoring", "random"): {"heads_permute": "draws a score per head index, whatever the head looks at"},
    ("token_pruning", "none"): {"budget_is_met": "prunes nothing, so every budget below everything is refused"},
}
"""(hook, name) -> law -> why this strategy does not follow it."""

VARIANTS: dict[tuple[str, str], tuple[str, ...]] = {}
"""Further texts of a strategy, whose options change what it computes."""


def shipped(hook):
    found = Registry.installed(hook).found
    return [name for name, entries in found.items() if any(entry.dist.name == "headwise" for entry in entries)]


@pytest.mark.parametrize(
    "check",
    [
        case
        for hook in HOOKS
        for name in shipped(hook)
        for case in cases(hook, (name, *VARIANTS.get((hook, name), ())), expected_failures=EXCEPTIONS.get((hook, name)))
    ],
)
def test_shipped_strategy_meets_the_laws_of_its_hook(check):
    check()
