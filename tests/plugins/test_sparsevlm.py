"""SparseVLM: published counts and averages, and each stage against a slow reference."""

from __future__ import annotations

import attrs
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tests.plugins import in_llm
from tests.plugins.in_llm import LLAVA, Rows
from tests.reference import sparsevlm as reference

from headwise import BudgetError, Geometry, StrategyError, shape

laws = settings(deadline=None, max_examples=25, derandomize=True)
LISTS = {
    "v1": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "plus": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
AVERAGES = {  # setting -> reported, processed: section 1.2 of the specification
    "v1": {192: (192.0, 206.5), 128: (128.6, 145.4), 96: (96.9, 114.1), 64: (64.8, 82.25)},
    "plus": {192: (192.4, 206.8), 128: (128.0, 144.1), 96: (96.8, 113.9), 64: (64.4, 81.8)},
}
SETTINGS = [(variant, setting) for variant, lists in LISTS.items() for setting in lists]


def planned(options="", geometry=LLAVA, **budget):
    return in_llm.planned(f"token_pruning=sparsevlm{options}", geometry, **budget)


@attrs.frozen(kw_only=True)
class States(Rows):
    """Evidence with hidden states (b, v, d) too."""

    states: torch.Tensor

    def hidden(self):
        return self.states


def made(seed, rows, visual, keep, *, width=5, levels=None, repeated=False):
    """Random evidence; ``levels`` of attention only, or every second hidden state like the one in front of it."""
    random = np.random.default_rng(seed)
    scores = random.random((rows, visual)) if levels is None else random.integers(0, levels, (rows, visual)) / levels
    hidden = random.standard_normal((rows, visual, width))
    if repeated:
        hidden[:, 1::2] = hidden[:, : 2 * (visual // 2) : 2]
    return States(scores=torch.from_numpy(scores).float(), states=torch.from_numpy(hidden).float(), keep=keep)


def selected(evidence, options=""):
    stage = planned(options, shape("demo-llava"), keep=36).stages[0]
    return in_llm.pipeline(f"token_pruning=sparsevlm{options}").select(stage, evidence)


def outcome(evidence, options="", row=0):
    """(place, {token: weight}) of everything that goes on from a row, in order of place."""
    found = selected(evidence, options)
    places = found.positions[row].tolist()
    if found.weights is None:
        return [(place, {place: 1.0}) for place in places]
    weights = found.weights[row]
    return [
        (place, {token: pytest.approx(float(weight[token])) for token in weight.nonzero().flatten().tolist()})
        for place, weight in zip(places, weights, strict=True)
    ]


def wanted(evidence, row=0, **options):
    """The same by the reference, merged tokens at their centres."""
    kept, clusters = reference.stage(
        evidence.scores[row].tolist(), evidence.states[row].tolist(), evidence.keep, **options
    )
    merged = [(centre, {token: 1 / len(members) for token in members}) for centre, members in clusters]
    return sorted([(token, {token: 1.0}) for token in kept] + merged, key=lambda slot: slot[0])


@pytest.mark.parametrize(("variant", "setting"), SETTINGS)
def test_published_settings_keep_the_published_lists(variant, setting):
    kept = LISTS[variant][setting]
    plan = planned(f":variant={variant},published={setting}")
    assert kept == tuple(stage.keep - stage.merged for stage in plan.stages)
    left = reference.totals(kept) if variant == "v1" else list(kept)
    assert left == [stage.keep for stage in plan.stages]
    assert [stage.layer for stage in plan.stages] == [3, 7, 16]


@pytest.mark.parametrize(("variant", "setting"), SETTINGS)
def test_published_settings_report_one_average_and_process_another(variant, setting):
    plan = planned(f":variant={variant},published={setting}")
    assert AVERAGES[variant][setting] == pytest.approx((plan.reported, plan.average), abs=0.0501)


@pytest.mark.parametrize(
    ("setting", "counts"), [(192, (309, 204, 113)), (128, (312, 117, 39)), (96, (249, 55, 27)), (64, (82, 32, 18))]
)
def test_recycling_adds_the_published_number_of_tokens(setting, counts):
    assert counts == tuple(stage.keep for stage in planned(f":published={setting}").stages)


@pytest.mark.parametrize(("variant", "setting"), SETTINGS)
def test_the_processed_average_as_a_budget_gives_the_published_counts(variant, setting):
    published = planned(f":variant={variant},published={setting}")
    found = planned(f":variant={variant}", tokens=published.average)
    assert [(s.layer, s.keep, s.merged) for s in published.stages] == [
        (s.layer, s.keep, s.merged) for s in found.stages
    ]
    assert published.reported == found.reported


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-1.5-13b", "llava-next-7b", "demo-llava"])
@pytest.mark.parametrize("share", [0.1, 0.2, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("variant", LISTS)
def test_a_budget_is_the_processed_average(name, share, variant):
    tokens = share * shape(name).visual_tokens
    assert planned(f":variant={variant}", shape(name), tokens=tokens).average == pytest.approx(tokens, abs=0.5)


def test_published_settings_scale_with_the_visual_tokens():
    plan = planned(":published=192", shape("llava-next-7b"))
    assert pytest.approx([stage.keep - stage.merged for stage in plan.stages], abs=1) == [1500, 1000, 550]


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("llava-1.5-13b", "", (3, 7, 16)),
        ("demo-llava", "", (1, 3, 6)),
        ("demo-llava", ":layers=2/6/11", (2, 6, 11)),
        ("llava-1.5-7b", ":layers=2/6/15", (2, 6, 15)),
    ],
)
def test_stages_stand_where_the_paper_has_them_or_as_deep_in_proportion(name, options, layers):
    assert layers == tuple(stage.layer for stage in planned(options, shape(name), keep=20).stages)


@pytest.mark.parametrize("depth", range(4, 21))
def test_stages_of_shallow_models_stay_apart(depth):
    geometry = attrs.evolve(LLAVA, name="shallow", layers=depth)
    layers = [stage.layer for stage in planned("", geometry, keep=20).stages]
    assert layers == sorted(set(layers))
    assert 1 <= layers[0] < layers[-1] < depth


def test_a_model_too_shallow_for_three_stages_is_refused():
    with pytest.raises(
        BudgetError, match=r"^layers 1, 2, 3 are not ascending within 0\.\.2, the decoder layers of tiny$"
    ):
        planned("", attrs.evolve(LLAVA, name="tiny", layers=3), keep=20)


@pytest.mark.parametrize("budget", [{"tokens": 192}, {"keep": 17}])
def test_published_counts_and_a_budget_exclude_each_other(budget):
    given = " ".join(f"{key}={value}" for key, value in budget.items())
    with pytest.raises(BudgetError) as caught:
        planned(":published=192", **budget)
    assert str(caught.value) == (
        f"token_pruning strategy 'sparsevlm:published=192' has its own counts, so {given} cannot be met beside it;"
        " give one of the two"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (":variant=v2", "variant"),
        (":published=100", "published"),
        (":recycle=1.5", "recycle"),
        (":layers=3/7", "not 3 ascending layers"),
        (":layers=0/7/16", "not 3 ascending layers"),
        (":layers=7/3/16", "not 3 ascending layers"),
        (":layers=3/7/x", "'x' is not a whole number"),
        (":merged=start", "merged"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(StrategyError, match=reason):
        planned(options, keep=20)


def test_a_budget_is_needed_where_no_published_setting_is_named():
    with pytest.raises(BudgetError, match="pruning needs a budget"):
        planned()


@laws
@given(
    visual=st.integers(1, 150), data=st.data(), shares=st.sampled_from([(0.3, 0.1), (1.0, 1.0), (0.6, 0.4), (0.05, 0)])
)
def test_every_count_is_split_as_the_published_rule_splits_it(visual, data, shares):
    keep = data.draw(st.integers(1, visual))
    evidence = made(visual, 1, visual, keep)
    options = f":recycle={shares[0]},clusters={shares[1]}"
    slots = outcome(evidence, options)
    single = sum(weights == {place: 1.0} for place, weights in slots)
    kept, clusters = reference.stage(evidence.scores[0].tolist(), evidence.states[0].tolist(), keep, *shares)
    assert (keep, len(kept) + sum(len(members) == 1 for _, members in clusters)) == (len(slots), single)


@laws
@given(
    seed=st.integers(0, 2**16),
    visual=st.integers(2, 70),
    data=st.data(),
    levels=st.sampled_from([None, 1, 3]),
    repeated=st.booleans(),
    shares=st.sampled_from([(0.3, 0.1), (1.0, 0.3), (0.7, 1.0)]),
)
def test_a_stage_keeps_and_merges_what_the_reference_does(seed, visual, data, levels, repeated, shares):
    """All scores equal (one level), duplicates, odd counts and any number left are among the cases."""
    keep = data.draw(st.sampled_from([1, 2, visual // 2, visual - 1, visual]).filter(lambda keep: keep >= 1))
    evidence = made(seed, 2, visual, keep, levels=levels, repeated=repeated)
    options = f":recycle={shares[0]},clusters={shares[1]}"
    for row in range(2):
        assert wanted(evidence, row, share=shares[0], clusters=shares[1]) == outcome(evidence, options, row)


@pytest.mark.parametrize(("visual", "keep"), [(576, 309), (309, 204), (204, 113), (1152, 618), (143, 71)])
def test_published_stages_keep_and_merge_what_the_reference_does(visual, keep):
    evidence = made(visual, 1, visual, keep, width=8)
    assert wanted(evidence) == outcome(evidence)


def test_tokens_that_are_all_alike_are_merged_into_the_first_of_the_recycled():
    evidence = States(scores=torch.ones(1, 40), states=torch.ones(1, 40, 4), keep=12)
    kept = reference.split(40, 12)
    slots = outcome(evidence)
    assert list(range(kept)) == [place for place, _ in slots[:kept]]
    assert [kept] == [place for place, _ in slots[kept:]]
    members = reference.recycled(40 - kept)
    assert {kept + place: 1 / members for place in range(members)} == slots[-1][1]


def test_of_tokens_that_are_all_alike_every_centre_stands_for_itself():
    """Each is as near to the first centre as to itself, so that the others would be left without members."""
    evidence = States(scores=torch.ones(1, 40), states=torch.ones(1, 40, 4), keep=30)
    _, clusters = reference.stage([1.0] * 40, [[1.0] * 4] * 40, 30, 1.0, 0.5)
    assert len(clusters) > 1
    assert wanted(evidence, share=1.0, clusters=0.5) == outcome(evidence, ":recycle=1,clusters=0.5")


def test_merged_tokens_at_the_end_stand_behind_the_kept_ones_in_the_same_places():
    evidence = made(3, 1, 60, 25)
    evidence.scores[:] = torch.linspace(0, 1, 60)  # the last tokens are kept, so all centres stand in front of them
    kept, clusters = reference.stage(evidence.scores[0].tolist(), evidence.states[0].tolist(), 25)
    ahead = [{token: 1.0} for token in kept]
    behind = [{token: 1 / len(members) for token in members} for _, members in clusters]
    centre, end = (outcome(evidence, f":merged={where}") for where in ("centre", "end"))
    assert [place for place, _ in centre] == [place for place, _ in end]
    assert ahead + behind == [weights for _, weights in end]
    assert len(clusters) == 2
    assert [weights for _, weights in centre] != [weights for _, weights in end]


def test_no_recycling_is_a_plain_choice_of_the_most_attended():
    evidence = made(5, 2, 31, 9)
    for options in (":recycle=0", ":variant=plus"):
        found = selected(evidence, options)
        assert found.weights is None
        assert [sorted(np.argsort(-row)[:9]) for row in evidence.scores.numpy()] == found.positions.tolist()


def test_plus_reads_the_corrected_attention_and_v1_the_models():
    for options, kind in ((":variant=plus", "unbiased"), ("", "attention")):
        evidence = made(5, 1, 31, 9)
        selected(evidence, options)
        assert [kind] == evidence.kinds
        assert (kind,) == planned(options, keep=9).stages[0].reads


def test_a_row_of_a_batch_is_clustered_as_it_is_alone_in_half_precision_too():
    evidence = made(11, 3, 200, 90, width=64)
    evidence = attrs.evolve(evidence, states=evidence.states.half())
    together = selected(evidence)
    for row in range(3):
        alone = attrs.evolve(evidence, scores=evidence.scores[[row]], states=evidence.states[[row]])
        found = selected(alone)
        assert torch.equal(together.positions[row], found.positions[0])
        assert torch.equal(together.weights[row], found.weights[0])


def test_a_geometry_without_image_is_refused():
    with pytest.raises(BudgetError):
        planned("", Geometry(**{**attrs.asdict(LLAVA), "visual_tokens": 0}), keep=3)
