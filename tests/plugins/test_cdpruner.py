"""CDPruner: the greedy choice by determinants, relevance per image, and images where determinants say nothing."""

from __future__ import annotations

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from tests.plugins import in_llm
from tests.reference import cdpruner as reference

from headwise import Pipeline, Recipe, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True)


@attrs.frozen(eq=False)
class Images:
    """Evidence of images: features (b, v, d), CLIP cosines (b, v) or None, words (b, t, d) with what is real."""

    features: torch.Tensor
    keep: int
    cosines: torch.Tensor | None = None
    words: torch.Tensor | None = None
    real: torch.Tensor | None = None
    folders: list = attrs.field(factory=list)
    notes: dict = attrs.field(factory=dict)

    @property
    def batch(self):
        return self.features.shape[0]

    @property
    def visual(self):
        return self.features.shape[1]

    @property
    def clip(self):
        return None if self.cosines is None else "folder of the config"

    def hidden(self):
        return self.features

    def text(self):
        return self.words, self.real

    def clip_similarity(self, folder=None):
        self.folders.append(folder)
        return self.cosines

    def note(self, key, values):
        self.notes[key] = values


def kept(evidence, options=""):
    return in_llm.kept(f"cdpruner:{options}".rstrip(":"), evidence)


def by_clip(features, cosines, keep, options=""):
    """What stays of one image whose tokens have these CLIP cosines."""
    evidence = Images(torch.as_tensor(features)[None], keep, torch.as_tensor(cosines)[None])
    return kept(evidence, options)[0]


