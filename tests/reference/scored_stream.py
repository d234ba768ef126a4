"""Score-based eviction, slowly: one token at a time, one head at a time, keys cached before rotary embeddings.

Works on the weights alone: no attention, cache or rotary code of transformers or headwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.reference.streaming_llm import Stream, turned
from torch import Tensor


class Head:
    """What one KV head holds: tokens, raw keys, values, received attention (query heads of the group, n)."""

    def __init__(self, shared: int) -> None:
        self.tokens: list[int] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.accumulated_attention: list[Tensor] = []
        self.last: Tensor | None = None  # attention of the last query, (query heads of the group, n)
        self.shared = shared


Score = Callable[[Head], Tensor]


class ScoredStream(Stream):
    """Reads a prompt in full, evicts, and then evicts after every ``every``-th token.

    ``close``: kept keys are renumbered 0, 1, 2, ... after each eviction, and following tokens go on from there.
    """

    def __init__(
        self, model, score: Score, *, keep: Callable[[int], int], prompt: int, every: int, close=False
    ) -> None:
        super().__init__(model, 0, 10**9)
        self.score, self.keep, self.prompt, self.every, self.close = score, keep, prompt, every, close
        self.heads: dict[int, list[Head]] = {}
        self.places: dict[tuple[int, int], list[int]] = {}  # where keys stand, by layer and head
        self.next_place: dict[tuple[int, int], int] = {}
        self.seen: dict[int, int] = {}

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, base: float, size: int) -> Tensor:
        shared = query.shape[0] // key.shape[0]
        heads = self.heads.setdefault(layer, [Head(shared) for _ in range(key.shape[0])])
        token = self.seen.get(layer, 0)
        self.seen[layer] = token + 1
        outputs = []
        for number, head in enumerate(heads):
            where = (layer, number)
            place = self.next_place.get(where, 0)
            self.next_place[where] = place + 1
            head.tokens.append(token)
            head.keys.append(key[number])
            head.values.append(value[number])
            head.accumulated_attention.append(torch.zeros(shared))
            places = self.places.setdefault(where, [])
            places.append(place)
            placed = turned(torch.stack(head.keys), torch.tensor(places), base, size)
            weights = []
            for member in range(shared):
                asked = turned(query[number * shared + member][None], torch.tensor([place]), base, size)[0]
                weights.append((placed @ asked / query.shape[1] ** 0.5).softmax(dim=-1))
                outputs.append(weights[-1] @ torch.stack(head.values))
            head.last = torch.stack(weights)
            for entry in range(len(head.tokens)):
                head.accumulated_attention[entry] = head.accumulated_attention[entry] + head.last[:, entry]
        count = token + 1
        if count == self.prompt or (count > self.prompt and self.every and (count - self.prompt) % self.every == 0):
            for number, head in enumerate(heads):
                self._evict((layer, number), head, count)
        return torch.cat(outputs)

    def _evict(self, where: tuple[int, int], head: Head, count: int) -> None:
        keep = self.keep(count)
        if len(head.tokens) <= keep:
            return
        scores = self.score(head).tolist()
        ranked = sorted(range(len(scores)), key=lambda entry: (-scores[entry], entry))
        stay = sorted(ranked[:keep])
        for name in ("tokens", "keys", "values", "accumulated_attention"):
            setattr(head, name, [getattr(head, name)[entry] for entry in stay])
        self.places[where] = [self.places[where][entry] for entry in stay]
        if self.close:
            self.places[where] = list(range(len(stay)))
            self.next_place[where] = len(stay)
