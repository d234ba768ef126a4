"""Costs of a trial against hand counts, the eager model, plans, a clock that ticks on its own, and made-up systems."""

from __future__ import annotations

import copy
import gc
import json
import platform
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tests.lab.as_json import as_json

from headwise.attachment import attach
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.commands.run import describe
from headwise_lab.cost import flops, memory, timing
from headwise_lab.cost import measured as costs
from headwise_lab.cost import selection as choosing
from headwise_lab.cost.flops import counted_prefill
from headwise_lab.cost.measured import watched
from headwise_lab.cost.memory import peak_of
from headwise_lab.cost.selection import Stopwatch, choices_timed, each_choice
from headwise_lab.cost.timing import counted, timed
from headwise_lab.store.record_schema import record_of
from headwise_lab.trial.record import Setting
from headwise_lab.trial.run import run_trial

WIDTH, FEED_FORWARD, VISUAL, HEADS, VOCABULARY = 128, 384, 144, 8, 68
SHARP = ("fastv:layer=2", "sparsity", "fixed:heads=3")
EVICTIONS = (
    "streaming:sinks=2,window=16",
    "snapkv:budget=20",
    "adakv:of=[snapkv:budget=24],floor=0.3",
    "h2o:ratio=0.25",
)


@pytest.fixture
def alike(tiny, toy):
    """Two questions of the same words, so that nothing is padded."""
    return Inputs(tiny, toy, [toy.questions[0], toy.questions[4]], 2)


@pytest.fixture
def unlike(tiny, toy):
    """Questions of different lengths."""
    return Inputs(tiny, toy, toy.questions[:3], 3)


def on(inputs, *texts, **options):
    recipe = Recipe.of(*texts, **options)
    return lambda: attach(inputs.loaded.model, recipe)


def length(inputs):
    """Tokens of a row of the first batch, padding included, beside the visual ones."""
    return next(inputs.batches()).tensors["input_ids"].shape[1] - VISUAL


def planned(inputs, attached):
    with attached() as attachment:
        return counted(attachment.plan, attachment.eviction, length(inputs), inputs.loaded.dtype)


def layer(tokens, matrices):
    """Multiply-adds of one transformer layer: four projections, scores and values, the feed-forward part."""
    return tokens * (4 * WIDTH**2 + matrices * WIDTH * FEED_FORWARD) + 2 * tokens**2 * WIDTH


def test_unpruned_prefill_is_what_a_hand_count_of_all_parts_gives(unlike):
    pixels = 3 * 12 * 12
    tower = VISUAL * pixels * WIDTH + 4 * layer(VISUAL + 1, matrices=2)
    projector = VISUAL * 2 * WIDTH**2
    layers = 3 * layer(VISUAL + length(unlike), matrices=3)
    found = counted_prefill(unlike, on(unlike))
    assert unlike.loaded.model.lm_head.weight.shape == (VOCABULARY, WIDTH)
    assert found.layers == layers
    angles = round(8 * (VISUAL + length(unlike)) / 3)  # of rotary positions, which transformers 5.17 gets by a product
    assert found.flops - (tower + projector + layers + WIDTH * VOCABULARY) in (0, angles)
    assert found.selection == 0


@pytest.mark.parametrize(("texts", "keep"), [((), None), (SHARP, 12), (("pooling",), 36)])
def test_what_sdpa_computes_is_what_the_eager_model_computes(unlike, texts, keep):
    attached = on(unlike, *texts, keep=keep)
    found = counted_prefill(unlike, attached)
    unlike.loaded.model.set_attn_implementation("eager")
    try:
        assert counted_prefill(unlike, attached) == found
    finally:
        unlike.loaded.model.set_attn_implementation("sdpa")


@pytest.mark.parametrize(
    "name", [None, "finepruner-dynamic", "sparsevlm", "pdrop", "cdpruner", "tome", "random-layer-2"]
)
def test_layers_compute_and_store_what_was_planned(deeper, toy, name):
    few = Inputs(deeper, toy, [toy.questions[0], toy.questions[4]], 2)
    attached = on(few, name=name, tokens=110 if name else None)
    plan, found = planned(few, attached), counted_prefill(few, attached)
    assert plan.flops_formula == "gated"
    assert found.layers == plan.flops_total
    assert found.kv_bytes == plan.kv_bytes
    assert (found.selection == 0) == (name in (None, "random-layer-2"))


