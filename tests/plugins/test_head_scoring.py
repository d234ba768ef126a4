"""Laws of head scoring (specs/visual_pruning.md 3.1), and equality with a slow reference."""

from __future__ import annotations

import functools
import importlib.util
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headwise.errors import HeadwiseError
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import Registry

_path = Path(__file__).parents[1] / "reference" / "head_scoring.py"
_spec = importlib.util.spec_from_file_location("reference_head_scoring", _path)
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

PER_HEAD = tuple(reference.PER_HEAD)
SHAPE_ONLY = (*(t for t in PER_HEAD if t in {"entropy", "sparsity", "sparsity:form=hoyer", "weighted_quality"}),
              "gini_coefficient", *reference.TOGETHER)  # fmt: skip
ATTENTIVE = tuple(reference.ALL)
EVERY = (*ATTENTIVE, "random", "adaptive")
SCHUR = ("entropy", "sparsity", "sparsity:form=hoyer", "gini_coefficient", "variance")
INF = math.inf

law = settings(deadline=None, max_examples=10, derandomize=True, database=None)
seeds = st.integers(0, 2**31)


@functools.cache
def pipeline(text, count="cumulative_contribution"):
    """A run of one scorer. The default count rule knows no count beforehand, so that the scorer's target is None."""
    return Pipeline(Recipe.of(f"head_scoring={text}", f"head_count={count}"))


def score(text, attention, *, images=None, count="cumulative_contribution", share=0.5):
    images = torch.arange(len(attention)) if images is None else images
    return pipeline(text, count).choose_heads(attention, share, lambda: images).scores


