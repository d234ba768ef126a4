"""What the tests of methods share that prune before the language model: evidence of the tower, plans, outcomes."""

from __future__ import annotations

import functools

import attrs
import torch

from headwise import Budget, Geometry, Pipeline, Recipe

TINY = Geometry(
    name="tiny", layers=4, heads=4, kv_heads=4, head_dim=4, hidden=16, intermediate=32, visual_tokens=12
)  # fmt: skip


@attrs.frozen
class Tower:
    """Evidence of the vision tower alone, from one list per row."""

    salient: list
    tokens: list
    keep: int
    dtype: torch.dtype = torch.float32

    @property
    def batch(self):
        return len(self.tokens)

    @property
    def visual(self):
        return len(self.tokens[0])

    def saliency(self):
        return torch.tensor(self.salient, dtype=self.dtype)


class Features(Tower):
    """Tokens are told apart by features, and have no keys."""

    def features(self):
        return torch.tensor(self.tokens, dtype=self.dtype)


class Keys(Tower):
    """Tokens are told apart by keys, and have no features."""

    def vision_keys(self):
        return torch.tensor(self.tokens, dtype=self.dtype)


@functools.cache
def pipeline(text, keep=None, tokens=None):
    return Pipeline(Recipe.of(f"token_pruning={text}", keep=keep, tokens=tokens))


def outcome(text, evidence):
    """What a plan's only stage makes of the evidence, checked by the pipeline."""
    geometry = attrs.evolve(TINY, visual_tokens=evidence.visual)
    strategy = pipeline(text).recipe.strategies["token_pruning"].plugin
    (stage,) = strategy.token_pruning(geometry, Budget(keep=evidence.keep)).stages
    return pipeline(text).select(stage, evidence)