def test_padding_is_computed_and_stored_beyond_the_plan_of_the_row_itself(unlike):
    batch = next(unlike.batches())
    assert len(set(batch.text)) > 1
    plan, found = planned(unlike, on(unlike)), counted_prefill(unlike, on(unlike))
    assert length(unlike) == max(batch.text)
    assert (found.layers, found.kv_bytes) == (plan.flops_total, plan.kv_bytes)


def test_selection_is_counted_apart_from_the_layers_and_nothing_else_changes(unlike):
    whole, found = counted_prefill(unlike, on(unlike)), counted_prefill(unlike, on(unlike, *SHARP, keep=12))
    assert found.flops - found.layers - found.selection == whole.flops - whole.layers
    one_query = WIDTH * (VISUAL + length(unlike))
    assert one_query <= found.selection <= one_query + 2 * HEADS * VISUAL  # rows of attention, and means over them


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("pruned", [(), SHARP])
def test_evicting_caches_store_what_was_planned_after_any_pruning(alike, eviction, pruned):
    attached = on(alike, *pruned, eviction, keep=30 if pruned else None)
    plan, found = planned(alike, attached), counted_prefill(alike, attached)
    assert found.kv_bytes == plan.kv_bytes < planned(alike, on(alike)).kv_bytes


def test_choosing_cache_entries_is_selection_and_no_part_of_the_layers(alike):
    whole, found = counted_prefill(alike, on(alike)), counted_prefill(alike, on(alike, "snapkv:budget=40,queries=8"))
    window = 8 * WIDTH * (VISUAL + length(alike))  # the last queries meet all keys once more
    assert found.selection >= 3 * window
    assert found.flops - found.selection == whole.flops


def test_a_view_of_a_larger_storage_stores_the_storage(alike, monkeypatch):
    whole = counted_prefill(alike, on(alike)).kv_bytes

    def viewed(model, tensors):
        out = real(model, tensors)
        for each in out.past_key_values.layers:
            each.keys, each.values = each.keys[:, :, :5], each.values[:, :, :5]
        return out

    real = flops.prefill
    monkeypatch.setattr(flops, "prefill", viewed)
    assert counted_prefill(alike, on(alike)).kv_bytes == whole


def test_the_unpruned_model_is_counted_once_for_all_trials_and_forgotten_with_its_inputs(tiny, toy, monkeypatch):
    own, asked = Inputs(tiny, toy, toy.questions[:2], 2), []
    real = flops.counted_prefill
    monkeypatch.setattr(flops, "counted_prefill", lambda inputs, attached: asked.append(1) or real(inputs, attached))
    first, second = (watched(own, on(own, *SHARP, keep=keep)) for keep in (12, 30))
    assert first.flops_counted < second.flops_counted < first.flops_counted_unpruned
    assert first.flops_counted_unpruned == second.flops_counted_unpruned == real(own, on(own)).flops
    assert asked == [1]
    gone = weakref.ref(own)
    del own
    gc.collect()
    assert gone() is None


def test_watching_leaves_the_model_as_it_was(unlike):
    model = unlike.loaded.model
    before = [
        (type(part), set(vars(part)), len(part._forward_hooks), len(part._forward_pre_hooks))
        for part in model.modules()
    ]
    watched(unlike, on(unlike, *SHARP, "snapkv:budget=20", keep=30))
    timed(unlike.loaded, unlike, 1, on(unlike, *SHARP, keep=30))
    after = [
        (type(part), set(vars(part)), len(part._forward_hooks), len(part._forward_pre_hooks))
        for part in model.modules()
    ]
    assert after == before


def test_nothing_is_watched_where_nothing_is_timed(tiny, toy, monkeypatch):
    monkeypatch.setattr("headwise_lab.trial.answering.NEW_TOKENS", 2)
    record, _ = as_json(
        run_trial(Setting(recipe=Recipe.of(), timed_batches=0), Inputs(tiny, toy, toy.questions[:2], 2))
    )
    assert record["cost"]["prefill_ms"] is None
    assert "flops_counted" not in record["cost"]


