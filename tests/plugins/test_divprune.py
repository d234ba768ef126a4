"""DivPrune: the greedy max-min choice of the paper, with duplicates last."""

from __future__ import annotations

import functools

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from tests.reference import divprune as reference

from headwise import Geometry, Pipeline, Recipe, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True)
TINY = Geometry(
    name="tiny", layers=4, heads=4, kv_heads=4, head_dim=4, hidden=16, intermediate=32, visual_tokens=12
)  # fmt: skip


@attrs.frozen
class Images:
    """Evidence of images by their features, (b, v, d)."""

    features: torch.Tensor
    keep: int

    @property
    def batch(self):
        return self.features.shape[0]

    @property
    def visual(self):
        return self.features.shape[1]

    def hidden(self):
        return self.features


@functools.cache
def prepared(layer):
    pipeline = Pipeline(Recipe.of(f"divprune:layer={layer}", keep=4))
    return pipeline, pipeline.plan(TINY).stages[0]


def kept(features, keep, layer=0):
    """What stays of one image, ascending."""
    pipeline, stage = prepared(layer)
    return pipeline.select(stage, Images(torch.as_tensor(features)[None], keep)).positions[0].tolist()


def noise(seed, *size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@laws
@given(st.integers(0, 2**20), st.integers(1, 13), st.integers(2, 6), st.data())
def test_choice_is_the_farthest_point_each_time(seed, visual, width, data):
    features, keep = noise(seed, visual, width), data.draw(st.integers(1, visual))
    order, margin = reference.chosen(features.tolist(), keep)
    assume(margin > 1e-5)
    assert sorted(order) == kept(features, keep)


signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)  # of length 2, so that cosines are exact
exact = st.one_of(signs, st.just([0.0] * 4), st.just([1.0] * 4))


@laws
@given(st.lists(exact, min_size=1, max_size=9), st.data())
def test_of_equals_the_lower_position_stays_among_duplicates_and_empty_features(features, data):
    keep = data.draw(st.integers(1, len(features)))
    assert sorted(reference.chosen(features, keep)[0]) == kept(features, keep)


@pytest.mark.parametrize("keep", [1, 6, 7])
def test_every_count_is_kept_of_images_that_are_all_alike(keep):
    assert list(range(keep)) == kept(noise(0, 1, 50).expand(7, 50), keep)


def test_every_direction_stays_before_any_duplicate():
    where = torch.tensor([2, 0, 0, 4, 2, 1, 1, 3, 0, 4, 2])
    found = kept(noise(1, 5, 300)[where] * torch.arange(1, 12)[:, None], 5)
    assert set(range(5)) == set(where[found].tolist())


@pytest.mark.parametrize(("keep", "wanted"), [(5, [0, 1, 3, 5, 7]), (8, [0, 1, 2, 3, 4, 5, 6, 7])])
def test_lower_positions_stay_of_duplicates_though_their_distances_are_rounded(keep, wanted):
    where = [2, 0, 0, 4, 2, 1, 1, 3, 0, 4, 2]
    assert wanted == kept(noise(1, 5, 300)[where], keep)


@laws
@given(st.integers(0, 2**20), st.integers(1, 8))
def test_length_of_features_does_not_matter(seed, keep):
    features = noise(seed, 9, 4)
    assume(reference.chosen(features.tolist(), keep)[1] > 1e-5)
    assert kept(features, keep) == kept(features * torch.logspace(-6, 6, 9)[:, None], keep)


def test_half_precision_is_compared_in_float32():
    features = noise(2, 200, 32).to(torch.bfloat16)
    assert kept(features.float(), 100) == kept(features, 100)


def test_images_do_not_see_each_other():
    features = noise(3, 3, 12, 4)
    pipeline, stage = prepared(0)
    together = pipeline.select(stage, Images(features, 5)).positions.tolist()
    assert [kept(image, 5) for image in features] == together


@pytest.mark.parametrize(("layer", "keep"), [(0, 64), (2, 30)])
def test_plan_prunes_every_image_by_itself_and_reads_nothing_that_costs(layer, keep):
    pipeline = Pipeline(Recipe.of(f"divprune:layer={layer}", tokens=64))
    (stage,) = pipeline.plan(shape("llava-1.5-7b")).stages
    assert (layer, keep, (), True) == (stage.layer, stage.keep, stage.reads, stage.per_image)


def test_negative_layer_is_refused():
    with pytest.raises(StrategyError, match=r"refuses 'divprune:layer=-1': 'layer' must be >= 0: -1"):
        resolve("divprune:layer=-1")
