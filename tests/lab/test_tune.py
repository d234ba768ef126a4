"""Searches: what a space may say, the points it makes, what is remembered, and what held-out questions make of it."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import attrs
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from PIL import Image
from rich.console import Console
from tests.lab import fake_tune
from tests.lab.as_json import json_outcomes, json_records
from tests.lab.fake_tune import FakePoint, propose, results, worth

from headwise import BudgetError, DataError, ModelError, Recipe, StrategyError, shape
from headwise.cli import main
from headwise.text import StrategyText
from headwise_lab.benchmarks import Question
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_schema import record_of
from headwise_lab.sweeps.reading import structured_as
from headwise_lab.trial.run import check
from headwise_lab.tuning import measuring
from headwise_lab.tuning.database import need_optuna, opened
from headwise_lab.tuning.display import SearchDisplay
from headwise_lab.tuning.fronts import beats, front, spread
from headwise_lab.tuning.judging import units
from headwise_lab.tuning.measuring import Bench, PointError, PointEvaluator
from headwise_lab.tuning.questions import Part, picture, split, unseen
from headwise_lab.tuning.ranges import Range, StrategyChoice
from headwise_lab.tuning.reading import read, shipped
from headwise_lab.tuning.running import SearchOptions, tune
from headwise_lab.tuning.schema import SpaceFile
from headwise_lab.tuning.searching import PATIENCE, SAMPLERS, Task, Value, search
from headwise_lab.tuning.space import space_of

MODEL = shape("demo-llava")
HOOKS = ("token_pruning", "query_selection", "head_scoring", "head_count")
QUICK = settings(max_examples=25, deadline=None, derandomize=True)
whole_numbers = st.integers(-50, 50)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def space(text, where="s.toml"):
    return structured_as(SpaceFile, tomllib.loads(text), where)


@QUICK
@given(st.tuples(whole_numbers, whole_numbers).map(sorted))
def test_a_range_of_whole_numbers_gives_back_its_ends_and_whole_numbers_alone(ends):
    low, high = ends
    assert Range(low, high, True) == Range.parse(f"{low}..{high}")
    assert str(high) == Range.parse(f"{low}..{high}").show(float(high))


@QUICK
@given(st.tuples(whole_numbers, whole_numbers).map(sorted), st.sampled_from(["{}.0..{}", "{}..{}.0", "{}e0..{}.00"]))
def test_a_decimal_in_either_end_makes_a_range_of_fractions(ends, form):
    low, high = ends
    assert Range(low, high, False) == Range.parse(form.format(low, high))


@pytest.mark.parametrize("text", ["1", "1.5", "1...4", "a..b", "1..", "..4", "1..4..8", ".5..1", "8/16", ""])
def test_what_is_no_range_is_an_option_value_like_any_other(text):
    assert Range.parse(text) is None


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(StrategyError, match="smaller number first"):
        Range.parse("4..1")


@QUICK
@given(st.integers(1, 8), st.floats(0, 1))
def test_a_choice_with_values_for_its_ranges_is_a_text_that_reads_back(heads, share):
    choice = StrategyChoice.parse("h", "own/x:heads=1..8,form=l2,share=0.0..1,of=[a:b=1,c=2]")
    parsed = StrategyText.parse(choice.text({"heads": heads, "share": share}))
    assert (parsed.name, parsed.owner) == ("x", "own")
    assert {"heads": str(heads), "form": "l2", "share": f"{share:g}", "of": "a:b=1,c=2"} == parsed.options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limti = 3", "limti: there is no such key; did you mean limit? allowed: title, model, "),
        ("limit = 0", "limit: 0 is too small; allowed: 1 and above"),
        ("held_out = 1.5", "held_out: 1.5 is not a whole number"),
        ('benchmarks = ["popee"]', "benchmarks[0]: there is no benchmark 'popee'"),
        ("[choices]\nhead_scoring = []", "choices.head_scoring: the list is empty"),
        ('[choices]\nhead_scoring = ["sparcity"]', "choices.head_scoring[0]: there is no head_scoring strategy 'sparc"),
        ('[choices]\nhead_count = ["fixed:heads=0..8"]', "choices.head_count[0]: head_count strategy 'fixed'"),
        ('[choices]\nhead_count = ["fixed:share=0.5..1.5"]', "choices.head_count[0]: head_count strategy 'fixed'"),
        (
            '[choices]\nhead_count = ["fixed:heads=8..1"]',
            "choices.head_count[0]: the range 8..1 has its ends the wrong",
        ),
        ('[choices]\ntoken_pruning = ["fastv:layers=1..4"]', "has no option 'layers'"),
        ('[choices]\ntoken_pruning = ["fastv:layer=1.0..4.0"]', "choices.token_pruning[0]: token_pruning strategy"),
        ("[budget]\nshares = [0.5, 0.1]", "budget.shares: [0.5, 0.1] is no range of budgets"),
        ("[budget]\nshares = [0.5, 1.5]", "allowed: numbers above 0, up to 1"),
        ("[budget]\ntokens = [16]", "budget.tokens: [16.0] is no range of budgets"),
        ("[budget]\ntokens = [16, 64]\nshares = [0.1, 0.5]", "budget.shares: tokens are given as well"),
    ],
)
def test_whatever_is_wrong_in_a_space_is_one_sentence_with_file_key_and_what_is_allowed(text, said):
    with pytest.raises(DataError) as caught:
        space(text)
    assert str(caught.value).startswith("s.toml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_space_that_ships_is_read_and_an_unknown_one_is_told_which_there_are():
    assert shipped() == ["fastv_heads", "methods"]
    assert all(read(name).title for name in shipped())
    with pytest.raises(DataError, match="did you mean fastv_heads"):
        read("fastv_head")


def proposed(file, count, seed=0, geometry=MODEL):
    """(point or None where it cannot be run, parameters) of random trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found, made = space_of(file, geometry), []
    for _ in range(count):
        trial = study.ask()
        try:
            made.append((found.propose(trial), trial.params))
        except (BudgetError, StrategyError):
            made.append((None, trial.params))
        study.tell(trial, state=TrialState.FAIL)
    return made


