"""VisionZip: equality with a slow reference, the published split, and what merging promises."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.pre_llm import TINY, Keys, outcome, pipeline
from tests.reference import visionzip as reference
from torch.utils.flop_counter import FlopCounterMode

from headwise import BudgetError, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True, database=None)


def merged(text, evidence):
    """Per row: kept place -> {token: weight}; tokens that stay alone where there are no weights."""
    found = outcome(text, evidence)
    if found.weights is None:
        return [{place: {place: 1.0} for place in row} for row in found.positions.tolist()]
    return [
        {place: {t: w for t, w in enumerate(row) if w} for place, row in zip(places, rows, strict=True)}
        for places, rows in zip(found.positions.tolist(), found.weights.tolist(), strict=True)
    ]


def expected(evidence, dominant, *, equal=False):
    """The same from the reference."""
    return [
        {
            place: {
                token: pytest.approx(float(weight)) for token, weight in reference.weights(group, equal=equal).items()
            }
            for place, group in reference.groups(salient, keys, dominant, evidence.keep - dominant).items()
        }
        for salient, keys in zip(evidence.salient, evidence.tokens, strict=True)
    ]


@st.composite
def pictures(draw):
    """Rows with many equal, opposite and zero keys, and many equal saliencies."""
    visual, rows = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    rng = random.Random(draw(st.integers(0, 2**20)))
    keys = [[[rng.choice((-1, 0, 1, 2)) for _ in range(3)] for _ in range(visual)] for _ in range(rows)]
    salient = [[rng.randrange(4) for _ in range(visual)] for _ in range(rows)]
    return Keys(salient, keys, draw(st.integers(1, visual)))


@laws
@given(pictures(), st.sampled_from((0, 0.25, 0.5, 1)), st.booleans())
def test_merging_equals_the_slow_reference_whatever_ties(picture, share, equal):
    dominant = int(picture.keep * share + 0.5)
    text = f"visionzip:dominant={share},merge={'members' if equal else 'target'}"
    assert expected(picture, dominant, equal=equal) == merged(text, picture)


@pytest.mark.parametrize(
    ("keep", "dominant"), [(1, 1), (3, 3), (4, 3), (6, 5), (9, 8), (10, 8), (32, 27), (58, 49), (59, 50)]
)
def test_merging_equals_the_slow_reference_for_ordinary_keys(keep, dominant):
    rng = random.Random(keep)
    keys = [[[rng.gauss(0, 1) for _ in range(8)] for _ in range(59)] for _ in range(2)]
    picture = Keys([[rng.random() for _ in range(59)] for _ in range(2)], keys, keep)
    assert expected(picture, dominant) == merged("visionzip", picture)


@pytest.mark.parametrize(("keep", "contextual"), [(192, 30), (128, 20), (64, 10), (32, 5)])
def test_the_published_splits_are_planned(keep, contextual):
    (stage,) = pipeline("visionzip", keep=keep).plan(shape("llava-1.5-7b")).stages
    assert contextual == stage.merged


def test_everything_kept_is_merged_out_of_nothing():
    (stage,) = pipeline("visionzip", keep=12).plan(TINY).stages
    assert stage.merged == 0


def test_dominant_tokens_stay_as_they_are_and_contextual_ones_take_in_their_like():
    """By hand: 3 and 6 are dominant; of 0 1 2 4 5 7 every third is a target, 0 and 4."""
    keys = [[1, 0], [1, 1], [3, 1], [0, 0], [0, 1], [1, 4], [0, 0], [2, 9]]
    picture = Keys([[1, 1, 1, 9, 1, 1, 8, 1]], [keys], 4)
    half, third, quarter = 1 / 2, pytest.approx(1 / 3), 1 / 4
    alone = {3: {3: 1.0}, 6: {6: 1.0}}
    assert [{0: {0: half, 1: quarter, 2: quarter}, 4: {4: half, 5: quarter, 7: quarter}} | alone] == merged(
        "visionzip:dominant=0.5", picture
    )
    assert [{0: {0: third, 1: third, 2: third}, 4: {4: third, 5: third, 7: third}} | alone] == merged(
        "visionzip:dominant=0.5,merge=members", picture
    )


def test_without_contextual_tokens_the_most_salient_are_selected_and_nothing_merges():
    found = outcome("visionzip:dominant=1", Keys([[1, 5, 5, 0, 9]], [[[1, 0]] * 5], 2))
    assert found.positions.tolist() == [[1, 4]]
    assert found.weights is None


@pytest.mark.parametrize("keep", [1, 5, 8, 9])
@pytest.mark.parametrize("key", [[0.0, 0.0], [3.0, 4.0]])
def test_tokens_without_any_difference_are_averaged_with_weights_that_sum_to_one(key, keep):
    found = outcome("visionzip:dominant=0.5", Keys([[1.0] * 9], [[key] * 9], keep))
    total = torch.ones(1, keep) if found.weights is None else found.weights.sum(dim=-1)
    torch.testing.assert_close(torch.ones(1, keep), total)
    assert keep == len(set(found.positions[0].tolist()))


def test_keeping_everything_merges_nothing():
    rng = random.Random(1)
    keys = [[[rng.gauss(0, 1) for _ in range(3)] for _ in range(9)]]
    found = outcome("visionzip", Keys([[rng.random() for _ in range(9)]], keys, 9))
    torch.testing.assert_close(torch.eye(9).unsqueeze(0), found.weights)


def test_half_precision_merges_what_the_same_numbers_merge_in_float32():
    rng = random.Random(5)
    keys = torch.tensor([[[rng.gauss(0, 1) for _ in range(8)] for _ in range(40)]]).bfloat16()
    salient = torch.tensor([[rng.random() for _ in range(40)]]).bfloat16()
    rounded = (salient.float().tolist(), keys.float().tolist(), 12)
    assert merged("visionzip", Keys(*rounded)) == merged("visionzip", Keys(*rounded, dtype=torch.bfloat16))


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_average_budgets_are_kept_in_every_layer_because_nothing_is_full(tokens):
    plan = pipeline("visionzip", tokens=tokens).plan(shape("llava-1.5-7b"))
    assert (tokens,) * 32 == plan.processed
    assert [(stage.layer, stage.reads, stage.per_image) for stage in plan.stages] == [(0, ("vision",), True)]


def test_more_tokens_than_there_are_is_refused():
    with pytest.raises(BudgetError, match="more than the 12 visual tokens of tiny"):
        pipeline("visionzip", keep=13).plan(TINY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("visionzip:dominant=1.5", "'dominant' must be <= 1: 1.5"),
        ("visionzip:dominant=-0.5", "'dominant' must be >= 0: -0.5"),
        ("visionzip:merge=sum", "'merge' must be in ('target', 'members') (got 'sum')"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")


def test_tokens_are_compared_with_the_targets_and_with_nothing_else():
    rng = random.Random(0)
    picture = Keys([[rng.random() for _ in range(40)]], [[[rng.gauss(0, 1) for _ in range(8)] for _ in range(40)]], 20)
    with FlopCounterMode(display=False) as counter:
        outcome("visionzip:dominant=0.75", picture)
    assert counter.get_total_flops() == 2 * 40 * 5 * 8
