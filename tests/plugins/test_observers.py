"""Observers: what Timing and Recorder see of a pipeline at work."""

from __future__ import annotations

import attrs
import pytest
import torch

from headwise import Layout, Pipeline, Recipe, Selection, StrategyError
from headwise.geometry import Geometry
from headwise.plan import HeadChoice
from headwise.registry import installed, load, only

GEOMETRY = Geometry(
    name="tiny", layers=4, heads=3, kv_heads=3, head_dim=4, hidden=12, intermediate=24, visual_tokens=4
)  # fmt: skip
PRUNING = ("query_selection", "head_scoring", "head_count", "token_pruning")


def observer(name):
    return load(only("observer", name, installed("observers")))()


@attrs.define
class Attended:
    """Evidence whose attention comes through the pipeline, as an adapter's does."""

    pipeline: Pipeline
    layout: Layout
    rows: torch.Tensor  # (b, h, q, v)
    keep: int
    mean: torch.Tensor | None = None
    choice: HeadChoice | None = None

    @property
    def batch(self):
        return len(self.layout)

    @property
    def visual(self):
        return self.rows.shape[-1]

    def seeds(self):
        return torch.arange(len(self.layout))

    def attention(self):
        self.mean = self.pipeline.attend(self.rows, self.pipeline.queries(self.layout))
        self.choice = self.pipeline.choose_heads(self.mean, 0.5, self.seeds)
        return self.pipeline.token_scores(self.mean, self.choice)


def run(recipe, observers, attention):
    """One prefill of two rows: plan, select, observe."""
    pipeline = Pipeline(recipe, observers)
    stage = pipeline.plan(GEOMETRY).stages[0]
    image = torch.tensor([[0, 1, 1, 1, 1, 0]] * 2).bool().numpy()
    layout = Layout.of(image, image | True)
    evidence = Attended(pipeline, layout, attention[:, :, None], stage.keep)
    found = pipeline.select(stage, evidence)
    selection = Selection(
        layer=stage.layer,
        rows=(0, 1),
        entered=torch.arange(4).repeat(2, 1),
        kept=found.positions,
        attention=evidence.mean,
        token_scores=found.scores,
        heads=evidence.choice,
    )
    pipeline.observe(selection)


ATTENTION = torch.tensor(
    [[[0.8, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1], [0.0, 0.1, 0.1, 0.2]],
     [[0.0, 0.1, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0], [0.2, 0.1, 0.2, 0.1]]]
)  # fmt: skip


def test_timing_sees_every_hook_of_a_run_once_per_call():
    timing = observer("timing")
    recipe = Recipe.of("fastv:layer=2", keep=2)
    for _ in range(3):
        run(recipe, [timing], ATTENTION)
    assert dict.fromkeys(PRUNING, 3) == {hook: len(times) for hook, times in timing.seconds.items()}
    assert all(second >= 0 for times in timing.seconds.values() for second in times)


def test_timing_counts_what_a_strategy_asks_of_others_as_its_own_time():
    timing = observer("timing")
    run(Recipe.of("fastv:layer=2", "adaptive", keep=2), [timing], ATTENTION)
    assert dict.fromkeys(PRUNING, 1) == {hook: len(times) for hook, times in timing.seconds.items()}


def test_timing_summarises_calls_and_their_median_in_milliseconds():
    timing = observer("timing")
    timing.seconds["head_scoring"] = [0.003, 0.001, 0.007]
    timing.seconds["head_count"] = [0.002, 0.004]
    summary = timing.summary()
    assert {"calls": 3, "ms": pytest.approx(3.0)} == summary["head_scoring"]
    assert {"calls": 2, "ms": pytest.approx(3.0)} == summary["head_count"]
    assert {"head_scoring", "head_count"} == set(summary)


def test_timing_counts_a_call_that_fails_and_lets_the_error_through():
    timing = observer("timing")
    pipeline = Pipeline(Recipe.of("fixed:heads=9", "head_scoring=sum"), [timing])
    scores = torch.zeros(1, 3)
    with pytest.raises(StrategyError, match="this model has 3 heads"):
        pipeline._manager.hook.head_count(scores=scores)
    assert len(timing.seconds["head_count"]) == 1


@pytest.mark.parametrize("hook", ["kv_eviction", "head_classification"])
def test_timing_fits_the_hooks_no_pruning_run_calls(hook):
    timing = observer("timing")
    wrapped = getattr(timing, hook)()
    next(wrapped)
    with pytest.raises(StopIteration) as stopped:
        wrapped.send("the strategy's answer")
    assert (stopped.value.value, len(timing.seconds[hook])) == ("the strategy's answer", 1)


def test_observers_change_nothing():
    seen = []
    recipe = Recipe.of("fastv:layer=2", "sparsity", "fixed:heads=1", keep=2)
    for observers in ([], [observer("timing")], [observer("timing"), observer("recorder")]):
        recorder = observer("recorder")
        run(recipe, [*observers, recorder], ATTENTION)
        seen.append(recorder.take())
    assert seen[0] == seen[1] == seen[2]


def test_recorder_tells_kept_tokens_heads_concentration_and_entropy_of_each_row():
    recorder = observer("recorder")
    run(Recipe.of("fastv:layer=2", "sparsity", "fixed:heads=1", keep=2), [recorder], ATTENTION)
    first, second = recorder.take().values()
    assert (first.kept, first.heads) == ([0, 1], [0])  # the rest of head 0's tokens are equal: the lower stays
    assert (second.kept, second.heads) == ([1, 3], [0])
    assert pytest.approx(first.concentration) == (0.9 + 0.2) / 1.6
    assert pytest.approx(second.concentration) == (0.2 + 0.4) / 1.0
    assert first.entropy == 0.0
    shares = torch.tensor([0.25, 0.75])
    assert float(-(shares * shares.log2()).sum()) / 2 == pytest.approx(second.entropy)


