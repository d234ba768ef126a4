"""Budget arithmetic against the published figures and against counting layer by layer."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headwise.budget import Budget, kv_bytes, layer_flops, prefill_flops, processed_per_layer
from headwise.errors import BudgetError
from headwise.geometry import SHAPES, Geometry, shape

LLAVA_7B, LLAVA_13B = shape("llava-1.5-7b"), shape("llava-1.5-13b")
laws = settings(deadline=None, max_examples=50, derandomize=True)


@pytest.mark.parametrize(
    ("geometry", "layer", "kept", "processed"),
    [
        (LLAVA_7B, 2, (166, 98, 30), (191.63, 127.88, 64.13)),
        (LLAVA_7B, 3, (152, 82, 11), (191.75, 128.31, 63.97)),
        (LLAVA_13B, 2, (172, 104, 37), (192.2, 127.6, 63.95)),
        (LLAVA_13B, 3, (161, 92, 22), (192.13, 128.3, 63.55)),
    ],
)
def test_one_stage_keeps_what_the_published_tables_keep(geometry, layer, kept, processed):
    """FinePruner's table of tokens kept for an average of 192, 128 and 64 (specs/visual_pruning.md, 0.1)."""
    found = [Budget(tokens=tokens).one_stage(geometry, layer) for tokens in (192, 128, 64)]
    assert kept == tuple(found)
    averages = [sum(processed_per_layer(geometry, [(layer, keep)])) / geometry.layers for keep in found]
    assert processed == pytest.approx(averages, abs=0.006)


@laws
@given(
    name=st.sampled_from(sorted(name for name, known in SHAPES.items() if known.visual_tokens)),
    layer=st.integers(0, 11),
    share=st.floats(0.01, 1.0),
)
def test_one_stage_meets_every_feasible_budget_within_a_token_of_one_layer(name, layer, share):
    geometry = shape(name)
    tokens = share * geometry.visual_tokens
    smallest = (layer * geometry.visual_tokens + geometry.layers - layer) / geometry.layers
    assume(tokens >= smallest)
    keep = Budget(tokens=tokens).one_stage(geometry, layer)
    average = sum(processed_per_layer(geometry, [(layer, keep)])) / geometry.layers
    assert abs(average - tokens) <= 0.5 * (geometry.layers - layer) / geometry.layers + 1e-9


def test_budget_below_the_feasible_bound_names_the_smallest_feasible_one():
    with pytest.raises(BudgetError) as caught:
        Budget(tokens=36).one_stage(LLAVA_7B, 2)
    assert str(caught.value) == (
        "tokens=36 cannot be met when pruning before layer 2 of 32: the layers in front of it process 576 tokens each;"
        " the smallest feasible budget is tokens=36.94"
    )


def test_the_smallest_feasible_budget_that_is_named_is_feasible():
    assert Budget(tokens=36.94).one_stage(LLAVA_7B, 2) == 1


@pytest.mark.parametrize(
    ("given", "layer", "message"),
    [
        ({"tokens": 577}, 2, "tokens=577 is more than the 576 visual tokens of llava-1.5-7b; give at most 576"),
        ({"keep": 577}, 2, "keep=577 is more than the 576 visual tokens of llava-1.5-7b; give at most 576"),
        ({}, 2, "pruning needs a budget; give --tokens (average processed per layer) or --keep"),
        ({"keep": 16}, 32, "layer=32 is not in 0..31, the decoder layers of llava-1.5-7b"),
    ],
)
def test_one_stage_says_why_it_refuses(given, layer, message):
    with pytest.raises(BudgetError) as caught:
        Budget(**given).one_stage(LLAVA_7B, layer)
    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": 64, "keep": 16}, "both tokens=64 and keep=16 are given; a run has one budget"),
        ({"tokens": 0}, "an average of 0 tokens is not a budget; give a number above 0"),
        ({"tokens": float("nan")}, "an average of nan tokens is not a budget; give a number above 0"),
        ({"keep": 0}, "keep=0 leaves no visual token; keep at least 1"),
    ],
)
def test_budget_is_one_positive_number(given, message):
    with pytest.raises(BudgetError) as caught:
        Budget(**given)
    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("given", "text"), [({"tokens": 64.5}, "tokens=64.5"), ({"keep": 16}, "keep=16"), ({}, "everything")]
)
def test_budget_is_printed_as_it_was_given(given, text):
    assert text == Budget(**given).text


