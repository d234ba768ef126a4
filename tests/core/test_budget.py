"""Budget arithmetic against the published figures and against counting layer by layer."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headwise.budget import Budget, kv_bytes, layer_flops, prefill_flops, processed_per_layer
from headwise.errors import BudgetError
from headwise.families import shape, shapes
from headwise.geometry import Geometry

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
    name=st.sampled_from(sorted(name for name in shapes() if shape(name).visual_tokens)),
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


def schedule(*anchors):
    """Counts after each stage, between tuples of counts that do not fall: x -> counts."""

    def counts(x):
        step = min(int(x * (len(anchors) - 1)), len(anchors) - 2)
        part = x * (len(anchors) - 1) - step
        return [round(low + part * (high - low)) for low, high in zip(*anchors[step : step + 2], strict=True)]

    return counts


def average(geometry, layers, kept):
    return sum(processed_per_layer(geometry, list(zip(layers, kept, strict=True)))) / geometry.layers


@st.composite
def staged_methods(draw):
    """A model, where a method prunes it, and the method's schedule from few tokens to all."""
    geometry = shape(draw(st.sampled_from(["llava-1.5-7b", "llava-1.5-13b", "demo-llava", "llava-next-7b"])))
    visual = geometry.visual_tokens
    layers = sorted(draw(st.sets(st.integers(0, geometry.layers - 1), min_size=1, max_size=4)))
    columns = [draw(st.lists(st.integers(1, visual), min_size=3, max_size=3)) for _ in layers]
    rows = [tuple(sorted(row, reverse=True)) for row in zip(*map(sorted, columns), strict=True)]
    return geometry, layers, schedule(*rows, (visual,) * len(layers))


@laws
@given(staged_methods(), st.floats(0.02, 1.0))
def test_staged_counts_come_as_near_to_a_feasible_average_as_any_of_the_schedule_that_do_not_fall_short(method, share):
    geometry, layers, counts = method
    tokens = share * geometry.visual_tokens
    assume(tokens >= average(geometry, layers, [1] * len(layers)))
    kept = Budget(tokens=tokens).staged(geometry, layers, counts)
    assert list(kept) == sorted(kept, reverse=True)
    assert 1 <= kept[-1] <= kept[0] <= geometry.visual_tokens
    miss = abs(average(geometry, layers, kept) - tokens)
    assert miss <= 0.5
    over = [average(geometry, layers, counts(x / 400)) - tokens for x in range(401)]
    assert miss <= min(surplus for surplus in over if surplus >= 0) + 1e-9


@laws
@given(staged_methods(), st.floats(0, 1))
def test_staged_counts_end_with_what_is_to_be_kept(method, share):
    geometry, layers, counts = method
    keep = max(1, round(share * geometry.visual_tokens))
    kept = Budget(keep=keep).staged(geometry, layers, counts)
    assert keep == kept[-1]
    assert list(kept) == sorted(kept, reverse=True)


@laws
@given(layer=st.integers(0, 31), tokens=st.floats(1, 576))
def test_one_of_one_stage_is_what_one_stage_says(layer, tokens):
    budget = Budget(tokens=tokens)
    assume(tokens >= (layer * 576 + 32 - layer) / 32)
    found = budget.staged(LLAVA_7B, [layer], schedule((1,), (576,)))
    wanted = budget.one_stage(LLAVA_7B, layer)
    assert average(LLAVA_7B, [layer], [wanted]) == pytest.approx(average(LLAVA_7B, [layer], found), abs=0.51)
    assert (wanted,) == found or abs(wanted - found[0]) == 1  # a half may be rounded either way


def test_staged_counts_of_a_point_of_the_schedule_are_those_of_the_point():
    halving = schedule((72, 36, 18), (288, 144, 72), (576, 576, 576))
    layers = (8, 16, 24)
    assert Budget(tokens=270).staged(LLAVA_7B, layers, halving) == (288, 144, 72)
    assert Budget(keep=72).staged(LLAVA_7B, layers, halving) == (286, 143, 72)  # the cheapest that ends with 72
    assert Budget(keep=576).staged(LLAVA_7B, layers, halving) == (576, 576, 576)
    assert Budget(tokens=576).staged(LLAVA_7B, layers, halving) == (576, 576, 576)


