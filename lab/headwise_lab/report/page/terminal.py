"""How commands colour the verdicts in the tables that they print."""

from __future__ import annotations

from headwise_lab.stats.differences import BETTER, SAME, WORSE

STYLES = {BETTER: "green", WORSE: "red", SAME: "dim", "": ""}
"""Verdict -> how its text is coloured."""