def test_layers_process_what_the_last_stage_in_front_of_them_left():
    stages = [(8, 288), (16, 144), (24, 72)]
    assert processed_per_layer(LLAVA_7B, stages) == (576,) * 8 + (288,) * 8 + (144,) * 8 + (72,) * 8


@pytest.mark.parametrize(
    ("stages", "formula", "published"),
    [
        ([], "gated", 3.817e12),
        ([], "fastv", 2.986e12),
        ([(8, 288), (16, 144), (24, 72)], "gated", 1.777e12),
    ],
    ids=["PDrop's vanilla", "FastV's vanilla", "PDrop"],
)
def test_prefill_flops_are_the_published_ones(stages, formula, published):
    found = prefill_flops(LLAVA_7B, processed_per_layer(LLAVA_7B, stages), 0, formula)
    assert published == pytest.approx(found, abs=0.0005e12)


@pytest.mark.parametrize(("tokens", "ratio"), [(192, 0.328), (128, 0.219), (64, 0.110)])
def test_flops_ratio_of_one_stage_after_two_layers_is_the_published_one(tokens, ratio):
    keep = Budget(tokens=tokens).one_stage(LLAVA_7B, 2)
    pruned = prefill_flops(LLAVA_7B, processed_per_layer(LLAVA_7B, [(2, keep)]))
    assert ratio == pytest.approx(pruned / prefill_flops(LLAVA_7B, [576] * 32), abs=5e-4)


def test_flops_of_a_small_layer_are_the_multiply_adds_of_its_matrices():
    """Counted matrix by matrix: q, k, v, o, scores, mixing, and three (or two) feed-forward matrices."""
    small = Geometry(
        name="small", layers=1, heads=4, kv_heads=2, head_dim=8, hidden=24, intermediate=40, visual_tokens=5
    )
    n, d, q, kv, m = 5, 24, 4 * 8, 2 * 8, 40
    attention = n * d * q + 2 * n * d * kv + n * q * d + 2 * n * n * q
    assert attention + 3 * n * d * m == layer_flops(small, n, "gated")
    assert attention + 2 * n * d * m == layer_flops(small, n, "fastv")


def test_text_tokens_are_computed_in_every_layer():
    assert prefill_flops(LLAVA_7B, [100] * 32) == prefill_flops(LLAVA_7B, [36] * 32, text=64)


def test_unknown_flop_formula_names_the_known_ones():
    with pytest.raises(BudgetError, match=r"^unknown FLOP formula 'exact'; known formulas: gated, fastv$"):
        layer_flops(LLAVA_7B, 1, "exact")


def test_kv_cache_of_llava_7b_takes_half_a_mebibyte_per_token():
    assert kv_bytes(LLAVA_7B, [576] * 32) == 576 * 2**19
    assert kv_bytes(LLAVA_7B, [576] * 32, text=64) == 640 * 2**19
    assert kv_bytes(LLAVA_7B, [576] * 32, itemsize=4) == 576 * 2**20


@laws
@given(counts=st.lists(st.integers(0, 600), min_size=1, max_size=8), text=st.integers(0, 100))
def test_kv_bytes_are_those_of_real_arrays(counts, text):
    import numpy as np

    small = Geometry(
        name="small", layers=len(counts), heads=4, kv_heads=2, head_dim=8, hidden=32, intermediate=40, visual_tokens=600
    )
    arrays = [np.empty((2, 2, count + text, 8), dtype=np.float16) for count in counts]
    assert sum(array.nbytes for array in arrays) == kv_bytes(small, counts, text)
