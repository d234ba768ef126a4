"""Which tokens each query strategy asks and with what weight, by hand on one prompt (visual pruning 3.2, 1.2).

The prompt is padding, two system tokens, three visual ones, then text; weights follow from attention that is written
down here: A[query, visual], the same in both heads.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headwise import Pipeline, Recipe
from headwise.layout import IMAGE, PADDING, SYSTEM, TEXT, Layout


def prompt(text):
    return Layout(np.array([[PADDING] + [SYSTEM] * 2 + [IMAGE] * 3 + [TEXT] * text], dtype=np.uint8))


LOOKS = {6: (0.1, 0.2, 0.1), 7: (0.3, 0.1, 0.2), 8: (0.0, 0.1, 0.1), 9: (0.2, 0.2, 0.2)}
"""Attention of text tokens to the image, by position; whoever is not named, as the system prompt, sees nothing."""


def asked(name, text=4, looks=LOOKS, embeddings=None):
    """Position -> weight, of those that have any."""
    pipeline = Pipeline(Recipe.of(f"query_selection={name}"))
    queries = pipeline.queries(prompt(text), embeddings)
    positions = queries.positions[0]
    seen = [looks.get(int(position), (0.0, 0.0, 0.0)) for position in positions]
    rows = torch.tensor([seen, seen])[None]
    weights = queries.weights(rows)[0].tolist() if callable(queries.weights) else queries.weights[0].tolist()
    return {int(p): pytest.approx(w, abs=1e-6) for p, w in zip(positions, weights, strict=True) if w}


STRENGTH = {6: 0.4, 7: 0.6, 8: 0.2, 9: 0.6}  # sums of LOOKS; both heads double them all

BY_HAND = [
    ("last_token", {9: 1}),
    ("last_n_tokens", {7: 1 / 3, 8: 1 / 3, 9: 1 / 3}),
    ("last_n_tokens:n=2", {8: 1 / 2, 9: 1 / 2}),
    ("last_n_tokens:n=9", {6: 1 / 4, 7: 1 / 4, 8: 1 / 4, 9: 1 / 4}),
    ("last_5_tokens", {6: 1 / 4, 7: 1 / 4, 8: 1 / 4, 9: 1 / 4}),
    ("text_tokens_only", {6: 1 / 4, 7: 1 / 4, 8: 1 / 4, 9: 1 / 4}),
    ("weighted_recent:window=3", {7: 2 / 9, 8: 3 / 9, 9: 4 / 9}),  # .5 .75 1 of 2.25
    ("weighted_recent:window=1", {9: 1}),
    ("system_and_text", dict.fromkeys((1, 2, 6, 7, 8, 9), 1 / 6)),
    ("attention_weighted", {p: s / 1.8 for p, s in STRENGTH.items()}),
    ("max_attention_token", {9: 1}),  # of equal ones the latest
    ("adaptive_by_length:short=4", {6: 1 / 4, 7: 1 / 4, 8: 1 / 4, 9: 1 / 4}),
    ("adaptive_by_length", {6: 0.5 / 3, 7: 2 / 3 / 3, 8: 5 / 6 / 3, 9: 1 / 3}),  # 4 of up to 10: the recent ones
    ("adaptive_by_length:short=1,medium=3", {p: s / 1.8 for p, s in STRENGTH.items()}),
]


@pytest.mark.parametrize(("name", "expected"), BY_HAND)
def test_who_is_asked_by_hand(name, expected):
    assert asked(name) == expected


def test_attention_weighted_by_softmax_gives_the_blind_a_share():
    weights = {p: math.exp(2 * STRENGTH.get(p, 0.0)) for p in (1, 2, 6, 7, 8, 9)}
    assert asked("attention_weighted:form=softmax") == {p: w / sum(weights.values()) for p, w in weights.items()}


@pytest.mark.parametrize("name", [name for name, _ in BY_HAND])
def test_without_text_the_last_token_is_asked(name):
    assert asked(name, text=0, looks={5: (0.1, 0.1, 0.1)}) == {5: 1}


@pytest.mark.parametrize("length", range(1, 16))
def test_length_decides_who_decides(length):
    """None: last; up to 3: text; up to 10: recent; more: by attention."""
    looks = {6 + i: (0.01 * (i + 1), 0.02, 0.0) for i in range(length)}
    rule = "text_tokens_only" if length <= 3 else "weighted_recent" if length <= 10 else "attention_weighted"
    assert asked("adaptive_by_length", length, looks).keys() == asked(rule, length, looks).keys()


class Embedded:
    """Visual embeddings, and those of the text tokens 6, 7, ..."""

    def __init__(self, visual, words):
        self._visual, self._words = np.asarray(visual), np.asarray(words)

    def visual(self, row):
        return torch.tensor(self._visual).float()

    def at(self, row, positions):
        return torch.tensor(self._words[positions - 6]).float()


def test_raters_by_hand():
    """Each visual token spreads 1 over the text by softmax: (1 0), (0 1), (1 0) prefer words 0, 1, 0 of three."""
    embeddings = Embedded([(1.0, 0), (0, 1), (1, 0)], [(3.0, 0), (0, 3), (0, 0)])
    # e^3 = 20.09 of 22.09: shares (.909 .045 .045), (.045 .909 .045), (.909 ...); means .621, .333 + .0003?, .045
    first, other = math.e**3 / (math.e**3 + 2), 1 / (math.e**3 + 2)
    means = [(2 * first + other) / 3, (first + 2 * other) / 3, other]
    chosen = {6 + i: 1 for i, mean in enumerate(means) if mean > 1 / 3}
    assert chosen.keys() == {6}
    assert asked("raters", text=3, embeddings=embeddings) == chosen


def test_raters_that_are_all_alike_are_all_asked():
    embeddings = Embedded(np.ones((3, 2)), np.ones((4, 2)))
    assert asked("raters", embeddings=embeddings) == dict.fromkeys((6, 7, 8, 9), 1 / 4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("option", "scale"), [("", 1.0), (":scale=sqrt", 4.0)])
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_raters_are_the_words_above_the_mean_share(seed, option, scale, size):
    """Spec 1.2: M = E_v E_t^T, softmax over text, mean over visual tokens, above the mean; however close to it."""
    rng = np.random.default_rng(seed)
    visual, words = ((size * rng.normal(size=(n, 16))).astype(np.float32).astype(np.float64) for n in (3, 9))
    share = np.exp(visual @ words.T / scale)
    mean = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    raters = [6 + i for i in range(9) if mean[i] > mean.mean()]
    expected = dict.fromkeys(raters, 1 / len(raters))
    assert asked(f"raters{option}", text=9, embeddings=Embedded(visual, words)) == expected
