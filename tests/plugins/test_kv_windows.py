"""KV eviction by position: the seed's effective contexts, windows by class, the null control, and allocation."""

from __future__ import annotations

import itertools
from collections import Counter

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import Geometry, HeadProfile, Pipeline, Recipe, ScorePlan, WindowPlan, hookimpl, resolve, shape
from headwise.errors import BudgetError, DataError, StrategyError
from headwise.eviction import UNBOUNDED
from headwise.heads import WINDOWS, HeadLabels
from headwise.registry import Strategy

laws = settings(deadline=None, max_examples=50, derandomize=True)

CLASSES = ("positional", "mixed", "gathering", "idle")
TINY = Geometry(name="tiny", layers=2, heads=4, kv_heads=2, head_dim=4, hidden=16, intermediate=32, visual_tokens=0)
SEED = {"gathering": 88, "mixed": 566, "positional": 370}  # heads of Pythia-2.8B by class, section 2.1 of seed 004


def profile_of(labels, geometry, *, confidence=1.0, names=CLASSES, windows=(), mass=None):
    """A profile with these class indices, in the order of heads."""
    labels = np.resize(np.asarray(labels, dtype=np.int64), (geometry.layers, geometry.heads))
    sure = np.resize(np.asarray(confidence, dtype=np.float64), labels.shape)
    found = HeadLabels(names=names, labels=labels, confidence=sure)
    return HeadProfile(model=geometry.name, labels=found, windows=windows, mass=mass)


def planned(text, geometry=TINY, profile=None):
    strategy = resolve(f"kv_eviction={text}")
    return Pipeline(Recipe(strategies={"kv_eviction": strategy}, profile=profile)).eviction(geometry)


def message_of(text, geometry=TINY, profile=None, error=StrategyError):
    with pytest.raises(error) as caught:
        planned(text, geometry, profile)
    return str(caught.value)


def seed_profile(confidence=None):
    order = [CLASSES.index(name) for name, count in SEED.items() for _ in range(count)]
    sure = [(confidence or {}).get(CLASSES[label], 0.5) for label in order]
    return profile_of(order, shape("pythia-2.8b"), confidence=sure)


@pytest.mark.parametrize(
    ("context", "text"),
    [  # run of seed 004, section 4.1
        (64.0, "window:window=64"),  # A_window_64
        (64.0, "streaming:sinks=4,window=60"),  # B_streaming_64
        (512.0, "streaming:sinks=4,window=508"),  # B_streaming_512
        (68.0, "head_windows:positional=64,mixed=64,gathering=64"),  # K_uniform64_aware
        (132.0, "head_windows:positional=128,mixed=128,gathering=128"),  # K_uniform128_aware
        (73.5, "head_windows:positional=64,mixed=64,gathering=128"),  # J_pos64_mix64_g128
        (178.2, "head_windows:positional=256,mixed=128,gathering=128"),  # I_pos256_mix128_g128
        (235.4, "head_windows:positional=512,mixed=64,gathering=128"),  # I_pos512_mix64_g128
        (142.9, "head_windows:positional=256,mixed=64,gathering=128"),  # I_pos256_mix64_g128
    ],
)
def test_effective_contexts_are_those_of_the_seed(context, text):
    assert context == round(planned(text, shape("pythia-2.8b"), seed_profile()).context(), 1)


def test_a_few_sure_positional_heads_give_the_seeds_confidence_run():
    """G_conf0.6_base128: 34 heads reach .6, all of them positional; the seed's table says 128.3."""
    geometry = shape("pythia-2.8b")
    order = [0] * 370 + [1] * 566 + [2] * 88
    sure = [0.61] * 34 + [0.4] * 336 + [0.5] * 566 + [0.59] * 88
    plan = planned("confidence_windows:threshold=0.6,base=128", geometry, profile_of(order, geometry, confidence=sure))
    assert Counter(plan.windows.ravel().tolist()) == {16: 34, 128: 990}
    assert round(plan.context(), 1) == 128.3


