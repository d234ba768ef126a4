"""Average pooling: equality with torch's where windows fit, and a partition of the picture where they do not."""

from __future__ import annotations

import functools

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from headwise import Budget, BudgetError, Geometry, Pipeline, Recipe, shape

laws = settings(deadline=None, max_examples=60, derandomize=True, database=None)
TINY = Geometry(
    name="tiny", layers=4, heads=4, kv_heads=4, head_dim=4, hidden=16, intermediate=32, visual_tokens=12
)  # fmt: skip


@attrs.frozen
class Picture:
    """Evidence that knows nothing but shapes."""

    grid: tuple | None
    visual: int
    keep: int
    batch: int = 1


@functools.cache
def pipeline(keep=None, tokens=None):
    return Pipeline(Recipe.of("token_pruning=pooling", keep=keep, tokens=tokens))


def pooled(evidence):
    """Places (b, keep), ascending, and weights (b, keep, v) as the pipeline hands them on."""
    geometry = attrs.evolve(TINY, visual_tokens=evidence.visual)
    strategy = pipeline().recipe.strategies["token_pruning"].plugin
    (stage,) = strategy.token_pruning(geometry, Budget(keep=evidence.keep)).stages
    found = pipeline().select(stage, evidence)
    return found.positions, found.weights


def cells(evidence):
    """The first row's cells: place -> its tokens."""
    places, weights = pooled(evidence)
    return {
        place: [token for token, weight in enumerate(row) if weight]
        for place, row in zip(places[0].tolist(), weights[0].tolist(), strict=True)
    }


@st.composite
def grids(draw):
    height, width = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    return Picture((height, width), height * width, draw(st.integers(1, height * width)))


@pytest.mark.parametrize(
    ("height", "width", "keep", "window"),
    [(24, 24, 144, (2, 2)), (24, 24, 64, (3, 3)), (24, 24, 36, (4, 4)), (24, 24, 1, (24, 24)), (24, 24, 576, (1, 1)),
     (4, 6, 6, (2, 2)), (6, 4, 6, (2, 2)), (12, 24, 8, (6, 6)), (1, 12, 3, (1, 4)),
     (12, 1, 3, (4, 1))],
)  # fmt: skip
def test_where_windows_fit_it_is_average_pooling(height, width, keep, window):
    states = torch.randn(2, height * width, 5, generator=torch.Generator().manual_seed(keep))
    expected = avg_pool2d(states.mT.unflatten(-1, (height, width)), window).flatten(2).mT
    _, weights = pooled(Picture((height, width), height * width, keep, batch=2))
    torch.testing.assert_close(expected, weights @ states)


@laws
@given(grids())
def test_each_token_is_in_one_cell_and_each_cell_is_a_rectangle(picture):
    width = picture.grid[1]
    found = cells(picture)
    assert picture.keep == len(found)
    assert list(range(picture.visual)) == sorted(token for tokens in found.values() for token in tokens)
    for tokens in found.values():
        rows, columns = {token // width for token in tokens}, {token % width for token in tokens}
        assert len(tokens) == len(rows) * len(columns)
        assert len(rows) == max(rows) - min(rows) + 1
        assert len(columns) == max(columns) - min(columns) + 1


@laws
@given(grids())
def test_cells_are_equally_high_and_within_a_band_equally_wide_give_or_take_one(picture):
    width = picture.grid[1]
    bands = {}
    for tokens in cells(picture).values():
        rows, columns = {token // width for token in tokens}, {token % width for token in tokens}
        bands.setdefault((min(rows), max(rows)), []).append(len(columns))
    heights = [last - first + 1 for first, last in bands]
    counts = [len(widths) for widths in bands.values()]
    assert max(heights) - min(heights) <= 1
    assert max(counts) - min(counts) <= 1
    assert all(max(widths) - min(widths) <= 1 for widths in bands.values())


@laws
@given(grids())
def test_a_cell_stands_at_its_token_nearest_the_middle(picture):
    width = picture.grid[1]
    for place, tokens in cells(picture).items():
        y = sum(token // width for token in tokens) / len(tokens)
        x = sum(token % width for token in tokens) / len(tokens)
        assert place == min(tokens, key=lambda token: ((token // width - y) ** 2 + (token % width - x) ** 2, token))


@laws
@given(grids())
def test_all_tokens_of_a_cell_weigh_the_same(picture):
    _, weights = pooled(picture)
    torch.testing.assert_close(torch.ones(1, picture.keep), weights.sum(dim=-1))
    for row in weights[0]:
        assert len(row[row > 0].unique()) == 1


@laws
@given(st.integers(1, 60), st.data())
def test_without_a_grid_runs_of_the_reading_order_are_averaged(visual, data):
    keep = data.draw(st.integers(1, visual))
    runs = sorted(cells(Picture(None, visual, keep)).values())
    assert list(range(visual)) == [token for run in runs for token in run]
    lengths = [len(run) for run in runs]
    assert keep == len(lengths)
    assert max(lengths) - min(lengths) <= 1


def test_one_token_less_than_all_merges_one_pair_of_neighbours():
    sizes = sorted(len(tokens) for tokens in cells(Picture((24, 24), 576, 575)).values())
    assert sizes == [1] * 574 + [2]


def test_keeping_everything_merges_nothing():
    places, weights = pooled(Picture((3, 4), 12, 12, batch=2))
    assert [list(range(12))] * 2 == places.tolist()
    torch.testing.assert_close(torch.eye(12).expand(2, -1, -1), weights)


@pytest.mark.parametrize(("keep", "most"), [(12, 0), (9, 3), (6, 6), (3, 3), (1, 1)])
def test_the_plan_says_how_many_tokens_can_be_merged_ones(keep, most):
    (stage,) = pipeline(keep).plan(TINY).stages
    assert most == stage.merged


@pytest.mark.parametrize("tokens", [192, 144, 128, 64])
def test_average_budgets_are_kept_in_every_layer_because_nothing_is_full(tokens):
    plan = pipeline(tokens=tokens).plan(shape("llava-1.5-7b"))
    assert (tokens,) * 32 == plan.processed
    assert [(stage.layer, stage.reads, stage.per_image) for stage in plan.stages] == [(0, (), True)]


def test_more_tokens_than_there_are_is_refused():
    with pytest.raises(BudgetError, match="more than the 12 visual tokens of tiny"):
        pipeline(13).plan(TINY)