def test_the_unpruned_model_is_timed_in_turns_or_once_for_all_that_share_their_questions(unlike, monkeypatch):
    ran, real = [], timing.prefill
    monkeypatch.setattr(timing, "prefill", lambda model, tensors: ran.append(1) or real(model, tensors))
    times = [timed(unlike.loaded, unlike, 1, on(unlike, *SHARP, keep=keep), in_turns=False) for keep in (30, 12)]
    assert len(ran) == 2 + 1
    assert times[0].prefill_unpruned_ms == times[1].prefill_unpruned_ms
    assert times[1].prefill_share == pytest.approx(times[1].prefill_ms / times[1].prefill_unpruned_ms)
    timed(unlike.loaded, unlike, 1, on(unlike, *SHARP, keep=12))
    assert len(ran) == 2 + 1 + 2


def test_what_is_held_for_other_trials_is_no_memory_of_this_one(unlike, monkeypatch):
    monkeypatch.setattr(unlike.prefix, "held", 2**20)
    monkeypatch.setattr(costs, "peak_of", lambda device: nullcontext(memory.Peak(5 * 2**20, 2**20, "cuda allocator")))
    assert watched(unlike, on(unlike)).peak_bytes == 4 * 2**20


class Chooser:
    """Stands in for a pipeline."""

    def select(self, stage, evidence):
        return stage + evidence

    def retained(self, plan, evidence):
        return plan * evidence


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by a second whenever it is looked at."""
    seconds = iter(range(1000))
    monkeypatch.setattr(choosing.time, "perf_counter", lambda: next(seconds))


def test_choices_are_timed_until_the_prefill_ends(ticking):
    model, pipeline = torch.nn.Identity(), Chooser()
    with choices_timed(model, "cpu", pipeline) as watch:
        assert pipeline.select(1, 2) == 3
        assert pipeline.retained(2, evidence=3) == 6
        model(torch.zeros(1))
        pipeline.retained(2, 3)
    assert watch.seconds() == 2
    assert vars(pipeline) == {}
    assert not model._forward_hooks


def test_a_choice_that_fails_is_put_right_afterwards():
    pipeline, seen = Chooser(), []

    class Around:
        def __enter__(self):
            seen.append("in")

        def __exit__(self, *_):
            seen.append("out")

    with pytest.raises(TypeError, match="unsupported operand"), each_choice(pipeline, Around):
        pipeline.select(1, "2")
    assert seen == ["in", "out"]
    assert vars(pipeline) == {}


def test_on_a_gpu_its_own_events_tell_the_time_once_everything_is_done(monkeypatch):
    told, clock = [], iter((10.0, 13.5, 20.0, 20.25))

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            told.append(stream)
            self.at = next(clock)

        def elapsed_time(self, end):
            assert told[-1] == "done"
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("done"))
    watch = Stopwatch("cuda:1")
    for _ in range(2):
        with watch.running():
            pass
    assert told == ["stream of cuda:1"] * 4
    assert watch.seconds() == pytest.approx(0.00375)


def test_selection_takes_a_part_of_the_prefill_and_nothing_without_a_recipe(unlike):
    found = timed(unlike.loaded, unlike, 1, on(unlike, *SHARP, keep=12))
    assert 0 < found.selection_ms < found.prefill_ms
    assert found.selection_share == pytest.approx(found.selection_ms / found.prefill_ms)
    plain = timed(unlike.loaded, unlike, 1, on(unlike))
    assert (plain.selection_ms, plain.selection_share) == (0, 0)


needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets the peak be reset")


@needs_proc
def test_the_peak_of_a_process_is_what_it_had_at_once_inside():
    size = 2**26
    with peak_of("cpu") as large:
        for _ in range(8):  # one after the other is gone: 64 MiB at a time, 512 in all
            torch.ones(size // 4)
    with peak_of("cpu") as small:
        torch.ones(2**10)
    assert large.source == small.source == "process memory"
    assert size <= large.grown + 2**20 < 4 * size  # a busy system may count a piece that has just gone
    assert small.grown < 2**24 < large.bytes
    assert small.bytes < large.bytes


@needs_proc
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives free memory back when told to")
def test_memory_that_lies_free_in_the_heap_counts_when_it_is_taken_again():
    def parts():
        return [torch.ones(2**16) for _ in range(200)]  # 50 MiB in pieces

    torch.ones(2**22)  # once a piece of this size was freed, smaller ones come from the heap and stay there
    held = [parts(), torch.ones(2**16)]
    del held[0]
    with peak_of("cpu") as peak:
        parts()
    assert peak.grown > 40 * 2**20


def process(folder, **kib):
    """A folder that looks like a process's own in /proc."""
    lines = [f"Name:\tpython\nThreads:\t1\n{key}:\t  {value} kB" for key, value in kib.items()]
    (folder / "status").write_text("\n".join(lines) + "\n")
    return folder


