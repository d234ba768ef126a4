"""Prompts of the passkey test: a five-digit number is hidden in unrelated text and asked for at the end.

After Mohtashami and Jaggi 2023 (Landmark Attention). Every prompt has exactly the wanted number of tokens.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import attrs
import torch
from torch import Tensor

from headwise.errors import DataError
from headwise_lab.texts.tokens import beginning, content_of

TASK = "There is an important piece of information hidden inside a lot of irrelevant text. Find it and memorize it."
PASSKEY = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "\n\nRemember: The pass key is"  # after `Question: ... Answer: ...` small models start to chat
GRASS = "grass"
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@attrs.frozen(eq=False)
class Prompt:
    """One prompt: its token ids (length,), and the passkey as text and as the tokens (k,) of the right answer.

    ``depth``: at 0 the passkey stands right after the task, at 1 right before the question. Names differ.
    """

    name: str
    length: int
    depth: float
    key: str
    ids: Tensor
    answer: Tensor


class PasskeyPrompts:
    """Makes prompts for one tokenizer; ``filler`` is ``grass`` (five sentences over and over) or a text."""

    def __init__(self, tokenizer: Any, filler: str = GRASS, seed: int = 0) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        self.filler, content = (GRASS, FILLER) if filler == GRASS else content_of(filler)
        self._sentences = [ids for text in _sentences(content) if (ids := self._encoded(f" {text}"))]
        if not self._sentences:
            raise DataError(f"filler {filler} holds no sentence; give a text or {GRASS}")
        self._start = [*beginning(tokenizer), *self._encoded(TASK)]
        self._question = self._encoded(QUESTION)

    def prompts(self, lengths: Sequence[int], depths: int, repeats: int) -> list[Prompt]:
        """``repeats`` prompts for every length and each of ``depths`` depths, evenly from 0 to 1."""
        places = [0.5] if depths == 1 else [i / (depths - 1) for i in range(depths)]
        return [
            self._prompt(length, depth, repeat) for length in lengths for depth in places for repeat in range(repeats)
        ]

    def _prompt(self, length: int, depth: float, repeat: int) -> Prompt:
        name = f"{length}-{depth:.3f}-{repeat}"
        draw = random.Random(f"{self._seed}-{name}")
        key = str(draw.randrange(10_000, 100_000))
        passkey = self._encoded(PASSKEY.format(key=key))
        fixed = len(self._start) + len(passkey) + len(self._question)
        if fixed > length:
            raise DataError(
                f"{length} tokens are too few for task, passkey and question, which take {fixed}; give more"
            )
        filler, places = self._filler(length - fixed, draw)
        place = _nearest(places, depth * len(filler))
        ids = [*self._start, *filler[:place], *passkey, *filler[place:], *self._question]
        return Prompt(name, length, depth, key, torch.tensor(ids), torch.tensor(self._answer(key)))

    def _filler(self, count: int, draw: random.Random) -> tuple[list[int], list[int]]:
        """``count`` tokens of filler that end with a sentence, and the positions between its sentences."""
        chosen: list[list[int]] = []
        number, total = draw.randrange(len(self._sentences)), 0
        while total < count:
            chosen.append(self._sentences[number % len(self._sentences)])
            number, total = number + 1, total + len(chosen[-1])
        surplus = total - count
        ends = (end - surplus for end in accumulate(map(len, chosen)))
        return [token for ids in chosen for token in ids][surplus:], [0, *(end for end in ends if end > 0)]

    def _answer(self, key: str) -> list[int]:
        """The passkey's tokens after the question. The space between them belongs to the passkey's first token."""
        whole = self._encoded(f"{QUESTION} {key}")
        before = len(self._question)
        return whole[before:] if whole[:before] == self._question else self._encoded(f" {key}")

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def _sentences(content: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"(?<=[.!?;:])\s+", content) if part.strip()]


def _nearest(places: Sequence[int], wanted: float) -> int:
    """The position nearest to ``wanted``; of two equally near, the earlier."""
    after = bisect_left(places, wanted)
    return min(places[max(0, after - 1) : after + 1], key=lambda place: abs(place - wanted))