@pytest.mark.parametrize("name", ["fastv_heads", "methods"])
def test_every_point_of_a_space_is_a_recipe_within_the_budgets_and_made_again_from_its_texts(name):
    file = read(name)
    found = space_of(file, MODEL)
    for point, _ in proposed(file, 25):
        assert point is not None
        again = Recipe.of(*point.texts, tokens=point.recipe.budget.tokens)
        assert again.text == point.recipe.text
        assert point.plan.processed == check(again, MODEL).processed
        assert found.low - 1 <= point.plan.average <= found.high + 1
        assert point.plan.processed == found.point(*point.as_data.values()).plan.processed


@pytest.mark.parametrize("name", ["fastv_heads", "methods"])
def test_parameters_exist_only_where_they_have_a_say(name):
    for point, params in proposed(read(name), 25):
        asked = [key.partition(" ") for key in params if key not in (*HOOKS, "budget", "head_scoring of all heads")]
        assert all(rest.startswith(f"{params.get(hook, rest.rpartition(' ')[0])} ") for hook, _, rest in asked)
        reads = any(stage.reads_attention for stage in point.plan.stages)
        assert reads == ("query_selection" in params)
        assert {"token_pruning"} | (set(HOOKS) if reads else set()) == {text.partition("=")[0] for text in point.texts}


def test_with_all_heads_only_scorers_that_leave_heads_out_are_chosen_and_fixed_counts_are_written_alike():
    texts = [dict(text.split("=", 1) for text in point.texts) for point, _ in proposed(read("fastv_heads"), 60)]
    of_all = {told["head_scoring"] for told in texts if told["head_count"] == "all"}
    assert {"sum", "adaptive"} == of_all
    fixed = {told["head_count"] for told in texts if told["head_count"].startswith("fixed")}
    assert fixed <= {f"fixed:heads={heads}" for heads in range(1, 8)}
    assert not any(told["head_scoring"] == "adaptive" for told in texts if told["head_count"] != "all")


