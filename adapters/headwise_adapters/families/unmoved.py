"""Scores of KV entries in models whose positions have several axes, so that nothing can be moved along the text."""

from __future__ import annotations

from typing import cast

import attrs

from headwise.errors import ModelError
from headwise.eviction import CacheEvidence, Score


def unmoved(score: Score, axes: str) -> Score:
    """A score that is refused what would take queries or keys to one place of the text; ``axes`` says why."""
    return lambda evidence: score(cast(CacheEvidence, _Unmoved(evidence, axes)))


@attrs.frozen
class _Unmoved:
    evidence: CacheEvidence
    axes: str

    def __getattr__(self, name: str) -> object:
        if name in ("queries", "unrotated", "rotate"):
            raise ModelError(
                f"this kv_eviction undoes rotary positions, and {self.axes}; take one that does not, as snapkv"
            )
        found: object = getattr(self.evidence, name)
        return found