def test_staged_counts_never_rise_nor_exceed_the_image_where_the_schedule_is_level():
    layers, level = (4, 8, 16), schedule((1, 1, 1), (576, 576, 576))
    for twentieths in (*range(1600, 11500, 17), *range(11500, 11521)):
        kept = Budget(tokens=twentieths / 20).staged(LLAVA_7B, layers, level)
        assert [576, *kept] == sorted([576, *kept], reverse=True)


def test_a_budget_below_the_schedule_takes_from_the_last_stages_first():
    fewest = schedule((100, 50, 20), (576, 576, 576))
    layers, least = (8, 16, 24), (8 * 576 + 8 * 170) / 32
    assert Budget(tokens=least).staged(LLAVA_7B, layers, fewest) == (100, 50, 20)
    assert Budget(tokens=least - 19 / 4).staged(LLAVA_7B, layers, fewest) == (100, 50, 1)
    assert Budget(tokens=least - 29 / 4).staged(LLAVA_7B, layers, fewest) == (100, 40, 1)
    assert Budget(keep=7).staged(LLAVA_7B, layers, fewest) == (100, 50, 7)


@pytest.mark.parametrize(
    ("given", "layers", "message"),
    [
        ({"tokens": 577}, (8, 16), "tokens=577 is more than the 576 visual tokens of llava-1.5-7b; give at most 576"),
        ({"keep": 577}, (8, 16), "keep=577 is more than the 576 visual tokens of llava-1.5-7b; give at most 576"),
        ({}, (8, 16), "pruning needs a budget; give --tokens (average processed per layer) or --keep"),
        (
            {"tokens": 128},
            (8, 16),
            "tokens=128 cannot be met when pruning before layers 8, 16 of 32; the nearest feasible budget is"
            " tokens=144.8",
        ),
        *(
            (
                {"keep": 16},
                layers,
                f"layers {', '.join(map(str, layers))} are not ascending within 0..31, the decoder layers of"
                " llava-1.5-7b",
            )
            for layers in ((8, 8), (16, 8), (8, 32), (-1, 8))
        ),
    ],
)
def test_staged_says_why_it_refuses(given, layers, message):
    with pytest.raises(BudgetError) as caught:
        Budget(**given).staged(LLAVA_7B, layers, schedule((1, 1), (576, 576)))
    assert message == str(caught.value)


def test_the_nearest_feasible_budget_that_staged_names_is_feasible():
    assert Budget(tokens=144.8).staged(LLAVA_7B, (8, 16), schedule((1, 1), (576, 576))) == (1, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": 64, "keep": 16}, "both tokens=64 and keep=16 are given; a run has one budget"),
        ({"tokens": 0}, "an average of 0 tokens is not a budget; give a number above 0"),
        ({"tokens": float("nan")}, "tokens is no budget: nan is not a number"),
        ({"tokens": float("inf")}, "tokens is no budget: inf is too large; give at most 2147483647"),
        ({"tokens": True}, "tokens is no budget: True is not a number"),
        ({"tokens": "much"}, "tokens is no budget: 'much' is not a number"),
        (
            {"tokens": 10**400},
            f"tokens is no budget: 1{'0' * 39}...{'0' * 40} is too large; give at most 2147483647",
        ),
        ({"keep": True}, "keep is no budget: True is not a whole number"),
        ({"keep": 2.5}, "keep is no budget: 2.5 is not a whole number"),
        ({"keep": 3.0}, "keep is no budget: 3.0 is not a whole number"),
        ({"keep": float("nan")}, "keep is no budget: nan is not a whole number"),
        ({"keep": "3.5"}, "keep is no budget: '3.5' is not a whole number"),
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