def test_budgets_that_keep_the_same_tokens_are_the_same_budget():
    points = [point for point, _ in proposed(space('[choices]\ntoken_pruning = ["divprune"]'), 80)]
    assert len({point.plan.processed for point in points}) == len({point.recipe.budget for point in points})


def test_what_cannot_meet_the_largest_budget_is_refused_without_a_plan():
    file = space('[choices]\ntoken_pruning = ["fastv:layer=10"]\n[budget]\nshares = [0.1, 0.2]')
    assert [point for point, _ in proposed(file, 3)] == [None] * 3
    with pytest.raises(BudgetError, match="it needs at least"):
        space_of(file, MODEL).propose(optuna.create_study().ask())


pairs = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(1, 6).map(float)), min_size=1, max_size=12)


@QUICK
@given(pairs)
def test_the_front_is_what_no_point_beats_as_optuna_finds_it_too(points):
    kept = front(points)
    slow = {point for point in points if not any(beats(other, point) for other in points)}
    assert slow == {points[number] for number in kept}
    assert len(slow) == len(kept)
    assert sorted(points[number][1] for number in kept) == [points[number][1] for number in kept]
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([create_trial(values=list(point)) for point in points])
    assert {tuple(trial.values) for trial in study.best_trials} == slow


@QUICK
@given(st.lists(st.floats(1, 100), min_size=1, max_size=12, unique=True), st.integers(1, 12))
def test_points_spread_over_a_front_hold_its_ends_and_no_two_left_out_are_farther_apart(costs, count):
    chosen = spread(costs, count)
    assert min(count, len(costs)) == len(set(chosen))
    assert sorted(chosen, key=costs.__getitem__) == chosen
    assert max(costs) in [costs[number] for number in chosen]
    if count > 1:
        assert min(costs) in [costs[number] for number in chosen]
    if 2 <= count < len(costs):
        kept = [costs[number] for number in chosen]
        gaps = [max(a, b) / min(a, b) for a, b in itertools.combinations(kept, 2)]
        left = [min(max(cost, one) / min(cost, one) for one in kept) for cost in costs if cost not in kept]
        assert max(left) <= min(gaps) * (1 + 1e-12)


