"""Query selection: the laws of the nine strategies, and a slow reference on unpadded prompts."""

from __future__ import annotations

import functools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tests.reference import query_selection as reference

from headwise import Layout, Pipeline, Recipe, StrategyError
from headwise.layout import IMAGE, PADDING, SYSTEM, TEXT
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True)
HEADS, VISUAL = 3, 4
NAMES = (
    "last_token",
    "last_n_tokens",
    "last_5_tokens",
    "text_tokens_only",
    "weighted_recent",
    "system_and_text",
    "attention_weighted",
    "max_attention_token",
    "adaptive_by_length",
)
KINDS = {"-": PADDING, "s": SYSTEM, "i": IMAGE, "t": TEXT}


@st.composite
def prompts(draw, shortest=0):
    """Kinds of a prompt whose VISUAL image tokens stand in one or two spans."""
    between = draw(st.integers(0, 3))
    after = draw(st.integers(max(0, shortest - between), 13))
    return "s" * draw(st.integers(0, 4)) + "ii" + "t" * between + "ii" + "t" * after


# a prompt that ends with an image asks with that image, so the rules over text are looked at with text at the end
batches = st.tuples(
    st.lists(prompts().filter(lambda kinds: kinds[-1] == "t" or "t" not in kinds), min_size=1, max_size=3),
    st.sampled_from(["left", "right"]),
    st.integers(0, 2**16),
)


@functools.cache
def pipeline(text):
    return Pipeline(Recipe.of(text))


def padded(kinds, side):
    width = max(map(len, kinds))
    return [row.rjust(width, "-") if side == "left" else row.ljust(width, "-") for row in kinds]


def layout_of(rows):
    return Layout(np.array([[KINDS[kind] for kind in row] for row in rows], dtype=np.uint8))


def causal_attention(kinds, seed):
    """Attention (h, tokens, v) of one prompt, nothing in front of the image seeing it; rows hold at most mass 1."""
    random = np.random.default_rng(seed)
    seen = random.random((HEADS, len(kinds), VISUAL)) / VISUAL
    image = [token for token, kind in enumerate(kinds) if kind == "i"]
    return seen * (np.arange(len(kinds))[:, None] >= np.array(image)[None, :])


def attend(text, rows, maps):
    """What a strategy's queries see in a padded batch: (b, h, v); the pipeline checks queries and weights."""
    queries = pipeline(text).queries(layout_of(rows))
    attention = np.zeros((len(rows), HEADS, queries.positions.shape[1], VISUAL), dtype=np.float32)
    for row, positions in enumerate(queries.positions):
        first = len(rows[row]) - len(rows[row].lstrip("-"))
        for slot in np.flatnonzero(positions >= 0):
            attention[row, :, slot] = maps[row][:, positions[slot] - first]
    return pipeline(text).attend(torch.from_numpy(attention), queries).numpy()


def attend_one(text, kinds, seen):
    return attend(text, [kinds], [seen])[0]


def expected(rule, kinds, seen, **options):
    weights = getattr(reference, rule)(kinds, seen.tolist(), **options)
    return sum(weight * seen[:, token] for token, weight in weights.items())