@pytest.mark.parametrize(("threshold", "narrowed"), [(0.5, 566), (0.55, 0)])
def test_no_threshold_above_a_half_selects_the_seeds_mixed_heads(threshold, narrowed):
    text = f"confidence_windows:threshold={threshold},base=128,positional=128,mixed=64,gathering=128"
    plan = planned(text, shape("pythia-2.8b"), seed_profile({"gathering": 0.3, "positional": 0.3}))
    assert narrowed == (plan.windows == 64).sum()


def test_uniform_windows_of_classes_are_streaming_with_four_more_entries():
    aware = planned("head_windows:positional=64,mixed=64,gathering=64", TINY, profile_of([0, 1, 2, 3], TINY))
    streaming = planned("streaming:sinks=4,window=64")
    for name in ("sinks", "windows"):
        assert getattr(streaming, name).tolist() == getattr(aware, name).tolist()
    assert streaming.positions == aware.positions == "relative"


def test_none_keeps_every_entry():
    plan = planned("none")
    assert plan.keeps_everything
    assert plan.visible(100_000).tolist() == [[100_000] * 2] * 2


def test_window_has_no_sinks_and_streaming_the_published_four():
    plans = [planned("window"), planned("streaming")]
    assert [(int(plan.sinks.max()), int(plan.windows.min())) for plan in plans] == [(0, 64), (4, 60)]
    assert [int(plan.visible(1000).min()) for plan in plans] == [64, 64]


@pytest.mark.parametrize("name", ["streaming", "head_windows", "confidence_windows", "allocated"])
@pytest.mark.parametrize(("given", "wanted"), [("", "relative"), (":positions=original", "original")])
def test_distances_to_sinks_are_counted_in_the_cache_unless_asked_otherwise(name, given, wanted):
    assert wanted == planned(name + given, TINY, measured(TINY, 0)).positions


def test_shared_keys_get_the_largest_window_of_their_heads():
    profile = profile_of([0, 1, 1, 2, 0, 0, 3, 3], TINY)  # two query heads to a KV head
    plan = planned("head_windows:positional=16,mixed=32,gathering=64,idle=8", TINY, profile)
    assert plan.windows.tolist() == [[32, 64], [16, 8]]


def test_idle_heads_are_as_mixed_or_as_positional_unless_given():
    profile = profile_of([3], TINY, confidence=1.0)
    texts = (
        "head_windows:mixed=32",
        "confidence_windows:positional=8",
        "head_windows:idle=5",
        "confidence_windows:idle=5",
    )
    assert [int(planned(text, TINY, profile).windows.max()) for text in texts] == [32, 8, 5, 5]


@laws
@given(st.integers(0, 2**20), st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0)))
def test_only_heads_that_are_sure_enough_get_the_window_of_their_class(seed, threshold):
    rng = np.random.default_rng(seed)
    labels, sure = rng.integers(0, 3, (2, 4)), rng.choice((0.0, 0.25, 0.5, 0.75, 1.0), (2, 4))
    plan = planned(
        f"confidence_windows:threshold={threshold},base=50,positional=16,mixed=64,gathering=256",
        TINY,
        profile_of(labels, TINY, confidence=sure),
    )
    each = [[(16, 64, 256)[labels[i, j]] if sure[i, j] >= threshold else 50 for j in range(4)] for i in range(2)]
    assert [[max(row[:2]), max(row[2:])] for row in each] == plan.windows.tolist()


@pytest.mark.parametrize("name", ["head_windows", "confidence_windows", "allocated"])
def test_without_a_profile_the_sentence_says_how_to_make_one(name):
    expected = (
        f"kv_eviction strategy '{name}' needs a head profile; make one with `headwise classify-heads --out"
        " profile.json` and give it with --profile profile.json (in Python: Recipe.of(..., profile='profile.json'))"
    )
    assert expected == message_of(name, error=DataError)