def pictures(folder, contents):
    """One picture file per content; equal contents are equal pictures under different names."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number}.png")
        Image.fromarray(np.full((4, 4, 3), content, dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """40 questions in units of two about 14 pictures, each of which lies there under several names."""
    contents = [i // 2 % 14 for i in range(40)]
    paths = pictures(tmp_path_factory.mktemp("repeated"), contents)
    return [Question(str(i), str(i // 2), path, "?", ("a",), "kind") for i, path in enumerate(paths)]


@QUICK
@given(st.integers(1, 20), st.integers(1, 20))
def test_what_is_held_out_shares_no_picture_and_no_unit_with_the_search_and_splits_no_unit(repeated, limit, count):
    searched = repeated[: 2 * limit]
    own = {question.unit for question in searched}
    held = unseen(repeated, own, {picture(question.image) for question in searched}, count)
    assert not {picture(question.image) for question in searched} & {picture(question.image) for question in held}
    assert not own & {question.unit for question in held}
    taken = {question.unit for question in held}
    assert [question for question in repeated if question.unit in taken] == list(held)
    fresh = {i // 2 for i in range(2 * limit, 40) if i // 2 % 14 not in {j // 2 % 14 for j in range(2 * limit)}}
    assert (min(len(fresh), max(1, count // 2)) if fresh else 0) == len(taken)


def test_a_benchmark_of_files_is_split_and_one_without_enough_pictures_says_so(monkeypatch, repeated):
    class Files:
        name, metric, scale, needs_data = "files", "points", 1.0, True

        def load(self, folder, limit):
            return repeated[:limit]

    monkeypatch.setattr("headwise_lab.tuning.questions.benchmark", lambda name: Files())
    folder = repeated[0].image.parent
    searched, held = split(["files"], data=folder, limit=8, held_out=6, seed=3)
    assert (len(searched[0].questions), len(held[0].questions)) == (8, 6)
    assert (searched[0].seed, searched[0].again) == (3, True)
    assert (held[0].seed, held[0].again) == (3, False)
    with pytest.raises(DataError, match="the search uses 40 of them, and none is left for the confirmation"):
        split(["files"], data=folder, limit=40, held_out=6, seed=3)


def test_a_synthetic_benchmark_holds_out_questions_of_another_seed_about_other_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    monkeypatch.setattr("headwise_lab.benchmarks.questions.COUNT", 12)
    (searched,), (held,) = split(["shapes-gqa"], data=None, limit=10, held_out=12, seed=4)
    assert (len(searched.questions), searched.seed, len(held.questions), held.seed) == (10, 4, 12, 5)
    seen = [{picture(question.image) for question in part.questions} for part in (searched, held)]
    assert not seen[0] & seen[1]


def remembered(folder, task, total, sampler="tpe", seed=0):
    folder.mkdir(exist_ok=True)
    with opened(folder, {"fake": True}) as memory:
        search(memory, task, total, sampler, seed)
        return results(memory)


ENOUGH = {"tpe": 12, "nsga2": 14, "random": 4}
"""Trials after which a sampler goes by those before: TPE's ten, and a population of NSGA-II."""


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_in_pieces_is_the_search_in_one_go_and_another_seed_is_another_search(tmp_path, sampler):
    task, total = Task(propose, worth), ENOUGH[sampler]
    whole = remembered(tmp_path / "whole", task, total, sampler)
    for until in (2, total - 1, total - 1, total):
        pieces = remembered(tmp_path / "pieces", task, until, sampler)
        assert until == len(pieces)
    assert whole == pieces
    assert whole[:2] != remembered(tmp_path / "other", task, 2, sampler, seed=1)


@pytest.mark.parametrize("rounds", [(3, 8, 13)])
def test_a_search_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path, rounds):
    total = 16
    command = [sys.executable, fake_tune.__file__, str(tmp_path / "killed"), str(total), "tpe"]
    notes = tmp_path / "killed" / "measured.txt"
    for enough in rounds:
        process = subprocess.Popen([*command, str(enough + 2)])
        while process.poll() is None and (not notes.exists() or notes.read_text().count("\n") < enough):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with opened(tmp_path / "killed", {"fake": True}) as memory:
        assert sum(trial.state.is_finished() for trial in memory.trials) < total
    subprocess.run(command, check=True)
    with opened(tmp_path / "killed", {"fake": True}) as memory:
        found = results(memory)
    assert remembered(tmp_path / "whole", Task(propose, worth), total) == found
    measured = notes.read_text().splitlines()
    assert total == len(set(measured))
    assert len(measured) - total <= len(rounds)  # at most the trial that was running is measured again


def test_what_cannot_be_run_and_what_fails_is_put_down_with_its_reason_and_the_search_goes_on(tmp_path):
    numbers = itertools.count()

    def some_cannot(trial):
        number = next(numbers)
        if number == 1:
            raise BudgetError("out of reach")
        return attrs.evolve(propose(trial), x=float(number))

    def some_fail(point):
        if point.x == 2:
            raise ModelError("no CLIP tower")
        if point.x == 3:
            raise RuntimeError("out of\nmemory")
        return worth(point)

    (tmp_path / "s").mkdir()
    with opened(tmp_path / "s", {}) as memory:
        search(memory, Task(some_cannot, some_fail), 5, "random", 0)
        told = [(trial.state.name, trial.user_attrs.get("reason")) for trial in memory.trials]
    assert told == [
        ("COMPLETE", None),
        ("PRUNED", "out of reach"),
        ("PRUNED", "no CLIP tower"),
        ("FAIL", "RuntimeError: out of memory"),
        ("COMPLETE", None),
    ]


