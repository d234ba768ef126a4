"""The facade: what it computes, and that nothing a strategy gets wrong passes it unnamed."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.budget import Budget
from headwise.errors import BudgetError, ContractError, HeadwiseError, StrategyError
from headwise.families import shape
from headwise.hookspecs import hookimpl
from headwise.layout import IMAGE, PADDING, SYSTEM, TEXT, Layout
from headwise.pipeline import Pipeline
from headwise.plan import UNUSED, PruningPlan, Queries, Selection, Stage
from headwise.recipe import Recipe
from headwise.registry import Strategy
from headwise.selection import top

laws = settings(deadline=None, max_examples=50, derandomize=True)
GEOMETRY = shape("demo-llava")
LAYOUT = Layout(np.array([[PADDING, SYSTEM, IMAGE, IMAGE, TEXT], [SYSTEM, IMAGE, IMAGE, TEXT, TEXT]], dtype=np.uint8))


class Answers:
    """Strategies that answer what the test says."""

    def __init__(self, what):
        self.what = what


class Scorer(Answers):
    @hookimpl
    def head_scoring(self, attention):
        return self.what(attention) if callable(self.what) else self.what


class Counter(Answers):
    @hookimpl
    def head_count(self, scores):
        return self.what


class Asker(Answers):
    @hookimpl
    def query_selection(self, layout):
        return self.what


class Pruner(Answers):
    @hookimpl
    def token_pruning(self, geometry, budget):
        return self.what


HOOK_OF = {Scorer: "head_scoring", Counter: "head_count", Asker: "query_selection", Pruner: "token_pruning"}


def pipeline(*plugins, observers=(), **settings):
    strategies = {
        HOOK_OF[type(plugin)]: Strategy(HOOK_OF[type(plugin)], "mine", "extra 2.0", plugin) for plugin in plugins
    }
    return Pipeline(Recipe(strategies=strategies, **settings), observers)


def no_seeds():
    raise AssertionError("nobody reads seeds")


def choose(run, attention):
    return run.choose_heads(attention, 0.5, no_seeds)


def refused(call, *arguments):
    with pytest.raises(ContractError) as caught:
        call(*arguments)
    return str(caught.value)


ATTENTION = torch.tensor([[[0.1, 0.2], [0.3, 0.0], [0.2, 0.2]]])  # sums .3, .3, .4
SCORER = "head_scoring strategy 'mine' (extra 2.0)"
RULE = "head_count strategy 'mine' (extra 2.0)"
PRUNER = "token_pruning strategy 'mine' (extra 2.0)"
ASKER = "query_selection strategy 'mine' (extra 2.0)"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, f"{SCORER} returned None; wanted scores (batch, heads)"),
        (0.5, f"{SCORER} returned a float as scores; wanted a tensor of shape (1, 3)"),
        (torch.zeros(3), f"{SCORER} returned scores of shape (3,); wanted (1, 3)"),
        (torch.zeros(1, 3, dtype=torch.bool), f"{SCORER} returned scores of dtype torch.bool; wanted real numbers"),
        (
            torch.tensor([[0.0, float("nan"), 1.0]]),
            f"{SCORER} returned NaN or infinite scores; wanted finite ones, or -inf to veto",
        ),
        (
            torch.tensor([[0.0, float("inf"), 1.0]]),
            f"{SCORER} returned NaN or infinite scores; wanted finite ones, or -inf to veto",
        ),
    ],
    ids=["none", "no tensor", "shape", "bool", "nan", "infinite"],
)
def test_scores_that_break_the_contract_name_their_owner(scores, message):
    run = pipeline(Scorer(scores), Counter(torch.tensor([1])))
    assert message == refused(choose, run, ATTENTION)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, f"{RULE} returned None; wanted integers (batch,)"),
        (2, f"{RULE} returned an int as head counts; wanted a tensor of shape (1,)"),
        (torch.tensor([1, 1]), f"{RULE} returned head counts of shape (2,); wanted (1,)"),
        (torch.tensor([1.0]), f"{RULE} returned head counts of dtype torch.float32; wanted integers"),
        (torch.tensor([0]), f"{RULE} wants 0 heads; this model has 1..3 to choose from"),
        (torch.tensor([4]), f"{RULE} wants 4 heads; this model has 1..3 to choose from"),
    ],
    ids=["none", "no tensor", "shape", "float", "zero", "too many"],
)
def test_head_counts_that_break_the_contract_name_their_owner(counts, message):
    run = pipeline(Scorer(lambda attention: attention.sum(-1)), Counter(counts))
    assert message == refused(choose, run, ATTENTION)


@pytest.mark.parametrize("target", [0, 4, 1.0, True, "2", float("nan")])
def test_a_count_that_is_announced_and_impossible_names_its_owner(target):
    class Announcing(Counter):
        def target(self, heads):
            return self.what

    rule = Strategy("head_count", "mine", "extra 2.0", Announcing(target))
    scorer = Strategy("head_scoring", "mine", "extra 2.0", Scorer(torch.zeros(1, 3)))
    run = Pipeline(Recipe(strategies={"head_scoring": scorer, "head_count": rule}))
    expected = f"{RULE} has target(3)={target!r}; wanted a whole number in 1..3, or None"
    assert expected == refused(choose, run, ATTENTION)


@pytest.mark.parametrize(("values", "count"), [([], 0), ([1, 2], 2), (torch.zeros(3), 3), (7, 0)])
def test_notes_that_are_not_one_for_each_row_name_their_owner(values, count):
    class Noting:
        @hookimpl
        def head_scoring(self, attention, note):
            note("why", values)
            return attention.sum(-1)

    scorer = Strategy("head_scoring", "mine", "extra 2.0", Noting())
    rule = Strategy("head_count", "mine", "extra 2.0", Counter(torch.tensor([1])))
    run = Pipeline(Recipe(strategies={"head_scoring": scorer, "head_count": rule}))
    expected = f"{SCORER} noted {count} values of 'why' for 1 rows; wanted one for each row"
    assert expected == refused(choose, run, ATTENTION)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_made_in_half_precision_are_taken(dtype):
    queries = Queries(np.array([[3, 4]]), lambda rows: torch.tensor([[0.25, 0.75]], dtype=dtype))
    found = pipeline(Asker(queries)).attend(torch.ones(1, 2, 2, 3), queries)
    torch.testing.assert_close(found, torch.ones(1, 2, 3))


@attrs.frozen
class Evidence:
    """Evidence of nothing in particular."""

    batch: int = 1
    visual: int = 4
    keep: int = 2


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (None, f"{PRUNER} selected with a NoneType; wanted token scores, kept positions or Merged"),
        (torch.zeros(1, 3), f"{PRUNER} returned token scores of shape (1, 3); wanted (1, 4)"),
        (torch.tensor([[0.0, float("nan"), 1.0, 2.0]]), f"{PRUNER} returned NaN token scores; wanted numbers"),
        (torch.tensor([[0, 1, 2]]), f"{PRUNER} returned kept positions of shape (1, 3); wanted (1, 2)"),
        (torch.tensor([[3, 3]]), f"{PRUNER} kept a position twice; wanted 2 different ones"),
        (torch.tensor([[0, 4]]), f"{PRUNER} kept position 4; wanted 0..3"),
        (torch.tensor([[-1, 2]]), f"{PRUNER} kept position -1; wanted 0..3"),
    ],
    ids=["none", "shape", "nan", "number", "repeated", "too high", "negative"],
)
def test_selections_that_break_the_contract_name_their_owner(outcome, message):
    run = pipeline(Pruner(None))
    stage = Stage(layer=2, keep=2, select=lambda evidence: outcome)
    assert message == refused(run.select, stage, Evidence())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (None, f"{PRUNER} returned None; wanted a headwise.plan.PruningPlan"),
        ([2, 16], f"{PRUNER} returned a list; wanted a headwise.plan.PruningPlan"),
    ],
)
def test_plans_that_break_the_contract_name_their_owner(plan, message):
    assert message == refused(pipeline(Pruner(plan)).plan, GEOMETRY)


def uniform(positions):
    return Queries(np.array(positions), np.full(np.shape(positions), 1 / np.shape(positions)[1]))


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (None, f"{ASKER} returned None; wanted headwise.plan.Queries"),
        ([[4]], f"{ASKER} returned a list; wanted headwise.plan.Queries"),
        (uniform([[4]]), f"{ASKER} returned positions of shape (1, 1); wanted (2, queries)"),
        (
            Queries(np.array([[UNUSED], [4]]), np.array([[0.0], [1.0]])),
            f"{ASKER} chose no query token for row 0; wanted at least one",
        ),
        (uniform([[4], [5]]), f"{ASKER} chose position 5 of row 1; wanted 0..4"),
        (uniform([[0], [4]]), f"{ASKER} chose padding as a query token in row 0; wanted real tokens"),
        (uniform([[3, 4], [4, 4]]), f"{ASKER} chose a query token of row 1 twice; wanted different ones"),
        (
            Queries(np.array([[4], [4]]), np.ones((2, 2))),
            f"{ASKER} gave weights (2, 2) for positions (2, 1)",
        ),
        (
            Queries(np.array([[3, 4], [3, 4]]), np.array([[1.5, -0.5], [0.5, 0.5]])),
            f"{ASKER} gave query weights that are negative or not finite",
        ),
        (
            Queries(np.array([[4], [4]]), np.array([[1.0], [np.nan]])),
            f"{ASKER} gave query weights that are negative or not finite",
        ),
        (
            Queries(np.array([[4, UNUSED], [3, 4]]), np.array([[0.5, 0.5], [0.5, 0.5]])),
            f"{ASKER} gave weight to an unused query slot",
        ),
        (
            Queries(np.array([[4], [4]]), np.array([[1.0], [0.5]])),
            f"{ASKER} gave query weights that sum to [1.0, 0.5]; wanted 1",
        ),
    ],
    ids=["none", "kind", "rows", "nothing", "range", "padding", "twice", "shape", "negative", "nan", "unused", "sum"],
)
def test_queries_that_break_the_contract_name_their_owner(queries, message):
    assert message == refused(pipeline(Asker(queries)).queries, LAYOUT)


def test_weights_made_from_attention_are_checked_like_given_ones():
    queries = Queries(np.array([[3, 4]]), lambda rows: rows.sum(dim=(1, 3)))
    expected = f"{ASKER} gave query weights that sum to [12.0]; wanted 1"
    assert expected == refused(pipeline(Asker(queries)).attend, torch.ones(1, 2, 2, 3), queries)


def test_missing_hook_says_how_to_name_a_strategy():
    with pytest.raises(StrategyError, match=r"^no token_pruning strategy is named; add one with --strategy NAME$"):
        pipeline(Asker(None)).plan(GEOMETRY)


@laws
@given(st.integers(0, 10_000))
def test_attending_is_the_weighted_mean_over_queries(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, 3, 4, 5, generator=generator)
    weights = torch.rand(2, 4, generator=generator).softmax(dim=-1)
    queries = Queries(np.array([[1, 2, 3, 4]] * 2), weights.double().numpy())
    expected = sum(weights[:, None, query, None] * rows[:, :, query] for query in range(4))
    torch.testing.assert_close(pipeline(Asker(None)).attend(rows, queries), expected)


def test_unused_query_slots_are_filled_and_weigh_nothing():
    queries = Queries.of([[3], [1, 2]])
    assert queries.positions.tolist() == [[3, UNUSED], [1, 2]]
    assert queries.weights.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert Queries.of([[1, 2]], [[0.25, 0.75]]).weights.tolist() == [[0.25, 0.75]]


def test_equal_heads_go_to_the_lower_index():
    run = pipeline(Scorer(lambda attention: attention.sum(-1)), Counter(torch.tensor([2])))
    assert choose(run, ATTENTION).kept.tolist() == [[True, False, True]]


@laws
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3), st.integers(1, 6))
def test_top_keeps_the_highest_and_of_equals_the_lowest_positions(rows, keep):
    expected = [sorted(sorted(range(6), key=lambda at: (-row[at], at))[:keep]) for row in rows]
    assert expected == top(torch.tensor(rows, dtype=torch.float32), keep).tolist()


def test_vetoed_heads_are_never_kept_however_high_the_count():
    run = pipeline(Scorer(torch.tensor([[1.0, float("-inf"), 0.0]])), Counter(torch.tensor([3])))
    assert choose(run, ATTENTION).kept.tolist() == [[True, False, True]]


def test_one_head_is_kept_when_all_are_vetoed():
    run = pipeline(Scorer(torch.full((1, 3), float("-inf"))), Counter(torch.tensor([3])))
    assert choose(run, ATTENTION).kept.tolist() == [[True, False, False]]


def test_heads_below_the_wanted_mass_cannot_be_chosen():
    run = pipeline(Scorer(torch.tensor([[3.0, 2.0, 1.0]])), Counter(torch.tensor([1])), min_mass=0.35)
    assert choose(run, ATTENTION).kept.tolist() == [[False, False, True]]


def test_wanted_mass_that_no_head_has_is_ignored_row_by_row():
    attention = torch.cat([ATTENTION, ATTENTION / 10])
    run = pipeline(Scorer(torch.tensor([[3.0, 2.0, 1.0]] * 2)), Counter(torch.tensor([1, 1])), min_mass=0.35)
    assert choose(run, attention).kept.tolist() == [[False, False, True], [True, False, False]]


def test_sinks_are_hidden_from_scoring_and_from_nothing_else():
    attention = torch.tensor([[[0.8, 0.1, 0.1], [0.7, 0.0, 0.2]]])  # token 0 draws .8 and .78 of the image attention
    seen = []
    run = pipeline(Scorer(lambda a: seen.append(a) or a.sum(-1)), Counter(torch.tensor([1])), sink_share=0.5)
    choice = choose(run, attention)
    torch.testing.assert_close(seen[0], torch.tensor([[[0.0, 0.1, 0.1], [0.0, 0.0, 0.2]]]))
    assert choice.kept.tolist() == [[True, False]]
    torch.testing.assert_close(run.token_scores(attention, choice), attention[:, 0])


def test_no_token_is_a_sink_by_default():
    seen = []
    run = pipeline(Scorer(lambda a: seen.append(a) or a.sum(-1)), Counter(torch.tensor([1])))
    choose(run, torch.tensor([[[1.0, 0.0]]]))
    assert seen[0].tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("mean", [[0.2, 0.1]]),  # heads 1 and 2: (.3 + .1) / 2, (.0 + .2) / 2
        ("normalised", [[(1.0 + 1 / 3) / 2, (0.0 + 2 / 3) / 2]]),
        ("weighted", [[0.75 * 0.3 + 0.25 * 0.1, 0.25 * 0.2]]),  # softmax(ln 3, 0)
    ],
)
def test_kept_heads_are_aggregated_as_the_recipe_says(aggregate, expected):
    attention = torch.tensor([[[0.9, 0.9], [0.3, 0.0], [0.1, 0.2]]])
    scores = torch.tensor([[-5.0, float(np.log(3)), 0.0]])
    run = pipeline(Scorer(scores), Counter(torch.tensor([2])), aggregate=aggregate)
    torch.testing.assert_close(run.token_scores(attention, choose(run, attention)), torch.tensor(expected))


def test_heads_that_see_nothing_normalise_to_nothing():
    run = pipeline(Scorer(torch.zeros(1, 2)), Counter(torch.tensor([2])), aggregate="normalised")
    attention = torch.zeros(1, 2, 3)
    assert run.token_scores(attention, choose(run, attention)).tolist() == [[0.0, 0.0, 0.0]]


def test_scores_select_the_best_tokens_and_are_handed_on():
    scores = torch.tensor([[0.1, 0.5, 0.5, 0.2]])
    found = pipeline(Pruner(None)).select(Stage(2, 2, lambda evidence: scores), Evidence())
    assert found.positions.tolist() == [[1, 2]]
    assert found.scores is scores


def test_positions_are_sorted_and_come_without_scores():
    found = pipeline(Pruner(None)).select(Stage(2, 2, lambda evidence: torch.tensor([[3, 0]])), Evidence())
    assert found.positions.tolist() == [[0, 3]]
    assert found.scores is None


def test_strategies_get_target_share_seeds_and_a_place_for_notes():
    class Curious:
        @hookimpl
        def head_scoring(self, attention, target, share, seeds, note):
            note("seen", [(target, share, seeds.tolist())])
            return attention.sum(-1)

    class Two:
        def target(self, heads):
            return heads - 1

        @hookimpl
        def head_count(self, scores):
            return torch.full((scores.shape[0],), self.target(scores.shape[1]))

    strategies = {
        "head_scoring": Strategy("head_scoring", "curious", "extra 2.0", Curious()),
        "head_count": Strategy("head_count", "two", "extra 2.0", Two()),
    }
    run = Pipeline(Recipe(strategies=strategies))
    choice = run.choose_heads(ATTENTION, 0.25, lambda: torch.tensor([7]))
    assert choice.notes == {"seen": [(2, 0.25, [7])]}


def test_observers_see_selections_and_wrap_strategies():
    class Observer:
        def __init__(self):
            self.calls, self.selections = [], []

        @hookimpl(wrapper=True)
        def head_scoring(self, attention):
            self.calls.append(tuple(attention.shape))
            return (yield)

        @hookimpl
        def selected(self, selection):
            self.selections.append(selection)

    observer = Observer()
    run = pipeline(Scorer(lambda a: a.sum(-1)), Counter(torch.tensor([1])), observers=[observer])
    choose(run, ATTENTION)
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    shown = Selection(layer=2, rows=(0,), entered=nothing, kept=nothing, attention=None, token_scores=None, heads=None)
    run.observe(shown)
    assert ([(1, 3, 2)], [shown]) == (observer.calls, observer.selections)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            ((4, 72), (2, 36)),
            "a stage before layer 2 does not follow layer 4 within the 12 layers of demo-llava; order stages by layer",
        ),
        (
            ((12, 72),),
            "a stage before layer 12 does not follow layer -1 within the 12 layers of demo-llava; order stages by"
            " layer",
        ),
        (((2, 0),), "a stage before layer 2 keeps 0 of 144 visual tokens; keep 1..144"),
        (((2, 36), (4, 72)), "a stage before layer 4 keeps 72 of 36 visual tokens; keep 1..36"),
    ],
)
def test_plans_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(BudgetError) as caught:
        PruningPlan(GEOMETRY, tuple(Stage(layer, keep, lambda evidence: None) for layer, keep in stages))
    assert message == str(caught.value)


def test_plan_counts_what_its_layers_process():
    plan = PruningPlan(GEOMETRY, (Stage(2, 36, lambda evidence: None), Stage(6, 12, lambda evidence: None)))
    assert plan.processed == (144,) * 2 + (36,) * 4 + (12,) * 6
    assert (plan.average, plan.kept, plan.share) == (42.0, 12, 42 / 144)


@pytest.mark.parametrize(("visual", "expected"), [(144, 16), (288, 32), (72, 8), (1, 1), (0, 0), (4, 1)])
def test_stages_scale_with_the_visual_tokens_of_a_row(visual, expected):
    assert expected == Stage(2, 16, lambda evidence: None).keep_of(visual, GEOMETRY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": "drop"}, "positions='drop' is not one of keep, compact"),
        ({"aggregate": "max"}, "aggregate='max' is not one of mean, normalised, weighted"),
        ({"min_mass": 2}, "min_mass=2 is not a share; give a number in 0..1"),
        ({"sink_share": -0.5}, "sink_share=-0.5 is not a share; give a number in 0..1"),
    ],
)
def test_recipe_settings_are_checked(settings, message):
    with pytest.raises(HeadwiseError) as caught:
        Recipe(strategies={}, budget=Budget(), **settings)
    assert message == str(caught.value)


@attrs.frozen
class Spendthrift:
    """Plans what it likes, whatever the budget is."""

    keep: int | None

    @hookimpl
    def token_pruning(self, geometry):
        stages = () if self.keep is None else (Stage(2, self.keep, lambda evidence: evidence.attention()),)
        return PruningPlan(geometry, stages)


@pytest.mark.parametrize(
    ("keep", "budget", "message"),
    [
        (10, {"keep": 5}, "was given keep=5 and leaves 10 tokens after its last stage"),
        (6, {"tokens": 39}, r"was given tokens=39 and plans an average of 41\.62 per layer; wanted within a token"),
        (None, {"tokens": 39}, r"was given tokens=39 and plans an average of 576 per layer"),
        (None, {"keep": 64}, "was given keep=64 and leaves 576 tokens"),
    ],
)
def test_a_plan_that_ignores_its_budget_names_its_owner(keep, budget, message):
    given = Strategy("token_pruning", "spendthrift", "somebody 1.0", Spendthrift(keep))
    run = Pipeline(Recipe(strategies={"token_pruning": given}, budget=Budget(**budget)))
    with pytest.raises(ContractError, match=f"spendthrift.*somebody 1.0.*{message}"):
        run.plan(shape("llava-1.5-7b"))


@pytest.mark.parametrize(
    ("keep", "budget"), [(3, {"tokens": 38.8125}), (4, {"tokens": 39}), (5, {"keep": 5}), (None, {})]
)
def test_a_plan_within_its_budget_is_taken(keep, budget):
    given = Strategy("token_pruning", "spendthrift", "somebody 1.0", Spendthrift(keep))
    run = Pipeline(Recipe(strategies={"token_pruning": given}, budget=Budget(**budget)))
    assert len(run.plan(shape("llava-1.5-7b")).stages) == (keep is not None)
