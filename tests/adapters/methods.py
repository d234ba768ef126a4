"""Every shipped method of visual token pruning on the tiny LLaVA, and its choices as the slow reference takes them."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from tests.reference import masked_llava as reference
from torch import Tensor

import headwise
from headwise.head_weights import HeadWeights
from headwise.recipe import Recipe
from headwise.registry import installed

LAYERS, HEADS, VISUAL, IMAGE = 4, 4, 16, 4
"""Of the tiny LLaVA; ``IMAGE`` is the placeholder of a visual token."""

WEIGHTS = "WEIGHTS"
"""Stands for the file of head weights in a strategy text."""

BEYOND_RECIPES = {
    "calibrated": (f"calibrated:weights={WEIGHTS}",),
    "sparsevlm-clusters": ("sparsevlm:recycle=1,clusters=0.5,merged=end", "raters"),
}
"""Methods that no recipe names, by strategy texts."""

SHIPPED = [name for name, entries in installed("recipe").items() if any(e.dist.name == "headwise" for e in entries)]
METHODS = (*(name for name in SHIPPED if name != "vanilla"), *BEYOND_RECIPES)

BY_IMAGE = ("divprune", "pooling", "random", "tome", "uniform", "visionzip", "vispruner", "random-layer-2")
"""Methods that ask nobody but the image, so that they choose anew what they chose before, however long the answer."""


def write_weights(folder):
    """A file of head weights, some of them negative."""
    weights = np.random.default_rng(5).normal(0.5, 1.0, (LAYERS, HEADS))
    HeadWeights(model="tiny", weights=weights).save(folder / "weights.json")
    return folder / "weights.json"


def recipe_of(method: str, weights, **settings) -> Recipe:
    """The recipe of one of ``METHODS``."""
    if method in BEYOND_RECIPES:
        return Recipe.of(*(text.replace(WEIGHTS, str(weights)) for text in BEYOND_RECIPES[method]), **settings)
    return Recipe.of(name=method, **settings)


@attrs.define(eq=False)
class Choices:
    """What a recipe drops and merges in prompts with one image each, as positions in the whole conversation.

    ``entered``: visual positions of the present turn that are still there.
    """

    entered: list[int] = attrs.field(factory=list)
    gone: dict[int, list[int]] = attrs.field(factory=dict)
    merges: dict[int, tuple[Tensor, Tensor, Tensor]] = attrs.field(factory=dict)

    @classmethod
    def watching(cls, attached) -> Choices:
        """Overhears the selections of an attachment, merging weights included, which observers are not shown."""
        found, select = cls(), attached.pipeline.select

        def overheard(stage, evidence, read):
            kept = select(stage, evidence, read)
            found.take(stage.layer, kept)
            return kept

        attached.pipeline.select = overheard
        return found

    def image_at(self, start: int) -> None:
        """A turn begins whose image has its first token here."""
        self.entered = list(range(start, start + VISUAL))

    def take(self, layer: int, kept) -> None:
        """One stage's outcome."""
        (positions,) = kept.positions.tolist()
        left = [self.entered[position] for position in positions]
        self.gone.setdefault(layer, []).extend(p for p in self.entered if p not in left)
        if kept.weights is not None:
            new = torch.tensor(left), kept.weights[0], torch.tensor(self.entered)
            self.merges[layer] = joined(self.merges[layer], new) if layer in self.merges else new
        self.entered = left

    def logits(self, model, ids: Tensor, pixels: Tensor, *, compact: bool = False) -> Tensor:
        """Logits (1, n, vocabulary) of the slow reference under these choices."""
        stages = [(layer, torch.tensor(gone)) for layer, gone in sorted(self.gone.items())]
        return reference.masked_logits(model, ids, pixels, stages, compact=compact, merges=self.merges)

    def greedy(self, model, ids: Tensor, pixels: Tensor, steps: int) -> list[int]:
        """Greedy continuation by the slow reference, without placeholders."""
        start = ids.shape[1]
        for _ in range(steps):
            scores = self.logits(model, ids, pixels)[:, -1]
            scores[:, IMAGE] = float("-inf")
            ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
        return ids[0, start:].tolist()


def joined(one, other):
    """The merges of two turns before the same layer."""
    places, weights, image = zip(one, other, strict=True)
    return torch.cat(places), torch.block_diag(*weights), torch.cat(image)


@attrs.frozen(eq=False)
class Kept:
    """An observer: (layer, row) -> visual tokens left of the row, of the last forward that pruned."""

    found: dict[tuple[int, int], list[int]] = attrs.field(factory=dict)

    @headwise.hookimpl
    def selected(self, selection) -> None:
        for row, kept in zip(selection.rows, selection.kept.tolist(), strict=True):
            self.found[selection.layer, row] = kept

    def of(self, row: int) -> dict[int, list[int]]:
        """Layer -> visual tokens left of one row."""
        return {layer: kept for (layer, number), kept in self.found.items() if number == row}


def held(cache) -> list[int]:
    """Tokens each layer of a KV cache holds."""
    return [layer.keys.shape[2] for layer in cache.layers]


def marks(model):
    """What an attachment might leave behind: classes, attributes, configs and hooks of every module."""
    return [
        (
            name,
            type(part),
            set(vars(part)),
            id(getattr(part, "config", None)),
            len(part._forward_hooks),
            len(part._forward_pre_hooks),
            id(part.forward) if "forward" in vars(part) else None,
        )
        for name, part in model.named_modules()
    ]