def test_a_class_without_a_window_is_named_with_its_option():
    profile = profile_of([0, 1, 1, 1], TINY, names=("retrieval", "other"))
    start = "kv_eviction strategy 'head_windows' is given nothing for the"
    assert f"{start} 2 heads of class 'retrieval'; give the option retrieval=N" == message_of(
        "head_windows", TINY, profile
    )
    assert f"{start} 6 heads of class 'other'; give the option other=N" == message_of(
        "head_windows:retrieval=256", TINY, profile
    )
    assert planned("head_windows:retrieval=256,other=16", TINY, profile).windows.tolist() == [[256, 16]] * 2


@pytest.mark.parametrize("name", ["head_windows", "confidence_windows"])
def test_a_class_nobody_knows_is_named_with_those_that_are_known(name):
    message = message_of(name, TINY, profile_of([0], TINY, names=("sleepy",)))
    assert f"kv_eviction strategy '{name}' is given nothing for the 8 heads of class 'sleepy'; it knows pos" in message


def test_a_class_without_heads_needs_no_window():
    plan = planned("head_windows", TINY, profile_of([1], TINY, names=("retrieval", "mixed")))
    assert plan.windows.tolist() == [[64] * 2] * 2


def pairs(plan):
    return Counter(zip(plan.sinks.ravel().tolist(), plan.windows.ravel().tolist(), strict=True))


@attrs.frozen(eq=False)
class _Staircase:
    """Every KV head has sinks and a window of its own."""

    @hookimpl
    def kv_eviction(self, geometry):
        steps = np.arange(geometry.layers * geometry.kv_heads).reshape(geometry.layers, -1)
        return WindowPlan(geometry=geometry, sinks=steps, windows=100 + steps, positions="relative")


@attrs.frozen(eq=False)
class _Scored:
    @hookimpl
    def kv_eviction(self, geometry):
        return ScorePlan(geometry=geometry, budget=8, score=lambda evidence: evidence.keys.sum(-1))


@pytest.fixture
def wrapping(monkeypatch):
    """Make ``permuted`` find this plugin whatever it is told to wrap."""

    def wrap(plugin):
        found = Strategy("kv_eviction", "staircase", "zebra 1.2", plugin)
        monkeypatch.setattr("headwise.composition.resolve", lambda text, hooks, prefer=None: found)

    return wrap