def board(seed, batch=2, heads=6, tokens=20):
    """Softmax attention of heads of different sharpness, cut to the image; no two heads or tokens alike."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = 4 * torch.rand(batch, heads, 1, generator=generator) + 0.5
    logits = sharpness * torch.randn(batch, heads, tokens + 4, generator=generator)
    return logits.softmax(dim=-1)[..., :tokens].contiguous()


@st.composite
def boards(draw, least_heads=1, least_tokens=1):
    """Boards of ordinary heads, some of them replaced by even, peaked, dead or copied ones."""
    heads, tokens = draw(st.integers(least_heads, 8)), draw(st.integers(least_tokens, 40))
    seed = draw(seeds)
    attention, lot = board(seed, draw(st.integers(1, 3)), heads, tokens), random.Random(seed)
    for row in attention:
        for head in range(heads):
            match lot.choice(["ordinary"] * 5 + ["even", "peaked", "dead", "copied"]):
                case "even":
                    row[head] = 0.3 / tokens
                case "peaked":
                    row[head] = 0.0
                    row[head, lot.randrange(tokens)] = 0.7
                case "dead":
                    row[head] = 0.0
                case "copied":
                    row[head] = row[lot.randrange(heads)]
    return attention


def close(wanted, found, *, atol=2e-4, rtol=1e-4):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float32), atol=atol, rtol=rtol)


def slow(text, attention):
    return torch.tensor([reference.ALL[text](row) for row in attention.double().tolist()])


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ATTENTIVE)
@law
@given(attention=boards())
def test_scores_equal_the_slow_reference(text, attention):
    close(slow(text, attention), score(text, attention))


@pytest.mark.parametrize("text", ATTENTIVE)
def test_rearranged_heads_differ_by_where_they_look_alone(text):
    """Their shapes differ by rounding, which scaling over heads would blow up to the whole of 0..1."""
    generator = torch.Generator().manual_seed(10)
    one = board(10, 1, 1, 300)
    attention = torch.cat([one[..., torch.randperm(300, generator=generator)] for _ in range(6)], dim=1)

    close(slow(text, attention), score(text, attention))


@pytest.mark.parametrize("target", [1, 2, 3, 5, 12])
@law
@given(attention=boards(least_heads=5))
def test_hierarchical_cuts_to_what_its_target_needs(target, attention):
    target = min(target, attention.shape[1])
    wanted = torch.tensor([reference.hierarchical(row, target) for row in attention.double().tolist()])
    close(wanted, score("hierarchical", attention, count=f"fixed:heads={target}"))


def test_hierarchical_leaves_twice_the_target_or_four_more():
    attention = board(0, 1, 32, 64)
    survivors = {
        target: int((score("hierarchical", attention, count=f"fixed:heads={target}") > -INF).sum())
        for target in (1, 2, 4, 8, 16, 24, 32)
    }

    assert survivors == {1: 5, 2: 6, 4: 8, 8: 16, 16: 32, 24: 32, 32: 32}


# --- values of the table ---------------------------------------------------------------------------------------------

M, N = 0.4, 25
TABLE = {  # even row of mass m, one token of mass m, ignored image, image of one token
    "sum": (M, M, 0, M),
    "variance": (0, M**2 / N, 0, 0),
    "entropy": (0, 1, 0, 0),
    "max_attention": (M / N, M, 0, M),
    "attention_range": (0, M, 0, 0),
    "sparsity": (1 / N, 1, 1 / N, 1),
    "sparsity:form=hoyer": (0, 1, 0, 0),
    "sparsity:form=raw": (M / math.sqrt(N), M, 0, M),
    "top_k_sum": (10 * M / N, M, 0, M),
    "top_k_sum:k=3": (3 * M / N, M, 0, M),
    "weighted_quality": (1 / N, 1, 1 / N, 1),
    "gini_coefficient": (0, 1 - 1 / N, 0, 0),
}


@pytest.mark.parametrize("text", TABLE)
def test_even_peaked_dead_and_single_token_rows_score_as_tabled(text):
    even, peaked, dead, single = TABLE[text]
    attention = torch.zeros(1, 3, N)
    attention[0, 0], attention[0, 1, 7] = M / N, M

    close([[even, peaked, dead]], score(text, attention), atol=1e-6, rtol=1e-5)
    close([[single]], score(text, torch.full((1, 1, 1), M)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("text", reference.TOGETHER)
def test_heads_that_do_not_differ_score_zero_together(text):
    """Also a head alone, dead heads, and an image of a single token, which leaves nothing to compare."""
    for attention in (
        torch.full((1, 4, N), M / N), torch.zeros(1, 4, N), torch.rand(1, 4, 1), board(1, 1, 1, N),
        board(2, 1, 1, N).expand(1, 4, N),
    ):  # fmt: skip
        close(torch.zeros(1, attention.shape[1]), score(text, attention))


@pytest.mark.parametrize("text", [t for t in reference.TOGETHER if t != "hierarchical"])
def test_a_dead_head_counts_as_an_even_one(text):
    dead, even = board(3), board(3)
    dead[:, 2], even[:, 2] = 0.0, 0.01

    close(score(text, even), score(text, dead))


@pytest.mark.parametrize("text", ["entropy", "sparsity", "weighted_quality", "gini_coefficient", "multi_objective"])
@law
@given(attention=boards())
def test_scores_stay_in_their_range(text, attention):
    tokens = attention.shape[-1]
    low = {"sparsity": 1 / tokens, "weighted_quality": 1 / tokens}.get(text, 0.0)
    high = 1 - 1 / tokens if text == "gini_coefficient" else 1.0
    found = score(text, attention)

    assert low - 1e-6 <= float(found.min())
    assert float(found.max()) <= high + 1e-6


@law
@given(attention=boards())
def test_hierarchical_is_within_zero_and_one_or_vetoes(attention):
    found = score("hierarchical", attention, count="fixed:heads=1")
    alive = found[found > -INF]

    assert len(alive) >= len(attention)
    assert float(alive.min()) >= 0
    assert float(alive.max()) <= 1 + 1e-6


# --- symmetry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ATTENTIVE)
@law
@given(attention=boards(), data=st.data())
def test_scores_follow_heads(text, attention, data):
    order = data.draw(st.permutations(range(attention.shape[1])))

    close(score(text, attention)[:, order], score(text, attention[:, order]))


@pytest.mark.parametrize("text", ATTENTIVE)
@law
@given(attention=boards(), data=st.data())
def test_scores_do_not_depend_on_the_order_of_tokens(text, attention, data):
    order = data.draw(st.permutations(range(attention.shape[2])))

    close(score(text, attention), score(text, attention[:, :, order]))


@pytest.mark.parametrize("text", ATTENTIVE)
@law
@given(attention=boards(least_heads=2), data=st.data())
def test_equal_heads_score_equally(text, attention, data):
    first, second = data.draw(st.permutations(range(attention.shape[1])))[:2]
    attention[:, second] = attention[:, first]
    found = score(text, attention)

    close(found[:, first], found[:, second])


@pytest.mark.parametrize("text", PER_HEAD)
@law
@given(attention=boards(least_heads=2), data=st.data())
def test_a_score_does_not_depend_on_the_other_heads(text, attention, data):
    alone = data.draw(st.integers(0, attention.shape[1] - 1))

    close(score(text, attention)[:, alone], score(text, attention[:, alone : alone + 1])[:, 0])


@pytest.mark.parametrize("text", ["multi_objective", "graph_based", "hierarchical"])
def test_a_set_function_heeds_the_other_heads(text):
    attention = board(4)

    assert (score(text, attention)[:, :3] - score(text, attention[:, :3])).abs().max() > 0.01


# --- scale -----------------------------------------------------------------------------------------------------------

DEGREE = {
    **dict.fromkeys(SHAPE_ONLY, 0),
    **dict.fromkeys(["sum", "max_attention", "attention_range", "sparsity:form=raw", "top_k_sum", "top_k_sum:k=3"], 1),
    "variance": 2,
}


@pytest.mark.parametrize("text", ATTENTIVE)
@law
@given(seed=seeds, factor=st.floats(0.01, 1.0))
def test_scores_scale_with_attention_by_their_degree(text, seed, factor):
    attention = board(seed)

    close(score(text, attention) * factor ** DEGREE[text], score(text, attention * factor), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("text", SHAPE_ONLY)
@law
@given(seed=seeds, factor=st.floats(0.01, 1.0))
def test_shape_scores_ignore_the_mass_of_a_single_head(text, seed, factor):
    attention, dimmed = board(seed), board(seed)
    dimmed[:, 3] *= factor

    close(score(text, attention), score(text, dimmed), atol=1e-3, rtol=1e-3)


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SCHUR)
@law
@given(attention=boards(least_tokens=2), share=st.floats(0.0, 1.0), data=st.data())
def test_moving_mass_to_a_larger_token_never_lowers_the_score(text, attention, share, data):
    first, second = data.draw(st.permutations(range(attention.shape[2])))[:2]
    pair = attention[:, :, [first, second]]
    moved = share * pair.amin(dim=-1, keepdim=True)
    towards = torch.where(pair == pair.amax(dim=-1, keepdim=True), moved, -moved)
    towards[..., 1] = -towards[..., 0]  # of two equal tokens the second gives
    richer = attention.clone()
    richer[:, :, [first, second]] += towards
    gain = score(text, richer) - score(text, attention)

    assert float(gain.min()) >= -2e-6


@pytest.mark.parametrize("text", SCHUR)
@law
@given(seed=seeds)
def test_collapsing_onto_the_largest_token_raises_the_score(text, seed):
    attention = board(seed)
    peaked = torch.zeros_like(attention)
    peaked.scatter_(2, attention.argmax(dim=-1, keepdim=True), attention.sum(dim=-1, keepdim=True))

    assert bool((score(text, peaked) > score(text, attention)).all())


@law
@given(attention=boards(), k=st.integers(1, 60))
def test_top_k_sum_is_between_maximum_and_sum(attention, k):
    total, most, found = (score(t, attention) for t in ("sum", "max_attention", f"top_k_sum:k={k}"))

    assert bool((found >= most - 1e-6).all())
    assert bool((found <= total + 1e-6).all())
    if k == 1:
        close(most, found, atol=0, rtol=0)
    if k >= attention.shape[-1]:
        close(total, found, atol=1e-6)


@law
@given(attention=boards())
def test_range_is_at_most_the_maximum(attention):
    assert bool((score("attention_range", attention) <= score("max_attention", attention)).all())


@law
@given(attention=boards(least_tokens=2))
def test_sparsity_is_smallest_for_even_heads_only(attention):
    excess = score("sparsity", attention) - 1 / attention.shape[-1]
    even = score("attention_range", attention) < 1e-6

    assert float(excess.min()) >= -1e-6
    assert bool((excess[even] < 1e-6).all())
    assert bool((excess[score("attention_range", attention) > 0.05] > 1e-5).all())


@law
@given(attention=boards(least_tokens=2))
def test_hoyer_ranks_heads_as_sparsity_does(attention):
    wanted, found = score("sparsity", attention), score("sparsity:form=hoyer", attention)
    apart = wanted.unsqueeze(-1) - wanted.unsqueeze(-2) > 1e-4

    assert bool((found.unsqueeze(-1) > found.unsqueeze(-2))[apart].all())


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_as_the_same_values_in_single(text, dtype):
    attention = board(5, 2, 32, 576).to(dtype)
    found = score(text, attention)

    assert torch.equal(score(text, attention.float()), found)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("text", [text for text in PER_HEAD if text != "sum"])
def test_probabilities_are_not_softmaxed_a_second_time(text):
    """A second softmax makes 576 probabilities even to a percent, and heads tie in half precision."""
    found = score(text, board(6, 1, 32, 576).half())[0]
    low, high = found.aminmax()

    assert len(found.unique()) == 32
    assert float(high - low) > (1e-3 if text == "variance" else 0.1)


@pytest.mark.parametrize("text", ["sparsity", "entropy", "variance"])
def test_a_second_softmax_is_the_trap_these_three_avoid(text):
    """Softmaxed twice, sum p^2 is within half a percent of 1/576 whatever the head does."""
    peaked = torch.zeros(1, 2, 576)
    peaked[0, 0, 3], peaked[0, 1] = 1.0, 1 / 576
    twice = peaked.softmax(dim=-1)

    assert (slow("sparsity", twice) * 576 - 1).abs().max() < 0.006
    spread = score(text, peaked)[0, 0] - score(text, peaked)[0, 1]
    assert float(spread) > 100 * float(score(text, twice)[0, 0] - score(text, twice)[0, 1])


@pytest.mark.parametrize("text", EVERY)
@law
@given(attention=boards(), share=st.floats(0.02, 1.0))
def test_scores_are_numbers_for_dead_even_and_peaked_heads(text, attention, share):
    found = score(text, attention, share=share)

    assert not bool(torch.isnan(found).any())
    assert bool((found.amax(dim=-1) > -INF).all())
    assert float(found.max()) < INF


@pytest.mark.parametrize("text", EVERY)
@law
@given(seed=seeds, share=st.floats(0.02, 1.0))
def test_rows_of_a_batch_do_not_see_each_other(text, seed, share):
    attention, images = board(seed, batch=3), torch.tensor([11, 7, 11])
    together = score(text, attention, images=images, share=share)

    for row in range(3):
        alone = score(text, attention[row : row + 1], images=images[row : row + 1], share=share)
        close(together[row : row + 1], alone)


@pytest.mark.parametrize("text", EVERY)
def test_scoring_is_repeatable_and_leaves_its_input_alone(text):
    attention = board(7, 2, 8, 30)
    before = attention.clone()
    first = score(text, attention)
    torch.rand(3)

    assert torch.equal(first, score(text, attention))
    assert torch.equal(before, attention)


@pytest.mark.parametrize("text", EVERY)
def test_scores_of_a_view_equal_those_of_a_copy(text):
    view = board(8, 2, 30, 8).transpose(1, 2)

    close(score(text, view.contiguous()), score(text, view))


# --- in a run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*ATTENTIVE, "random"])
def test_all_heads_rank_tokens_as_the_mean_over_heads(text):
    attention = board(9, 3, 8, 30)
    run = pipeline(text, "all")
    choice = run.choose_heads(attention, 0.5, lambda: torch.arange(3))

    assert bool(choice.kept.all())
    close(attention.mean(dim=1), run.token_scores(attention, choice), atol=1e-7)


@law
@given(seed=seeds, heads=st.integers(1, 6))
def test_top_heads_are_those_of_the_reference(seed, heads):
    attention = board(seed)
    for text in ("sparsity", "sum", "gini_coefficient"):
        wanted = slow(text, attention).sort(dim=-1, descending=True)
        assume(heads == 6 or float((wanted.values[:, heads - 1] - wanted.values[:, heads % 6]).min()) > 1e-5)
        kept = pipeline(text, f"fixed:heads={heads}").choose_heads(attention, 0.5, lambda: torch.arange(2)).kept
        assert torch.equal(kept, torch.zeros(2, 6).scatter(1, wanted.indices[:, :heads], 1.0).bool())


# --- the control -----------------------------------------------------------------------------------------------------


def draw(images, text="random", heads=8):
    return score(text, torch.zeros(len(images), heads, 4), images=torch.tensor(images))


def test_random_is_drawn_by_image_and_seed_alone():
    found = draw([3, 4, 3])

    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1:2], draw([4]))
    assert torch.equal(found, draw([3, 4, 3], "random:seed=0"))
    assert not torch.equal(found, draw([3, 4, 3], "random:seed=1"))
    assert torch.equal(found, score("random", board(0, 3, 8, 9), images=torch.tensor([3, 4, 3])))


def test_random_tells_apart_images_of_any_number():
    """Also negative ones, and those that differ in high bits only, which torch's generator would not notice."""
    found = draw([1, 1 + 2**32, 1 + 2**40, -1, -(2**63), 2**63 - 1])

    assert len({tuple(row) for row in found.tolist()}) == 6