def test_the_peak_is_reset_before_and_read_after(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROCESS", process(tmp_path, VmHWM=900, VmRSS=700))
    with peak_of("cpu") as peak:
        assert (tmp_path / "clear_refs").read_text() == "5"
        process(tmp_path, VmHWM=1000, VmRSS=800)
    assert (peak.bytes, peak.grown, peak.source) == (1000 * 1024, 300 * 1024, "process memory")


@pytest.mark.parametrize("told", [{}, {"VmRSS": 700}])
def test_a_system_without_a_reset_tells_the_highest_memory_of_all(tmp_path, monkeypatch, told):
    folder = process(tmp_path, **told) if told else tmp_path / "missing"
    monkeypatch.setattr(memory, "PROCESS", folder)
    with peak_of("cpu") as peak:
        pass
    assert peak.bytes > 2**24  # Python with torch
    assert (peak.grown, peak.source) == (None, "process memory since its start")


def test_a_gpus_allocator_is_reset_before_and_asked_after(monkeypatch):
    class Allocator:
        now, highest, waited = 500, 9000, 0

    def wait(device):
        Allocator.waited += 1

    def reset(device):
        Allocator.highest = Allocator.now

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: Allocator.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: Allocator.highest)
    with peak_of("cuda:0") as peak:
        assert Allocator.waited == 1
        Allocator.highest = max(Allocator.highest, 1700)
    assert Allocator.waited == 2
    assert (peak.bytes, peak.grown, peak.source) == (1700, 1200, "cuda allocator")


def test_other_devices_tell_no_peak():
    with peak_of("mps") as peak:
        pass
    assert (peak.bytes, peak.grown, peak.source) == (None, None, None)


def test_a_reader_sees_planned_and_counted_costs_and_a_question_mark_where_nothing_is_known(tiny, toy, monkeypatch):
    monkeypatch.setattr("headwise_lab.trial.answering.NEW_TOKENS", 2)
    monkeypatch.setattr(costs, "peak_of", lambda device: peak_of("mps"))
    setting = Setting(recipe=Recipe.of(*SHARP, keep=12), timed_batches=1)
    record, _ = as_json(run_trial(setting, Inputs(tiny, toy, [toy.questions[0], toy.questions[4]], 2)))
    record = json.loads(json.dumps(record))
    cost = copy.deepcopy(record["cost"])
    record["cost"] |= {"prefill_ms": 12.345, "prefill_share": 0.4, "selection_ms": 0.5, "selection_share": 0.0405}
    record["cost"]["decode_tokens_per_s"] = None
    told = describe(record_of(record))
    planned, stored = (f"{cost[key] / 2**20:.4g} MiB" for key in ("kv_bytes", "kv_bytes_stored"))
    assert "prefill     12.35 ms per question in batches of 2, 40% of the unpruned model's" in told
    assert "selection 0.5 ms, 4.05% of it" in told
    assert f"{cost['flops_total'] / 1e9:.4g} G multiply-adds planned (gated) and" in told
    assert f"{cost['flops_counted'] / 1e9:.4g} G counted in the whole prefill" in told
    assert f"? tokens/s; KV cache after prefill {planned} planned, {stored} stored" in told
    assert "memory      peak ? MiB (not measured here), ? MiB of it for a batch" in told
