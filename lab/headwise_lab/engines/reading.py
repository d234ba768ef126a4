"""What a language model makes of texts and continuations while its cache forgets as a recipe says.

A whole text is read as ``headwise ppl`` reads it. A continuation is scored as if the model were writing it: the context
is read at once, as a prompt is, and then one token after the other. Under a window plan it makes no difference how many
tokens come at once, so there a batch of rows is read in one go.
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
    """A language model under one recipe; raises what planning raises as soon as it is made."""

    def __init__(self, loaded: LoadedLm, recipe: Recipe) -> None:
        self.loaded, self.recipe = loaded, recipe
        self._pipeline = Pipeline(recipe)
        self._pipeline.plan(loaded.geometry)
        self.plan = self._pipeline.eviction(loaded.geometry)

    def text(self, ids: Sequence[int], scored: int) -> float:
        """Nats of the last ``scored`` tokens of a text, each given all before it."""
        told = torch.tensor(ids, dtype=torch.int64)
        return float(read_plan(self.loaded.model, self._pipeline, self.plan, told).nll[-scored:].sum())

    def continuations(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Of every pair, the nats of the continuation, and whether greedy answers would be it."""
        if isinstance(self.plan, WindowPlan):
            found = dict(enumerate(self._at_once(pairs)))
        else:  # a lone token is read as a step, not as a prompt, unless it is padded to the length of one
            lone = [row for row, (context, _) in enumerate(pairs) if len(context) == 1]
            found = {}
            for rows in (lone, sorted(set(range(len(pairs))) - set(lone))):
                found |= dict(zip(rows, self._one_by_one([pairs[row] for row in rows]), strict=True))
        return [(float(nll.sum()), right) for nll, right in (found[row] for row in range(len(pairs)))]

    def answers(self, prompts: Sequence[Sequence[int]], wish: Wish) -> list[str]:
        """What the model goes on to write after token ids."""
        with attach(self.loaded.model, self.recipe):
            return answers(self.loaded.model, self.loaded.tokenizer, self._padded(prompts), wish)

    def _one_by_one(self, pairs: Sequence[Pair]) -> list[tuple[Tensor, bool]]:
        if not pairs:
            return []
        contexts, rows = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        with attach(self.loaded.model, self.recipe):
            return dictated(self.loaded.model, self.loaded.tokenizer, self._padded(contexts), rows)

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Token ids with padding on the left, and the mask that says so."""
        most, pad = max(map(len, rows)), self.loaded.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (most - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": ids.to(self.loaded.device), "attention_mask": mask.to(self.loaded.device)}

    def _at_once(self, pairs: Sequence[Pair]) -> list[tuple[Tensor, bool]]:
        """Rows begin together and are filled up behind their end, where nothing that counts can see it."""
        rows = [[*context, *rest] for context, rest in pairs]
        most, pad = max(map(len, rows)), self.loaded.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (most - len(row)) for row in rows], device=self.loaded.device)
        nll, right = self._read(ids)
        spans = [slice(len(context) - 1, len(row) - 1) for (context, _), row in zip(pairs, rows, strict=True)]
        return [(nll[row, span], bool(right[row, span].all())) for row, span in enumerate(spans)]

    @torch.inference_mode()
    def _read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Nats float64 and hits bool of tokens 1..n-1 of rows (b, n), both (b, n - 1)."""
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
