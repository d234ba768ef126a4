"""Raters: the text tokens that SparseVLM asks, against a slow reference."""

from __future__ import annotations

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


def asked(prompts, values, text="raters"):
    """Query positions of each row; the pipeline checks them."""
    layout = Layout(np.array([[KINDS[kind] for kind in prompt] for prompt in prompts], dtype=np.uint8))
    queries = Pipeline(Recipe.of(text)).queries(layout, Given(layout, values))
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
    assert [[4]] == asked(["siittt"], values)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 300.0])
def test_words_that_are_all_alike_all_ask(value):
    visual = random(3, 1, 10, 6)
    visual[:, 4:] = value
    assert [[4, 5, 6, 7, 8, 9]] == asked(["siiitttttt"], visual)


@pytest.mark.parametrize(("prompt", "last"), [("ssiiii", 5), ("ssii--", 3), ("--ssss", 5), ("ssss--", 3)])
def test_prompts_without_text_after_the_image_are_asked_by_their_last_token(prompt, last):
    assert [[last]] == asked([prompt], random(1, 1, 6, 4))


def test_a_scale_makes_more_words_raters_where_products_are_large():
    values = 4 * random(0, 1, 40, 256)
    prompt = "s" + "i" * 19 + "t" * 20
    published, scaled = (asked([prompt], values, text)[0] for text in ("raters", "raters:scale=sqrt"))
    assert len(published) < len(scaled) < 20


def test_products_are_scaled_by_the_root_of_the_width():
    values = random(4, 1, 10, 16)
    halved = values.clone()
    halved[:, :4] /= 4  # a fourth of each visual token is what the root of 16 makes of its products
    assert asked(["siiitttttt"], halved) == asked(["siiitttttt"], values, "raters:scale=sqrt")


def test_half_precision_asks_as_single_precision_of_the_same_numbers():
    values = random(5, 2, 10, 64).half()
    prompts = ["siiitttttt"] * 2
    assert asked(prompts, values.float()) == asked(prompts, values)


def test_large_numbers_stay_numbers():
    assert 1 <= len(asked(["siiitttttt"], 1e4 * random(6, 1, 10, 64))[0]) <= 6


def test_another_scale_is_refused():
    with pytest.raises(StrategyError, match="scale"):
        Recipe.of("raters:scale=half")
