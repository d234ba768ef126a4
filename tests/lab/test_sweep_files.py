"""Sweep files: what they may say, what is wrong with them in one sentence, and the trials that they make."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import Budget, BudgetError, DataError, Geometry, shape
from headwise.cli import main
from headwise.registry import installed
from headwise_lab.kv.planning import cases_of
from headwise_lab.kv.study import study_kv
from headwise_lab.sweeps.cases import budgets_for, cases
from headwise_lab.sweeps.planning import planned
from headwise_lab.sweeps.reading import read, shipped, structured
from headwise_lab.sweeps.schema import Budgets, Grid, SweepFile
from headwise_lab.sweeps.studies import averages, common_averages, head_counts, pruning_recipes, recipes, study_a
from headwise_lab.sweeps.trials import Terms, TextInput, Trial, Work, plain, trial_from, work_from

MODEL = shape("demo-llava")
ONE = 'recipes = ["dart"]\n'


def sweep(text):
    return structured(tomllib.loads(text), "f.toml")


def refusal(text):
    with pytest.raises(DataError) as caught:
        sweep(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('limit = "3"', "limit: '3' is not a whole number"),
        ("limit = 0", "limit: 0 is too small; allowed: 1 and above"),
        ("batch = 2.5", "batch: 2.5 is not a whole number"),
        ("unpruned = 1", "unpruned: 1 is not true or false"),
        ("seeds = [true]", "seeds[0]: True is not a whole number"),
        ("seeds = [1, 0, 1]", "seeds[2]: 1 is given twice; leave one out"),
        ("models = []", "models: the list is empty; give at least one"),
        ('models = "demo-llava"', "models: 'demo-llava' is not a list, such as [...]"),
        ("title = 3", "title: 3 is not a text in quotes"),
        ('study = "c"', "study: there is no study 'c'; allowed: a, b, kv, methods"),
        ('dtype = "float23"', "dtype: 'float23' is not allowed; did you mean float32 or float16 or bfloat16? allowed:"),
        ('benchmarks = ["x", "pop"]', "benchmarks[0]: there is no benchmark 'x'; allowed: gqa, "),
        (
            'benchmarks = ["pope", "mmee"]',
            "benchmarks[1]: there is no benchmark 'mmee'; did you mean mme or mm-vet? allo",
        ),
        ("settings = 3", "settings: 3 is not a table with keys positions, aggregate, min_mass, sink_share"),
        (
            'settings.positions = "kept"',
            "settings.positions: 'kept' is not allowed; did you mean keep? allowed: keep, ",
        ),
        ("settings.min_mass = 2", "settings.min_mass: 2 is no share; allowed: 0 to 1"),
        ("budgets.tokns = [3]", "budgets.tokns: there is no such key; did you mean tokens? allowed: tokens, shares, k"),
        ("budgets.tokens = [32, 0]", "budgets.tokens[1]: 0 is no budget; allowed: numbers above 0"),
        ("budgets.shares = [1.5]", "budgets.shares[0]: 1.5 is no share; allowed: numbers above 0, up to 1"),
        ("budgets.keep = [1.5]", "budgets.keep[0]: 1.5 is not a whole number"),
        ("grids = 3", "grids: 3 is not [[...]] tables"),
        ("grids = [3]", "grids[0]: 3 is not a table with keys token_pruning, head_scoring, "),
        ("[[grids]]\nhead_scoring = []", "grids[0].head_scoring: the list is empty"),
        ("[[grids]]\n[[grids]]\nheads = [0]", "grids[1].heads[0]: 0 is too small"),
        (
            '[[grids]]\nhead_scoring = ["sum", "sparcity"]',
            "grids[0].head_scoring[1]: there is no head_scoring strategy 'sparcity'; did you mean sparsity? allowed: ",
        ),
        ('[[grids]]\nhead_scoring = ["sparsity:shape=l2"]', "has no option 'shape'; its options are form"),
        (
            '[[grids]]\nhead_scoring = ["sparsity:form=l7"]',
            "grids[0].head_scoring[0]: head_scoring strategy 'sparsity'",
        ),
        ('[[grids]]\nhead_scoring = ["a:"]', "grids[0].head_scoring[0]: strategy text 'a:' ends with ':'"),
        ('[[grids]]\ntoken_pruning = ["sparsity"]', "grids[0].token_pruning[0]: there is no token_pruning strategy"),
        ("limti = 3", "limti: there is no such key; did you mean limit? allowed: title, study, models, "),
    ],
)
def test_a_wrong_value_is_one_sentence_with_file_key_and_what_is_allowed(text, said):
    told = refusal(ONE + text)
    assert told.startswith("f.toml: ")
    assert said in told


def test_wrong_recipes_and_no_recipes_are_told_apart():
    assert "f.toml: recipes[0]: there is no recipe 'dort'; did you mean dart? allowed: " in refusal(
        'recipes = ["dort"]'
    )
    assert refusal("limit = 3") == ("f.toml: recipes: nothing is compared; give recipes = [...] or a table [[grids]]")


def test_files_that_are_missing_or_no_toml_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"no sweep file ablation; did you mean .*ablation_a.* those that ship are abl"):
        read("ablation")
    (tmp_path / "a.toml").write_text("limit = 3\nlimit = 4\n")
    with pytest.raises(DataError, match=r"a\.toml is not TOML: Cannot overwrite a value"):
        read(str(tmp_path / "a.toml"))
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"b\.toml is not UTF-8 text"):
        read(str(tmp_path / "b.toml"))


def test_data_is_looked_for_beside_the_file(tmp_path):
    (tmp_path / "a.toml").write_text(f'{ONE}data = "files"')
    assert read(str(tmp_path / "a.toml")).data == str(tmp_path / "files")
    (tmp_path / "b.toml").write_text(f'{ONE}data = "/files"')
    assert read(str(tmp_path / "b.toml")).data == "/files"


def trials_of(listed):
    """Canonical texts and budget of every case."""
    built = recipes(listed)
    return {
        (tuple(sorted((hook, strategy.text) for hook, strategy in recipe.strategies.items())), recipe.budget)
        for recipe in built
    }


def usual(geometry):
    """Processed averages of the LLaVA-FinePruner-Head ablation."""
    return [Budget(tokens=average) for average in averages(geometry)[0]]


def test_the_files_that_ship_are_the_studies():
    assert shipped() == ["ablation_a", "ablation_b", "kv", "methods"]
    expected = study_a(benchmarks=["x"], budgets=usual(MODEL), heads=head_counts(MODEL.heads))
    assert trials_of(cases(read("ablation_a"), "x", MODEL)) == trials_of(expected)
    large = shape("llava-1.5-7b")
    fixed = ("token_pruning=fastv:layer=2", "head_scoring=variance", "head_count=fixed:heads=16")
    queries = {(*fixed, f"query_selection={name}") for name in installed("query_selection")}
    found = cases(read("ablation_b"), "x", large)
    for budget in usual(large):
        texts = {case.strategies for case in found if case.budget == budget}
        references = {text[1:3] for text in texts - queries}
        assert queries <= texts
        assert references == {
            ("head_scoring=sum", "head_count=all"),
            ("head_scoring=random", "head_count=fixed:heads=16"),
        }
    assert sum(case.recipe == "vanilla" for case in found) == 1
    named = pruning_recipes()
    averages = common_averages(MODEL, named)[0]
    wanted = {(name, Budget(tokens=average)) for name in named for average in averages}
    assert {(case.recipe, case.budget) for case in cases(read("methods"), "x", MODEL)} == wanted | {
        ("vanilla", Budget())
    }
    kv = read("kv")
    assert (kv.study, kv.models, kv.kv_eviction) == ("kv", ("demo-pythia",), ("*",))
    assert cases_of(kv.kv_eviction, 0.5, kv.reading.permutations) == study_kv(0.5, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit = 3", "limit: means nothing in study kv; leave it out; allowed: title, study, "),
        ("batch = 16", "batch: means nothing in study kv"),  # also where it is what is taken anyway
        ('recipes = ["dart"]', "recipes: means nothing in study kv"),
        ("[[grids]]", "grids: means nothing in study kv"),
        ("budgets.keep = [3]", "budgets: means nothing in study kv"),
        ('benchmarks = ["pope"]', "benchmarks: means nothing in study kv"),
        ("kv_eviction = []", "kv_eviction: the list is empty; give at least one"),
        (
            'kv_eviction = ["*", "snapvk"]',
            "kv_eviction[1]: there is no kv_eviction strategy 'snapvk'; did you mean snapkv? allowed: ",
        ),
        ('kv_eviction = ["fastv:layer=2"]', "kv_eviction[0]: there is no kv_eviction strategy 'fastv'"),
        ("text = 3", "text: 3 is not a table with keys name, tokens, profile, scale, permutations"),
        ("text.tokens = 1", "text.tokens: 1 is too small; allowed: 2 and above"),
        ("text.tokens = 2.5", "text.tokens: 2.5 is not a whole number"),
        ("text.scale = 9", "text.scale: 9 is not allowed; allowed: 0.125 to 8"),
        ("text.permutations = -1", "text.permutations: -1 is too small"),
        ("text.nmae = 'kjv'", "text.nmae: there is no such key; did you mean name? allowed: name, tokens, "),
    ],
)
def test_a_wrong_value_of_study_kv_is_one_sentence(text, said):
    told = refusal(f'study = "kv"\n{text}')
    assert told.startswith("f.toml: ")
    assert said in told


@pytest.mark.parametrize("text", ["[text]", 'kv_eviction = ["*"]'])
def test_keys_of_study_kv_are_refused_in_other_studies(text):
    key = text.strip("[]").partition(" ")[0]
    assert refusal(ONE + text) == (
        f'f.toml: {key}: belongs to study kv and means nothing without it; give study = "kv", or leave it out'
    )


def test_texts_and_profiles_are_looked_for_beside_the_file(tmp_path):
    (tmp_path / "novel.txt").write_text("Once.")
    (tmp_path / "p.json").write_text("{}")
    (tmp_path / "a.toml").write_text('study = "kv"\ntext.name = "novel.txt"\ntext.profile = "p.json"')
    found = read(str(tmp_path / "a.toml")).reading
    assert (found.name, found.profile) == (str(tmp_path / "novel.txt"), str(tmp_path / "p.json"))
    (tmp_path / "b.toml").write_text('study = "kv"\ntext.name = "kvj"')
    with pytest.raises(
        DataError, match=r"b\.toml: text\.name: there is no text 'kvj'; did you mean kjv\? allowed: kjv"
    ):
        read(str(tmp_path / "b.toml"))
    (tmp_path / "c.toml").write_text('study = "kv"\ntext.profile = "q.json"')
    with pytest.raises(DataError, match=r"c\.toml: text\.profile: there is no file .*q\.json"):
        read(str(tmp_path / "c.toml"))


SCORERS = ("sum", "variance", "sparsity", "adaptive", "random")
COUNTS = ("all", "score_gap")
QUERIES = ("last_token", "max_attention_token")
PRUNINGS = ("fastv:layer=2", "fastv:layer=3")


def some(values, least=1):
    return st.lists(st.sampled_from(values), min_size=least, max_size=3, unique=True).map(tuple)


GRIDS = st.builds(
    Grid,
    token_pruning=some(PRUNINGS),
    head_scoring=some(SCORERS),
    head_count=some(COUNTS, 0),
    heads=some((2, 4, 6), 0),
    head_shares=some((0.25, 0.5), 0),
    query_selection=some(QUERIES),
)


def by_hand(grids, budgets, *, unpruned, baseline, control):
    """The trials of grids on a model of 8 heads, loop by loop."""
    found = {("vanilla", Budget())} if unpruned else set()
    for grid in grids:
        numbers = list(grid.heads)
        for share in grid.head_shares:
            numbers.append({0.25: 2, 0.5: 4}[share])
        if not numbers and not grid.head_count:
            numbers = [6, 4, 2]
        for budget in budgets:
            for pruning in grid.token_pruning:
                if baseline:
                    found.add((pruning, "sum", "all", "last_token", budget))
                if control:
                    for count in grid.head_count:
                        if count != "all":
                            found.add((pruning, "random", count, "last_token", budget))
                    for number in numbers:
                        found.add((pruning, "random", f"fixed:heads={number}", "last_token", budget))
                for scorer in grid.head_scoring:
                    for query in grid.query_selection:
                        for count in grid.head_count:
                            found.add((pruning, scorer, count, query, budget))
                        for number in numbers:
                            count = "all" if scorer == "adaptive" else f"fixed:heads={number}"
                            found.add((pruning, scorer, count, query, budget))
    return found


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    grids=st.lists(GRIDS, min_size=1, max_size=2).map(tuple),
    tokens=some((48.0, 32.0), 0),
    keep=some((8, 16), 0),
    flags=st.fixed_dictionaries({name: st.booleans() for name in ("unpruned", "baseline", "control")}),
)
def test_a_grid_is_the_product_of_its_lists_and_its_references(grids, tokens, keep, flags):
    file = SweepFile(grids=grids, budgets=Budgets(tokens=tokens, keep=keep), **flags)
    budgets = [*(Budget(tokens=average) for average in tokens), *(Budget(keep=count) for count in keep)]
    budgets = budgets or [Budget(tokens=average) for average in (48.0, 32.0, 27.0)]
    listed = cases(file, "x", MODEL)
    assert len(set(listed)) == len(listed)
    found = {
        (case.recipe, case.budget)
        if case.recipe
        else (*(text.partition("=")[2] for text in case.strategies), case.budget)
        for case in listed
    }
    assert found == by_hand(grids, budgets, **flags)


def test_shares_are_processed_averages():
    file = SweepFile(recipes=("dart",), budgets=Budgets(shares=(0.25, 0.5)))
    assert budgets_for(file, MODEL) == ([Budget(tokens=36.0), Budget(tokens=72.0)], ())


def test_recipes_are_run_beside_the_reference_and_the_unpruned_model():
    file = SweepFile(recipes=("dart", "vanilla"), budgets=Budgets(keep=(16,)))
    assert [case.recipe for case in cases(file, "x", MODEL)] == ["vanilla", "fastv", "dart"]
    bare = attrs.evolve(file, unpruned=False, baseline=False)
    assert [case.recipe for case in cases(bare, "x", MODEL)] == ["dart"]


def test_trials_and_work_travel_as_plain_data():
    trial = Trial(id="a", label="b", model="m", benchmark="x", strategies=("sum",), keep=4, refused="no")
    reading = TextInput(name="novel", digest="d", ids=(1, 2), profile={"labels": [[0]], "mass": None}, scale=0.5)
    work = Work(terms=Terms(limit=3, settings={"min_mass": 0.5, "positions": "keep"}, reading=reading), runner="a:b")
    assert trial_from(plain(trial)) == trial
    assert work_from(json.loads(json.dumps(plain(work)))) == work
    assert plain(trial)["strategies"] in (["sum"], ("sum",))


@pytest.fixture
def file(tmp_path):
    from headwise_lab.benchmarks import benchmark

    benchmark("shapes-gqa").prepare(tmp_path / "data", 6, 0)
    return SweepFile(
        benchmarks=("shapes-gqa",),
        data=str(tmp_path / "data"),
        seeds=(0, 1),
        limit=3,
        recipes=("fastv",),
        grids=(Grid(heads=(3, 9), head_scoring=("sum", "sparsity")),),
        budgets=Budgets(keep=(16, 145)),
    )


def test_a_plan_has_every_trial_once_and_says_why_some_cannot_be_run(file, tiny):
    plan = planned(file, lambda *_, **__: tiny, study="a")
    assert len({trial.id for trial in plan.trials}) == len(plan.trials)
    # 1 unpruned; at each budget sum of all heads once (recipe and baseline are the same trial), and three scorers at
    # two counts. Questions from files do not depend on the seed.
    assert len(plan.trials) == 1 + 2 * (1 + 3 * 2)
    reasons = [trial.refused for trial in plan.trials if trial.refused]
    assert len(reasons) == 3 + 7
    assert sum("wants 9 heads, but this model has 8 heads; give heads=1..8" in reason for reason in reasons) >= 3
    assert sum("keep=145 is more than the 144 visual tokens" in reason for reason in reasons) >= 4
    assert {trial.questions for trial in plan.trials} == {3}
    for trial in plan.trials:
        head = plan.head(trial)
        assert (head.id, head.study, head.benchmark) == (trial.id, "a", "shapes-gqa")


def test_a_plan_in_which_nothing_can_be_pruned_is_refused(file, tiny):
    with pytest.raises(BudgetError, match="keep=145 is more than the 144"):
        planned(attrs.evolve(file, budgets=Budgets(keep=(145,))), lambda *_, **__: tiny)


def test_the_plan_can_be_looked_at_and_the_command_line_may_say_otherwise(tmp_path, file, tiny_folder, capsys):
    text = f'models = ["{tiny_folder}"]\nbenchmarks = ["shapes-gqa"]\n{ONE}budgets.keep = [16]\n'
    (tmp_path / "s.toml").write_text(text)
    words = ["sweep", str(tmp_path / "s.toml"), "--data", file.data, "--limit", "2", "--plan"]
    assert main(words) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "3 trials, 0 of which cannot be run"
    assert [line[18:] for line in told[:-1]] == [
        "shapes-gqa, unpruned",
        "shapes-gqa, keep=16, fastv",
        "shapes-gqa, keep=16, dart",
    ]
    assert main([*words, "--benchmark", "gpa"]) == 2
    assert "headwise: --benchmark: there is no benchmark 'gpa'; did you mean gqa" in capsys.readouterr().err
    assert main(words[:2]) == 2
    assert "a sweep needs --out DIR, or --plan" in capsys.readouterr().err


def test_a_model_of_another_size_is_planned_by_its_own_counts():
    small = Geometry(name="s", layers=4, heads=2, kv_heads=2, head_dim=4, hidden=8, intermediate=8, visual_tokens=16)
    listed = cases(SweepFile(grids=(Grid(),), budgets=Budgets(keep=(2,)), control=False), "x", small)
    assert [case.strategies[2] for case in listed if case.strategies] == [
        "head_count=all",
        "head_count=fixed:heads=2",
        "head_count=fixed:heads=1",
    ]


def test_the_sweep_file_of_the_site_is_one():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "sweeps.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(title = .+?)```", page, re.DOTALL)[1]
    found = structured(tomllib.loads(example), "sweeps.md")
    assert found.budgets.tokens == (192, 128, 64)
    assert found.grids[0].heads == (8, 16)