def test_random_prefers_no_head():
    found = draw(list(range(2000)), heads=4)
    wins = torch.bincount(found.argmax(dim=-1), minlength=4) / 2000

    assert float(found.mean()) == pytest.approx(0.5, abs=0.02)
    assert wins.tolist() == pytest.approx([0.25] * 4, abs=0.04)


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sparsity:form=l3", "'form' must be in ('l2', 'hoyer', 'raw') (got 'l3')"),
        ("top_k_sum:k=0", "'k' must be >= 1: 0"),
        ("top_k_sum:k=many", "'many' is not a whole number"),
        ("graph_based:threshold=1", "'threshold' must be < 1: 1.0"),
        ("graph_based:threshold=nan", "'nan' is not a number"),
        ("graph_based:rounds=-1", "'rounds' must be >= 0: -1"),
        ("graph_based:relu=perhaps", "Cannot convert value to bool: 'perhaps'"),
        ("random:seed=-1", "'seed' must be >= 0: -1"),
    ],
)
def test_a_bad_option_is_refused_in_one_sentence(text, reason):
    with pytest.raises(HeadwiseError) as caught:
        Registry.installed("head_scoring").build(text)
    name = text.partition(":")[0]

    assert str(caught.value).startswith(f"head_scoring strategy {name!r} (headwise ")
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("sum", "sum"),
        ("sparsity", "sparsity:form=l2"),
        ("top_k_sum", "top_k_sum:k=10"),
        ("graph_based:relu=yes", "graph_based:threshold=0.1,rounds=2,relu=true"),
        ("random", "random:seed=0"),
        ("adaptive", "adaptive"),
    ],
)
def test_the_record_spells_every_option_out(text, canonical):
    assert canonical == Registry.installed("head_scoring").build(text).text
    assert canonical == Registry.installed("head_scoring").build(canonical).text