@pytest.mark.parametrize("within", ["model", "layer"])
def test_permuted_windows_stay_with_their_sinks(wrapping, within):
    wrapping(_Staircase())
    geometry = attrs.evolve(TINY, layers=6, heads=8, kv_heads=8)
    plan = planned(f"permuted:of=staircase,within={within}", geometry)
    assert {(step, 100 + step): 1 for step in range(48)} == pairs(plan)
    assert plan.positions == "relative"
    assert plan.windows.tolist() != (100 + np.arange(48).reshape(6, 8)).tolist()
    layers = [{(window - 100) // 8 for window in row} for row in plan.windows.tolist()]
    assert (within == "layer") == (layers == [{layer} for layer in range(6)])


@laws
@given(st.integers(0, 2**20), st.integers(0, 5))
def test_permuted_plans_hold_what_the_plan_they_come_from_holds(seed, deal):
    profile = profile_of(np.random.default_rng(seed).integers(0, 4, (2, 4)), TINY)
    inner = "head_windows:positional=16,mixed=64,gathering=256,idle=4"
    plan = planned(inner, TINY, profile)
    control = planned(f"permuted:of=[{inner}],seed={deal}", TINY, profile)
    assert pairs(plan) == pairs(control)
    assert [plan.context(100), plan.kv_bytes(100)] == [control.context(100), control.kv_bytes(100)]


def test_permuted_deals_anew_with_another_seed_and_the_same_with_the_same():
    geometry = shape("pythia-2.8b")
    deals = [planned(f"permuted:seed={seed}", geometry, seed_profile()).windows.tobytes() for seed in (0, 1, 2, 0)]
    assert (len(set(deals)), deals[0] == deals[3]) == (3, True)


def test_permuted_favours_no_head():
    """Half of the windows are wide: every place has one in about half of the deals."""
    geometry = attrs.evolve(TINY, kv_heads=4)
    plan = planned("permuted:of=head_windows", geometry, profile_of([0, 0, 2, 2], geometry))
    deals = [planned(f"permuted:seed={seed}", geometry, profile_of([0, 0, 2, 2], geometry)) for seed in range(100)]
    wide = sum((deal.windows == plan.windows.max()).astype(int) for deal in deals)
    assert (abs(wide - 50) < 4 * 5).all()


def test_permuted_spells_out_what_it_wraps():
    short, long = (resolve(f"permuted:of={text}").text for text in ("streaming", "[streaming:window=60,sinks=4]"))
    assert short == long == "permuted:of=[streaming:sinks=4,window=60,positions=relative],seed=0,within=model"
    assert short == resolve(short).text


def test_permuted_refuses_a_strategy_without_windows(wrapping):
    wrapping(_Scored())
    assert message_of("permuted:of=staircase") == (
        "kv_eviction strategy 'permuted' deals windows at random, but 'staircase' scores entries and has none; give a"
        " strategy of windows such as of=head_windows"
    )


def test_permuted_passes_errors_of_what_it_wraps_on():
    assert "'head_windows' needs a head profile" in message_of("permuted", error=DataError)


def measured(geometry, seed, windows=WINDOWS):
    """A profile with made-up curves that rise by chance and stop below 1."""
    rng = np.random.default_rng(seed)
    gains = rng.exponential(size=(geometry.layers, geometry.heads, len(windows))) ** 3
    mass = gains.cumsum(axis=-1) / gains.sum(axis=-1, keepdims=True) * 0.9
    labels = rng.integers(0, 4, (geometry.layers, geometry.heads))
    return profile_of(labels, geometry, windows=windows, mass=mass)


def envelope(windows, mass, least, window):
    """The smallest concave curve above the points, by its definition: the best chord over ``window``."""
    points = [(least, float(np.interp(least, (0, *windows), (0, *mass))))]
    points += [point for point in zip(windows, mass, strict=True) if point[0] > least]
    if window >= points[-1][0]:
        return points[-1][1]
    chords = [(a, b) for a, b in itertools.product(points, points) if a[0] <= window < b[0]]
    return max(a[1] + (window - a[0]) * (b[1] - a[1]) / (b[0] - a[0]) for a, b in chords)


@laws
@given(st.integers(0, 2**20), st.sampled_from((4, 5, 5.25)), st.sampled_from((0.2, 0.5)))
def test_allocated_windows_hold_as_much_attention_as_any_with_that_budget(seed, budget, floor):
    """Against every way to divide the entries; windows are kept small so that there are few enough."""
    grid = (1, 2, 4, 7)
    profile = measured(TINY, seed, grid)
    least = max(1, int(floor * budget) - 1)
    summed = profile.mass.reshape(4, 2, len(grid)).sum(axis=1)
    total = round((budget - 1) * 4)
    value = [{window: envelope(grid, mass, least, window) for window in range(least, total + 1)} for mass in summed]
    best = max(
        sum(value[head][window] for head, window in enumerate(windows))
        for windows in itertools.product(range(least, total + 1), repeat=4)
        if sum(windows) == total
    )
    plan = planned(f"allocated:budget={budget},floor={floor},sinks=1", TINY, profile)
    found = sum(value[head][window] for head, window in enumerate(plan.windows.ravel().tolist()))
    assert best == pytest.approx(found, abs=1e-9)


WIDE = Geometry(name="wide", layers=3, heads=12, kv_heads=12, head_dim=4, hidden=48, intermediate=96, visual_tokens=0)


@laws
@given(
    st.integers(0, 2**20),
    st.sampled_from((6, 16, 64, 73.5, 200, 6000)),
    st.sampled_from((0.0, 0.25, 1.0)),
    st.integers(2, 12),
    st.sampled_from((WIDE, attrs.evolve(WIDE, kv_heads=4))),
)
def test_allocated_meets_its_budget_its_floor_and_its_levels(seed, budget, floor, levels, geometry):
    text = f"allocated:budget={budget},floor={floor},levels={levels}"
    plan = planned(text, geometry, measured(geometry, seed))
    assert budget == plan.context()
    assert plan.visible(UNBOUNDED).min() >= int(floor * budget)
    assert max(len(set(row)) for row in plan.windows.tolist()) <= levels


def test_allocated_gives_the_head_that_looks_back_most_the_widest_window():
    near, far = np.minimum(1, np.array(WINDOWS) / 8), np.minimum(1, np.array(WINDOWS) / 512)
    mass = np.stack([near, far])[[[0, 0, 0, 0], [0, 0, 1, 1]]]
    plan = planned("allocated:budget=68", TINY, profile_of([0], TINY, windows=WINDOWS, mass=mass))
    assert plan.windows.tolist() == [[13, 13], [13, 217]]  # 13 = a quarter of 68, less four sinks


def test_what_gains_nothing_is_shared_evenly():
    mass = np.broadcast_to(np.minimum(1, np.array(WINDOWS) / 8), (2, 4, len(WINDOWS)))
    plan = planned("allocated:budget=30.25", TINY, profile_of([0], TINY, windows=WINDOWS, mass=mass))
    assert plan.windows.tolist() == [[27, 26], [26, 26]]


def test_fewer_levels_lose_little_attention():
    profile = measured(WIDE, 7)

    def held(levels):
        windows = planned(f"allocated:levels={levels}", WIDE, profile).windows
        curves = zip(windows.ravel().tolist(), profile.mass.reshape(-1, len(WINDOWS)), strict=True)
        return sum(envelope(WINDOWS, mass, 12, window) for window, mass in curves)

    uniform = sum(envelope(WINDOWS, mass, 12, 60) for mass in profile.mass.reshape(-1, len(WINDOWS)))
    assert held(12) >= held(6) >= held(4) > held(2) > uniform
    assert held(6) - uniform > 0.85 * (held(12) - uniform)


def test_allocated_needs_attention_mass():
    assert message_of("allocated", TINY, profile_of([0], TINY), DataError) == (
        "the profile of 'tiny' has no attention mass by window, which kv_eviction strategy 'allocated' divides the"
        " budget by; make it again with `headwise classify-heads --out profile.json`"
    )


@pytest.mark.parametrize("budget", ["4", "4.5", "nan"])
def test_allocated_refuses_a_budget_that_cannot_hold_its_sinks_and_the_query(budget):
    with pytest.raises((BudgetError, StrategyError), match=f"budget={budget} .* at least budget=5|is not a number"):
        resolve(f"allocated:budget={budget}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("window:window=0", "'window' must be >= 1: 0"),
        ("streaming:sinks=-1", "'sinks' must be >= 0: -1"),
        ("streaming:positions=absolute", "'positions' must be in ('original', 'relative') (got 'absolute')"),
        ("head_windows:mixed=0", "'mixed' must be >= 1: 0"),
        ("head_windows:idle=0", "'idle' must be >= 1: 0"),
        ("head_windows:retrieval=wide", "'wide' is not a whole number"),
        ("confidence_windows:threshold=1.5", "'threshold' must be <= 1: 1.5"),
        ("permuted:within=head", "'within' must be in ('model', 'layer') (got 'head')"),
        ("permuted:of=streaming:window=0", None),
        ("permuted:of=adaptive", None),
        ("allocated:levels=1", "'levels' must be >= 2: 1"),
        ("allocated:floor=2", "'floor' must be <= 1: 2.0"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert f"refuses {text!r}: {reason or ''}" in str(caught.value)
