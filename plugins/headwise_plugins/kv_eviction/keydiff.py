"""Entries whose keys differ from the others stay (KeyDiff; Park et al. 2025, arXiv 2504.15364)."""

from __future__ import annotations

import attrs
from torch import Tensor
from torch.nn import functional

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.options import ScoreOptions
from headwise.similarity import exact


@attrs.frozen(eq=False)
class KeyDiff(ScoreOptions):
    """Keeps the entries whose keys are least like the mean key of their KV head, by cosine.

    The mean is that of the unit keys, as in the paper's code. ``budget`` entries per KV head, or the share ``ratio``
    of the tokens read; ``sinks`` first and ``recent`` last tokens always stay; in decoding, every ``every``-th token
    evicts; ``rerotate`` closes the gaps in the keys. The paper reads a prompt in blocks and evicts after each; here
    that is what reading it in chunks does.
    """

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Needs nothing but the keys."""
        return self.plan(geometry, _difference)


def _difference(evidence: CacheEvidence) -> Tensor:
    """1 - cosine to the mean unit key; the sum will do, and empty entries add nothing to it.

    In float64, because keys have much in common, and as a distance, so that what differs by little still does after.
    """
    keys = functional.normalize(exact(evidence.keys), dim=-1)
    mean = functional.normalize(keys.sum(dim=2, keepdim=True), dim=-1)
    return (1 - (keys * mean).sum(dim=-1)).float()