def test_tpe_goes_on_from_trials_without_values(tmp_path):
    def often_out_of_reach(trial):
        point = propose(trial)
        if point.x > 0.5:
            raise BudgetError("out of reach")
        return point

    found = remembered(tmp_path, Task(often_out_of_reach, worth), 14)
    assert {"COMPLETE", "PRUNED"} == {state for _, state, _, _ in found}


def test_a_full_disk_ends_the_search_and_the_trial_is_taken_up_again_as_it_was(tmp_path):
    def full(point):
        if len(seen) == 2:
            raise DataError("the disk is full")
        seen.append(point)
        return worth(point)

    seen: list[FakePoint] = []
    with pytest.raises(DataError, match="the disk is full"):
        remembered(tmp_path / "s", Task(propose, full), 6)
    with opened(tmp_path / "s", {"fake": True}) as memory:
        assert [trial.user_attrs["started"] for trial in memory.trials] == [1, 1, 0]
        assert memory.trials[-1].params
    assert remembered(tmp_path / "whole", Task(propose, worth), 6) == remembered(
        tmp_path / "s", Task(propose, worth), 6
    )


def test_a_trial_that_the_process_dies_of_every_time_is_given_up(tmp_path):
    def dies(point):
        if point == victim:
            raise SystemExit  # as far as the database can tell, a process that was killed
        return worth(point)

    victim = FakePoint("", 0)
    third = remembered(tmp_path / "whole", Task(propose, worth), 3)[2]
    victim = FakePoint(third[2]["kind"], next(value for key, value in third[2].items() if key != "kind"))
    for _ in range(PATIENCE):
        with pytest.raises(SystemExit):
            remembered(tmp_path / "s", Task(propose, dies), 5)
    found = remembered(tmp_path / "s", Task(propose, dies), 5)
    assert [state for _, state, _, _ in found] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_the_folder_of_another_search_is_refused_in_one_sentence(tmp_path):
    folder = tmp_path / "with a ? and a %20 in it"
    folder.mkdir()
    with opened(folder, {"limit": 200, "seed": 0}):
        assert (folder / "search.db").exists()
    with pytest.raises(DataError, match="holds another search, whose limit is 200 and not 100; give --out"):
        opened(folder, {"limit": 100, "seed": 0}).__enter__()
    (folder / "search.db").write_text("no database")
    with pytest.raises(DataError, match="cannot be opened"):
        opened(folder, {"limit": 200, "seed": 0}).__enter__()