def test_entropy_of_even_scores_is_one_and_of_no_attention_unknown():
    recorder = observer("recorder")
    attention = torch.stack([torch.full((3, 4), 0.2), torch.zeros(3, 4)])
    run(Recipe.of("fastv:layer=2", keep=2), [recorder], attention)
    even, blind = recorder.take().values()
    assert pytest.approx(even.entropy) == 1.0
    assert pytest.approx(even.concentration) == 0.5
    assert (blind.entropy, blind.concentration) == (None, None)


def test_what_a_stage_notes_stands_next_to_what_strategies_note():
    recorder = observer("recorder")
    noted = {"relevance": ["clip", "embeddings"], "clusters": torch.tensor([3, 4])}
    heads = {"adaptive": [{"strategy": "sum"}, {"strategy": "entropy"}]}
    recorder.selected(stage_of(1, KEPT, KEPT, notes=heads, stage_notes=noted))
    recorder.selected(stage_of(5, KEPT, [[0], [1]], notes={}, stage_notes={"clusters": [1, 2]}))
    first, second = recorder.take().values()
    assert first.notes == {"adaptive": {"strategy": "entropy"}, "relevance": "embeddings", "clusters": 2}
    assert second.notes == {"adaptive": {"strategy": "sum"}, "relevance": "clip", "clusters": 1}


def test_a_stage_that_asks_no_head_has_its_notes_recorded():
    recorder = observer("recorder")
    recorder.selected(stage_of(0, KEPT, KEPT, notes=None, stage_notes={"relevance": ["clip", "clip"]}))
    assert [record.notes for record in recorder.take().values()] == [{"relevance": "clip"}] * 2


def test_taking_forgets_and_so_does_clearing():
    recorder = observer("recorder")
    recipe = Recipe.of("fastv:layer=2", keep=2)
    run(recipe, [recorder], ATTENTION)
    assert list(recorder.take()) == [0, 1]
    assert recorder.take() == {}
    run(recipe, [recorder], ATTENTION)
    recorder.clear()
    assert recorder.take() == {}


def test_controls_that_read_no_attention_are_recorded_by_what_they_keep():
    recorder = observer("recorder")
    run(Recipe.of("uniform:layer=2", keep=2), [recorder], ATTENTION)
    record = recorder.take()[1]
    assert (
        record.kept, record.heads, record.notes, record.concentration, record.entropy
    ) == ([1, 3], [], {}, None, None)  # fmt: skip


KEPT = [[0, 2], [1, 3]]


def stage_of(layer, entered, kept, *, notes, rows=(4, 1), attention=None, stage_notes=None):
    choice = HeadChoice(
        scores=torch.zeros(2, 3), kept=torch.tensor([[False, True, True], [True, False, False]]), notes=notes
    )
    return Selection(
        layer=layer,
        rows=rows,
        entered=torch.tensor(entered),
        kept=torch.tensor(kept),
        attention=attention,
        token_scores=None if attention is None else attention.mean(dim=1),
        heads=choice if notes is not None else None,
        notes=stage_notes or {},
    )


def test_stages_are_merged_by_row_and_later_ones_prevail():
    recorder = observer("recorder")
    attention = torch.tensor([[[0.1, 0.2, 0.3]], [[0.3, 0.0, 0.1]]]).expand(2, 3, 3)
    entered = [[2, 5, 7], [0, 1, 9]]
    recorder.selected(stage_of(1, entered, [[2, 7], [0, 9]], notes={"rule": ["a", "b"]}, attention=attention))
    recorder.selected(stage_of(3, [[2, 7], [0, 9]], [[7], [0]], notes={"count": torch.tensor([2, 1])}))
    records = recorder.take()
    assert list(records) == [1, 4]
    assert (records[4].kept, records[4].heads, records[4].notes) == ([7], [1, 2], {"rule": "a", "count": 2})
    assert (records[1].kept, records[1].heads, records[1].notes) == ([0], [0], {"rule": "b", "count": 1})
    assert pytest.approx(4 / 6) == records[4].concentration  # tokens 2 and 7 of 2, 5 and 7
    assert pytest.approx(1.0) == records[1].concentration
    assert type(records[4].notes["count"]) is int


def test_rows_selected_apart_end_up_in_one_taking():
    recorder = observer("recorder")
    recorder.selected(stage_of(2, [[0, 1], [0, 1]], [[0], [1]], notes=None, rows=(0, 2)))
    recorder.selected(stage_of(2, [[0, 1, 2], [0, 1, 2]], [[0, 2], [1, 2]], notes=None, rows=(3, 1)))
    assert {row: record.kept for row, record in recorder.take().items()} == {0: [0], 1: [1, 2], 2: [1], 3: [0, 2]}


def test_records_hold_no_tensor():
    recorder = observer("recorder")
    attention = ATTENTION.clone().requires_grad_()
    run(Recipe.of("fastv:layer=2", keep=2), [recorder], attention)
    values = [value for record in recorder.take().values() for value in attrs.asdict(record).values()]
    assert not any(isinstance(value, torch.Tensor) for value in values)
