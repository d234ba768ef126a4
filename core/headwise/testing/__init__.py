"""The conformance kit: every law of a hook, checked on a strategy that is found by name. Needs ``headwise[testing]``.

    import headwise.testing

    @headwise.testing.parametrize("head_scoring", ["mine", "mine:k=1"])
    def test_conformance(check):
        check()

Each strategy text and law gives one test. What a strategy cannot do on purpose is declared, never skipped:
``expected_failures={"heads_permute": "scores are drawn by head index"}`` is a strict expected failure.
A failure names the strategy, whose it is, and a line for :func:`reproduce` that runs that one case again.
"""

from __future__ import annotations

from headwise.testing.kit import ConformanceError, cases, laws, parametrize, reproduce
from headwise.testing.samples import Sample

__all__ = ["ConformanceError", "Sample", "cases", "laws", "parametrize", "reproduce"]