@pytest.mark.parametrize("name", NAMES)
@laws
@given(batches)
def test_padded_batches_equal_the_reference_on_unpadded_prompts(name, batch):
    kinds, side, seed = batch
    maps = [causal_attention(row, seed + place) for place, row in enumerate(kinds)]
    found = attend(name, padded(kinds, side), maps)
    for row, seen, attention in zip(kinds, maps, found, strict=True):
        np.testing.assert_allclose(attention, expected(name, row, seen), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "rule", "options"),
    [
        ("last_n_tokens:n=1", "last_n_tokens", {"n": 1}),
        ("last_n_tokens:n=9", "last_n_tokens", {"n": 9}),
        ("weighted_recent:window=8", "weighted_recent", {"window": 8}),
        ("attention_weighted:form=softmax", "attention_weighted", {"form": "softmax"}),
    ],
)
@laws
@given(prompts(shortest=1).filter(lambda kinds: kinds[-1] == "t"), st.integers(0, 2**16))
def test_options_equal_the_reference(text, rule, options, kinds, seed):
    seen = causal_attention(kinds, seed)
    np.testing.assert_allclose(attend_one(text, kinds, seen), expected(rule, kinds, seen, **options), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@laws
@given(st.lists(prompts(), min_size=2, max_size=4), st.integers(0, 2**16))
def test_a_row_sees_the_same_alone_as_in_any_batch(name, kinds, seed):
    maps = [causal_attention(row, seed + place) for place, row in enumerate(kinds)]
    together = attend(name, padded(kinds, "left"), maps)
    alone = [attend_one(name, row, seen) for row, seen in zip(kinds, maps, strict=True)]
    np.testing.assert_array_almost_equal_nulp(np.stack(alone), together, nulp=8)


@pytest.mark.parametrize("name", NAMES)
@laws
@given(prompts(), st.integers(0, 2**16), st.permutations(range(VISUAL)))
def test_what_is_seen_follows_the_visual_tokens(name, kinds, seed, order):
    seen = causal_attention(kinds, seed)
    np.testing.assert_allclose(
        attend_one(name, kinds, seen)[:, order], attend_one(name, kinds, seen[:, :, order]), atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
@laws
@given(prompts(), st.integers(0, 2**16))
def test_what_is_seen_holds_at_most_the_mass_of_one_query(name, kinds, seed):
    attention = attend_one(name, kinds, causal_attention(kinds, seed))
    assert (attention >= 0).all()
    assert (attention.sum(axis=-1) <= 1 + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
@laws
@given(st.integers(0, 3), st.integers(0, 2**16))
def test_all_strategies_coincide_with_one_text_token(name, system, seed):
    kinds = "s" * system + "iiiit"
    seen = causal_attention(kinds, seed)
    share = 1 / (1 + system) if name == "system_and_text" else 1  # system tokens see nothing, and count
    np.testing.assert_allclose(share * seen[:, -1], attend_one(name, kinds, seen), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [["ssiiii--", "ssssiiii"], ["--ssiiii", "ssssiiii"]])
def test_without_text_after_the_image_the_last_token_asks(name, rows):
    maps = [causal_attention(row.strip("-"), seed) for seed, row in enumerate(rows)]
    assert (attend("last_token", rows, maps) == attend(name, rows, maps)).all()
    assert pipeline(name).queries(layout_of(["ssiiii--", "ssssiiii"])).positions.tolist() == [[5], [7]]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_without_image_is_asked_by_its_last_token(name):
    assert pipeline(name).queries(layout_of(["-ssss", "ssss-"])).positions.tolist() == [[4], [3]]


@laws
@given(prompts(shortest=1).filter(lambda kinds: kinds[-1] == "t"), st.integers(0, 2**16))
def test_system_and_text_ranks_as_text_tokens_only_under_a_causal_mask(kinds, seed):
    seen = causal_attention(kinds, seed)
    text, system = kinds.count("t"), kinds.count("s")
    both, text_only = attend_one("system_and_text", kinds, seen), attend_one("text_tokens_only", kinds, seen)
    np.testing.assert_allclose(text / (text + system) * text_only, both, rtol=1e-5)


@pytest.mark.parametrize("text", ["last_n_tokens:n=1", "weighted_recent:window=1"])
@laws
@given(prompts(), st.integers(0, 2**16))
def test_a_window_of_one_is_the_last_token(text, kinds, seed):
    seen = causal_attention(kinds, seed)
    assert (attend_one("last_token", kinds, seen) == attend_one(text, kinds, seen)).all()


@pytest.mark.parametrize("form", ["strength", "softmax"])
def test_attention_weighted_is_even_over_the_text_when_nobody_looks(form):
    queries = pipeline(f"attention_weighted:form={form}").queries(layout_of(["ssiittt", "--siiii"]))
    weights = queries.weights(torch.zeros(2, HEADS, 5, VISUAL))
    assert queries.positions.tolist() == [[0, 1, 4, 5, 6], [6, -1, -1, -1, -1]]
    torch.testing.assert_close(torch.tensor([[0, 0, 1 / 3, 1 / 3, 1 / 3], [1, 0, 0, 0, 0]]), weights)


def test_attention_weighted_follows_the_strength_of_each_token():
    seen = causal_attention("siiiittt", 0)
    seen[:, -3:] = np.array([0.01, 0.02, 0.05])[None, :, None] * np.ones((HEADS, 1, VISUAL))
    expected = (0.01**2 + 0.02**2 + 0.05**2) / (0.01 + 0.02 + 0.05)
    np.testing.assert_allclose(attend_one("attention_weighted", "siiiittt", seen), expected, rtol=1e-5)


def test_the_latest_of_equally_attentive_tokens_asks():
    queries = pipeline("max_attention_token").queries(layout_of(["siitttt", "siit---"]))
    attention = torch.zeros(2, HEADS, 4, VISUAL)
    assert queries.weights(attention).tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]
    attention[0, 1, [0, 2], 1] = 0.25
    assert queries.weights(attention).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("length", "name"),
    [(0, "last_token"), (1, "text_tokens_only"), (3, "text_tokens_only"), (4, "weighted_recent"),
     (10, "weighted_recent"), (11, "attention_weighted"), (30, "attention_weighted")],
)  # fmt: skip
def test_adaptive_by_length_follows_its_dispatch_table(length, name):
    kinds = "ssiiii" + "t" * length
    seen = causal_attention(kinds, length)
    assert (attend_one(name, kinds, seen) == attend_one("adaptive_by_length", kinds, seen)).all()
    others = {"last_token", "text_tokens_only", "weighted_recent", "attention_weighted"} - {name}
    if length > 1:
        assert all((attend_one(other, kinds, seen) != attend_one(name, kinds, seen)).any() for other in others)


def test_adaptive_by_length_mixes_strategies_within_a_batch():
    kinds = ["ssiiii" + "t" * length for length in (0, 2, 7, 12)]
    maps = [causal_attention(row, seed) for seed, row in enumerate(kinds)]
    names = ("last_token", "text_tokens_only", "weighted_recent", "attention_weighted")
    expected = [attend_one(name, row, seen) for name, row, seen in zip(names, kinds, maps, strict=True)]
    assert (np.stack(expected) == attend("adaptive_by_length", padded(kinds, "left"), maps)).all()


def test_adaptive_by_length_takes_its_bounds_as_options():
    seen = causal_attention("ssiiiitttttt", 1)
    found = attend_one("adaptive_by_length:short=1,medium=5", "ssiiiitttttt", seen)
    assert (attend_one("attention_weighted", "ssiiiitttttt", seen) == found).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_taken_from_a_batch_are_asked_anew(name):
    kinds = ["ssiiii" + "t" * length for length in (13, 2, 7)]
    maps = [causal_attention(row, seed) for seed, row in enumerate(kinds)]
    rows = padded(kinds, "right")
    some = pipeline(name).queries(layout_of(rows).rows([2, 0]))
    width = some.positions.shape[1]
    assert some.positions.tolist() == pipeline(name).queries(layout_of([rows[2], rows[0]])).positions.tolist()
    assert width <= pipeline(name).queries(layout_of(rows)).positions.shape[1]
    together = attend(name, rows, maps)
    np.testing.assert_allclose(attend(name, [rows[2], rows[0]], [maps[2], maps[0]]), together[[2, 0]], atol=1e-7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("last_n_tokens:n=0", "'n' must be >= 1: 0"),
        ("weighted_recent:window=0", "'window' must be >= 1: 0"),
        ("attention_weighted:form=rank", "'form' must be in ('strength', 'softmax') (got 'rank')"),
        ("adaptive_by_length:short=11", "short=11 is above medium=10"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("last_5_tokens", "last_5_tokens:n=5"),
        ("last_n_tokens", "last_n_tokens:n=3"),
        ("attention_weighted", "attention_weighted:form=strength"),
        ("adaptive_by_length", "adaptive_by_length:short=3,medium=10"),
    ],
)
def test_canonical_text_spells_out_what_was_chosen(text, canonical):
    assert canonical == resolve(text).text