def noise(seed, *size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


images = st.builds(
    lambda seed, visual, width: (noise(seed, visual, width), noise(seed + 1, visual) / 10),
    st.integers(0, 2**20), st.integers(2, 10), st.integers(2, 12),
)  # fmt: skip


def up_to_rank(features, data):
    return data.draw(st.integers(1, min(features.shape)))


@laws
@given(images, st.data())
def test_each_choice_makes_the_determinant_largest(image, data):
    (features, cosines), keep = image, up_to_rank(image[0], data)
    relevance = reference.scaled((-cosines).tolist())
    order, margin = reference.by_determinant(features.tolist(), relevance, keep)
    assume(margin > 1e-3)
    assert sorted(order) == by_clip(features, cosines, keep)


@laws
@given(images, st.sampled_from([0.0, 0.3, 0.8, 0.95]), st.data())
def test_theta_sharpens_relevance_as_published(image, theta, data):
    (features, cosines), keep = image, up_to_rank(image[0], data)
    relevance = reference.sharpened(reference.scaled((-cosines).tolist()), theta)
    order, margin = reference.by_determinant(features.tolist(), relevance, keep)
    assume(margin > 1e-3)
    assert sorted(order) == by_clip(features, cosines, keep, f"theta={theta}")


@laws
@given(images, st.integers(0, 5), st.integers(0, 2**20), st.data())
def test_without_clip_relevance_is_likeness_to_the_words(image, count, seed, data):
    (features, _), keep = image, up_to_rank(image[0], data)
    words = noise(seed, 1, 5, features.shape[1])
    real = (torch.arange(5) < count)[None]
    likeness = reference.likeness(features.tolist(), words[real].tolist())
    for sign, factor in (("negative", -1), ("positive", 1)):
        relevance = reference.scaled([factor * value for value in likeness])
        order, margin = reference.by_determinant(features.tolist(), relevance, keep)
        assume(margin > 1e-3)
        assert [sorted(order)] == kept(Images(features[None], keep, words=words, real=real), f"sign={sign}")


axes = st.sampled_from([*torch.eye(4).tolist(), *(-torch.eye(4)).tolist(), [0.0] * 4])


@laws
@given(st.lists(st.tuples(axes, st.integers(0, 3)), min_size=1, max_size=10), st.data())
def test_among_duplicates_and_empty_features_relevance_decides_and_then_the_position(tokens, data):
    features, cosines = [list(axis) for axis, _ in tokens], [-grade / 4 for _, grade in tokens]
    keep = data.draw(st.integers(1, len(tokens)))
    relevance = reference.scaled([-cosine for cosine in cosines])
    assert sorted(reference.by_projection(features, relevance, keep)) == by_clip(features, cosines, keep)


@pytest.mark.parametrize("options", ["", "theta=0", "theta=0.99", "relevance=embeddings"])
@pytest.mark.parametrize("keep", [1, 6, 7])
def test_first_positions_stay_of_images_that_are_all_alike(options, keep):
    features = noise(0, 1, 1, 50).expand(1, 7, 50)
    evidence = Images(features, keep, torch.full((1, 7), 0.3), noise(1, 1, 2, 50), torch.ones(1, 2, dtype=torch.bool))
    assert [list(range(keep))] == kept(evidence, options)


@pytest.mark.parametrize(("width", "keep"), [(5, 599), (16, 17)])
def test_counts_far_beyond_the_rank_are_kept(width, keep):
    evidence = Images(noise(2, 6, 600, width), keep, noise(3, 6, 600))
    assert [keep] * 6 == [len(set(row)) for row in kept(evidence)]


def test_every_direction_stays_before_any_duplicate():
    where = torch.tensor([2, 0, 0, 4, 2, 1, 1, 3, 0, 4, 2])
    found = by_clip(noise(4, 5, 300)[where] * torch.arange(1, 12)[:, None], torch.full((11,), 0.2), 5)
    assert set(range(5)) == set(where[found].tolist())


def test_constant_relevance_leaves_diversity_alone():
    features = noise(5, 12, 30)
    order, _ = reference.by_determinant(features.tolist(), [1.0] * 12, 6)
    assert sorted(order) == by_clip(features, [0.25] * 12, 6) == by_clip(features, noise(6, 12), 6, "theta=0")


def test_unlike_the_question_is_relevant_as_published_unless_the_sign_is_turned_round():
    features, cosines = torch.eye(8)[None], torch.arange(8.0)[None] / 10
    words = torch.arange(8.0)[None, None]
    evidence = Images(features, 3, cosines, words, torch.ones(1, 1, dtype=torch.bool))
    for relevance in ("clip", "embeddings"):
        assert kept(evidence, f"relevance={relevance}") == [[0, 1, 2]]
        assert kept(evidence, f"relevance={relevance},sign=positive") == [[5, 6, 7]]


@laws
@given(images, st.data())
def test_relevance_counts_relative_to_its_image(image, data):
    (features, cosines), keep = image, up_to_rank(image[0], data)
    order, margin = reference.by_determinant(features.tolist(), reference.scaled((-cosines).tolist()), keep)
    assume(margin > 1e-3)
    assert sorted(order) == by_clip(features, cosines * 8 - 3, keep)


def test_images_do_not_see_each_other():
    features, cosines = noise(7, 3, 12, 20), noise(8, 3, 12) * torch.tensor([[1.0], [100.0], [0.0]])
    together = kept(Images(features, 5, cosines))
    assert [by_clip(features[row], cosines[row], 5) for row in range(3)] == together


def test_half_precision_is_compared_in_float32():
    features, cosines = noise(9, 200, 200).to(torch.bfloat16), noise(10, 200)
    assert by_clip(features.float(), cosines, 100, "theta=0.1") == by_clip(features, cosines, 100, "theta=0.1")


@pytest.mark.parametrize(
    ("options", "there", "used", "folders", "reads"),
    [
        ("", True, "clip", [None], ("clip",)),
        ("", False, "embeddings", [], ("clip",)),
        ("relevance=clip", True, "clip", [None], ("clip",)),
        ("clip=some/folder", True, "clip", ["some/folder"], ("clip",)),
        ("relevance=embeddings", True, "embeddings", [], ()),
    ],
)
def test_record_says_which_relevance_was_used(options, there, used, folders, reads):
    cosines = noise(11, 2, 9) if there else None
    evidence = Images(noise(12, 2, 9, 8), 3, cosines, noise(13, 2, 4, 8), torch.ones(2, 4, dtype=torch.bool))
    kept(evidence, options)
    assert ({"relevance": [used] * 2}, folders, reads) == (
        evidence.notes, evidence.folders, in_llm.first_stage(f"cdpruner:{options}".rstrip(":")).reads
    )  # fmt: skip


def test_a_given_folder_is_used_where_the_config_names_none():
    class Unnamed(Images):
        clip = None

    evidence = Unnamed(noise(14, 1, 9, 8), 3, noise(15, 1, 9))
    kept(evidence, "clip=some/folder")
    assert evidence.folders == ["some/folder"]


def test_plan_prunes_every_image_by_itself_before_the_language_model():
    (stage,) = Pipeline(Recipe.of("cdpruner", tokens=64)).plan(shape("llava-1.5-7b")).stages
    assert (stage.layer, stage.keep, stage.per_image) == (0, 64, True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("theta=1", "'theta' must be < 1: 1.0"),
        ("theta=-0.5", "'theta' must be >= 0: -0.5"),
        ("relevance=words", r"'relevance' must be in \('auto', 'clip', 'embeddings'\)"),
        ("relevance=embeddings,clip=a", "relevance=embeddings reads no CLIP model; leave out clip"),
    ],
)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(StrategyError, match=reason):
        resolve(f"cdpruner:{options}")
