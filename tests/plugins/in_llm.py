"""What the tests of methods share that prune inside the language model: scored evidence, plans, what a stage keeps."""

from __future__ import annotations

import functools

import attrs
import torch
from tests.plugins.pre_llm import TINY

from headwise import Pipeline, Recipe, shape

LLAVA = shape("llava-1.5-7b")


@attrs.frozen
class Rows:
    """Evidence of rows with the given scores (b, v); ``kinds``: whose attention was asked for."""

    scores: torch.Tensor
    keep: int
    kinds: list = attrs.field(factory=list)

    @property
    def batch(self):
        return self.scores.shape[0]

    @property
    def visual(self):
        return self.scores.shape[1]

    def attention(self, kind="attention"):
        self.kinds.append(kind)
        return self.scores


@functools.cache
def pipeline(text, **budget):
    return Pipeline(Recipe.of(text, **budget))


def planned(text, geometry=LLAVA, **budget):
    return pipeline(text, **budget).plan(geometry)


@functools.cache
def first_stage(text):
    return pipeline(text, keep=4).plan(TINY).stages[0]


def kept(text, evidence):
    """Places that the first stage of a method keeps of each row, checked by the pipeline."""
    return pipeline(text, keep=4).select(first_stage(text), evidence).positions.tolist()