def test_without_optuna_there_is_one_sentence_with_the_line_that_installs_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DataError, match=r'pip install "headwise\[tune\]"$'):
        need_optuna()
    assert main(["tune", "fastv_heads", "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sampler", "grid"], "--sampler 'grid' is not one of tpe, nsga2, random"),
        (["--cost", "time"], "--cost 'time' is not one of processed, flops"),
        (["--benchmark", "popee"], "--benchmark: there is no benchmark 'popee'"),
    ],
)
def test_a_wrong_option_is_one_sentence(words, said, capsys, tmp_path):
    assert main(["tune", "fastv_heads", "--out", str(tmp_path / "o"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_strategy_that_raises_is_a_record_and_is_not_run_again_by_the_search(tiny, toy, tmp_path, monkeypatch):
    ran = []

    def broken(setting, inputs, out, advance):
        ran.append(setting)
        raise ZeroDivisionError("no heads")

    store = Store.open(tmp_path / "o", "tune")
    part = Part(toy, tuple(toy.questions), 0, len(toy.questions))
    bench = Bench.of(tiny, [part], 3, store=store, part="search")
    monkeypatch.setattr(measuring, "run_trial", broken)
    recipe = Recipe.of("fastv:layer=1", keep=9)
    for retry in (False, False, True):
        with pytest.raises(PointError, match="ZeroDivisionError: no heads"):
            bench.measure(recipe, retry=retry)
    assert len(ran) == 2
    (record,) = store.records.values()
    assert (
        record.study, record.part, record.error, record.attempt
    ) == ("tune", "search", "ZeroDivisionError: no heads", 2)  # fmt: skip


def told(value, processed, flops, name="r"):
    cost = {} if flops is None else {"flops_counted": flops}
    figures = {"metric": {"value": value}, "budget": {"processed": processed}, "cost": cost, "n": 1, "heads": {}}
    return record_of({"id": name, "strategies": {}, "benchmark": "made-up", **figures})


@pytest.mark.parametrize(("cost", "spent"), [("processed", 24.0), ("flops", 3e9)])
def test_a_point_is_worth_the_mean_share_of_the_unpruned_model_and_what_it_costs(cost, spent):
    judge = PointEvaluator(None, cost, [told(50.0, 144, 9e9), told(20.0, 144, 9e9)])
    records = [told(25.0, 24.0, 2e9, "a"), told(18.0, 24.0, 4e9, "b")]
    assert Value((50 + 90) / 2, spent, ("a", "b")) == judge.worth(records)
    if cost == "flops":
        with pytest.raises(DataError, match="record a has no counted FLOPs; search with --cost processed"):
            judge.worth([told(25.0, 24.0, None, "a"), records[1]])


FILE = attrs.evolve(read("fastv_heads"), benchmarks=("shapes-gqa",), limit=16)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    return run(folder, 6), folder


def run(folder: Path, trials: int):
    with (folder / "log.txt").open("w") as log:
        return tune(FILE, SearchOptions(out=folder / "o", trials=trials, confirm=2), SearchDisplay(Console(file=log)))


def test_a_search_measures_confirms_and_reports(searched):
    outcome, folder = searched
    records, warnings = json_records(folder / "o")
    assert not warnings
    parts = {part: [r for r in records if r["part"] == part] for part in ("search", "held-out")}
    assert {"tune"} == {record["study"] for record in records}
    assert len(outcome.found) + 1 == len(parts["search"])  # and the unpruned model
    assert ({0}, {1}) == tuple({record["seed"] for record in found} for found in parts.values())
    assert {16} == {record["n"] for record in records}
    asked = [{outcome["question"] + outcome["image"] for outcome in json_outcomes(folder / "o", found[0]["id"])}
             for found in parts.values()]  # fmt: skip
    assert not asked[0] & asked[1]
    for name in ("tune.md", "tune.html", "figures/front.png", "figures/front.svg", "tables/front.csv"):
        assert (folder / "o" / name).stat().st_size
    assert outcome.sentences()[0] in (folder / "o" / "tune.md").read_text()


def test_the_mean_of_the_units_is_the_accuracy_and_the_front_is_nowhere_beaten(searched):
    outcome, folder = searched
    for found in outcome.found:
        scores = units(found.value, outcome.searched, folder / "o")
        assert found.value.accuracy == pytest.approx(np.mean(list(scores.values())))
        assert not any(
            beats((found.value.accuracy, found.value.cost), (kept.value.accuracy, kept.value.cost))
            for kept in outcome.front
        )
    assert 1 <= len(outcome.judged) <= 2


def test_references_process_as_much_as_the_points_they_stand_beside(searched):
    for one in searched[0].judged:
        average = one.confirmed.found.point.plan.average
        for reference in (one.confirmed.fastv, one.confirmed.random):
            assert average == pytest.approx(reference.point.plan.average, abs=0.51)


def test_a_search_that_is_over_runs_nothing_again_and_says_the_same(searched):
    outcome, folder = searched
    before = (folder / "o" / "results.jsonl").read_bytes(), (folder / "o" / "tune.md").read_bytes()
    again = run(folder, 6)
    assert before == ((folder / "o" / "results.jsonl").read_bytes(), (folder / "o" / "tune.md").read_bytes())
    assert outcome.sentences() == again.sentences()


@pytest.mark.slow  # a report draws every figure
def test_the_folder_of_a_search_is_reported_as_any_other(searched):
    from headwise_lab.report import build

    assert build(searched[1] / "o").html.stat().st_size
