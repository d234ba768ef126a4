"""Raters: the text tokens that SparseVLM asks, against a slow reference."""

from __future__ import annotations

import functools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tests.reference import sparsevlm as reference

from headwise import Layout, Pipeline, Recipe, StrategyError
from headwise.layout import IMAGE, PADDING, SYSTEM, TEXT

laws = settings(deadline=None, max_examples=25, derandomize=True)
KINDS = {"-": PADDING, "s": SYSTEM, "i": IMAGE, "t": TEXT}


class Given:
    """Embeddings (b, positions, d) of a layout, padding included."""

    def __init__(self, layout, values):
        self.layout, self.values = layout, values

    def visual(self, row):
        return self.values[row, self.layout.image(row)]

    def at(self, row, positions):
        return self.values[row, positions]


@functools.cache
def pipeline(text):
    return Pipeline(Recipe.of(text))


def asked(prompts, values, text="raters"):
    """Query positions of each row; the pipeline checks them."""
    layout = Layout(np.array([[KINDS[kind] for kind in prompt] for prompt in prompts], dtype=np.uint8))
    queries = pipeline(text).queries(layout, Given(layout, values))
    used = [row[row >= 0].tolist() for row in queries.positions]
    weights = [row[row > 0].tolist() for row in queries.weights]
    assert [[1 / len(row)] * len(row) for row in used] == [pytest.approx(row) for row in weights]
    return used


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


@laws
@given(
    seed=st.integers(0, 2**16),
    prompts=st.lists(st.sampled_from(["ssiiittttt", "iittiitttt", "-siiiitttt", "siiiiitt--"]), min_size=1, max_size=3),
    repeated=st.booleans(),
)
def test_raters_are_the_text_tokens_above_the_mean(seed, prompts, repeated):
    values = random(seed, len(prompts), 10, 6)
    if repeated:
        values[:, 8] = values[:, 7]
    wanted = []
    for row, prompt in enumerate(prompts):
        visual, text = ([place for place, kind in enumerate(prompt) if kind == wanted_kind] for wanted_kind in "it")
        chosen = reference.raters(values[row, visual].tolist(), values[row, text].tolist())
        wanted.append([text[place] for place in chosen])
    assert wanted == asked(prompts, values)


def test_one_word_that_all_visual_tokens_resemble_asks_alone():
    values = torch.zeros(1, 6, 4)
    values[0, [1, 2, 4], 0] = 3.0
    assert asked(["siittt"], values) == [[4]]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 300.0])
def test_words_that_are_all_alike_all_ask(value):
    visual = random(3, 1, 10, 6)
    visual[:, 4:] = value
    assert asked(["siiitttttt"], visual) == [[4, 5, 6, 7, 8, 9]]


@pytest.mark.parametrize("width", [3, 5, 16, 64])
def test_rounding_makes_no_rater_of_a_word_that_is_like_all_others(width):
    for words in range(2, 45):
        values = random(words, 1, 9 + words, width)
        values[:, 9:] = values[:, 9:10].clone()
        assert [list(range(9, 9 + words))] == asked(["i" * 9 + "t" * words], values)


@pytest.mark.parametrize(("prompt", "last"), [("ssiiii", 5), ("ssii--", 3), ("--ssss", 5), ("ssss--", 3)])
def test_prompts_without_text_after_the_image_are_asked_by_their_last_token(prompt, last):
    assert [[last]] == asked([prompt], random(1, 1, 6, 4))


def test_products_are_scaled_by_the_root_of_the_width():
    values = random(4, 1, 10, 16)
    quartered = values.clone()
    quartered[:, :4] /= 4  # a quarter of each visual token has a quarter of its products, and the root of 16 is 4
    scaled = asked(["siiitttttt"], values, "raters:scale=sqrt")
    assert asked(["siiitttttt"], quartered) == scaled
    assert asked(["siiitttttt"], values) != scaled


def test_half_precision_asks_as_single_precision_of_the_same_numbers():
    values = random(5, 2, 10, 64).half()
    prompts = ["siiitttttt"] * 2
    assert asked(prompts, values.float()) == asked(prompts, values)


def test_large_numbers_stay_numbers():
    assert 1 <= len(asked(["siiitttttt"], 1e4 * random(6, 1, 10, 64))[0]) <= 6


def test_another_scale_is_refused():
    with pytest.raises(StrategyError, match="scale"):
        Recipe.of("raters:scale=half")
