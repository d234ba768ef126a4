"""Scores texts and continuations by a language model whose cache evicts entries by a recipe.

A whole text is read as by ``headwise ppl``. A continuation is scored as if the model were generating it: the context is
read at once, like a prompt, and then one token after the other. Under a window plan, the result does not depend on how
many tokens are read at once, so there all tokens of a batch of rows are read together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.attachment import adapter_for, attach
from headwise.eviction import WindowPlan
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_adapters.eviction.streaming import CHUNK, read_plan
from headwise_lab.engines.generating import Wish, answers, dictated
from headwise_lab.models.load import LoadedLm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its continuation, at least one each."""


class Reader:
    """A language model under one recipe. Making it raises what planning raises."""

    def __init__(self, loaded: LoadedLm, recipe: Recipe) -> None:
        self.loaded, self.recipe = loaded, recipe
        self._pipeline = Pipeline(recipe)
        self._pipeline.plan(loaded.geometry)
        self.plan = self._pipeline.eviction(loaded.geometry)

    def text(self, ids: Sequence[int], scored: int) -> float:
        """The summed loss in nats of the last ``scored`` tokens of a text, each predicted from those before it."""
        tokens = torch.tensor(ids, dtype=torch.int64)
        return float(read_plan(self.loaded.model, self._pipeline, self.plan, tokens).nll[-scored:].sum())

    def continuations(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """For every pair the summed loss of the continuation in nats, and whether it is the greedy answer."""
        if isinstance(self.plan, WindowPlan):
            found = dict(enumerate(self._at_once(pairs)))
        else:  # a context of one token is read as a decoding step; padded beside longer ones, it would be a prompt
            lone = [row for row, (context, _) in enumerate(pairs) if len(context) == 1]
            found = {}
            for rows in (lone, sorted(set(range(len(pairs))) - set(lone))):
                found |= dict(zip(rows, self._one_by_one([pairs[row] for row in rows]), strict=True))
        return [(float(nll.sum()), right) for nll, right in (found[row] for row in range(len(pairs)))]

    def answers(self, prompts: Sequence[Sequence[int]], wish: Wish) -> list[str]:
        """The texts that the model generates after prompts of token ids."""
        with attach(self.loaded.model, self.recipe):
            return answers(self.loaded.model, self.loaded.tokenizer, self._padded(prompts), wish)

    def _one_by_one(self, pairs: Sequence[Pair]) -> list[tuple[Tensor, bool]]:
        if not pairs:
            return []
        contexts, rows = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        with attach(self.loaded.model, self.recipe):
            return dictated(self.loaded.model, self.loaded.tokenizer, self._padded(contexts), rows)

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Token ids with padding on the left, and their attention mask."""
        most, pad = max(map(len, rows)), self.loaded.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (most - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": ids.to(self.loaded.device), "attention_mask": mask.to(self.loaded.device)}

    def _at_once(self, pairs: Sequence[Pair]) -> list[tuple[Tensor, bool]]:
        """Read rows padded on the right: no scored token attends to the padding, which comes after all of them."""
        rows = [[*context, *rest] for context, rest in pairs]
        most, pad = max(map(len, rows)), self.loaded.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (most - len(row)) for row in rows], device=self.loaded.device)
        nll, right = self._read(ids)
        spans = [slice(len(context) - 1, len(row) - 1) for (context, _), row in zip(pairs, rows, strict=True)]
        return [(nll[row, span], bool(right[row, span].all())) for row, span in enumerate(spans)]

    @torch.inference_mode()
    def _read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """For tokens 1..n-1 of rows (b, n): losses in nats, float64, and right predictions, bool, both (b, n - 1)."""
        model: PreTrainedModel = self.loaded.model
        cache = adapter_for(model).cache(self._pipeline, self.plan)
        nll: list[Tensor] = []
        right: list[Tensor] = []
        for start in range(0, ids.shape[1] - 1, CHUNK):
            wanted = ids[:, start + 1 : start + 1 + CHUNK]
            out = model(input_ids=ids[:, start : start + wanted.shape[1]], past_key_values=cache, use_cache=True)
            logits = out.logits.float()
            nll.append(F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").double().cpu())
            right.append((logits.argmax(dim=-1) == wanted).cpu())
        return torch.cat(nll, dim=1), torch.cat(right, dim=1)
