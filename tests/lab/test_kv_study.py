"""The KV study: its cases against the windows of the head-aware KV cache study, and the study as users meet it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import attrs
import numpy as np
import pytest
from rich.console import Console
from tests.lab.as_json import json_outcomes, json_records
from tests.lab.language_models import write_model, write_text

from headwise.cli import main
from headwise.errors import BudgetError, StrategyError
from headwise.geometry import Geometry
from headwise.heads import WINDOWS, HeadLabels, HeadProfile
from headwise.pipeline import Pipeline
from headwise_lab.commands import demo as demo_module
from headwise_lab.kv import planning, runner
from headwise_lab.kv.recipes import eviction_recipe
from headwise_lab.kv.study import FULL, demo_kv, demo_real, scale_for, scored, shuffled, streaming, study_kv
from headwise_lab.report.kv.runs import HEAD_AWARE, PERMUTED, TWIN, KvRun
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.display import Display
from headwise_lab.sweeps.local import Local
from headwise_lab.sweeps.running import Order, run
from headwise_lab.sweeps.schema import SweepFile, TextTable
from headwise_lab.sweeps.status import look

PYTHIA = Geometry(
    name="pythia-2.8b", layers=32, heads=32, kv_heads=32, head_dim=80, hidden=2560, intermediate=10240,
    visual_tokens=0, gated=False,
)  # fmt: skip
COUNTS = {"positional": 370, "mixed": 566, "gathering": 88}
TOKENS = 90


def profile_of(counts: dict[str, int], layers: int, heads: int) -> HeadProfile:
    """Heads of so many classes in some order, all quite sure."""
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    labels = np.random.default_rng(0).permutation(labels).reshape(layers, heads)
    mass = np.linspace(0.2, 1, len(WINDOWS)) * np.ones((layers, heads, 1))
    return HeadProfile(
        model="made-up",
        labels=HeadLabels(names=tuple(counts), labels=labels, confidence=np.full(labels.shape, 0.75)),
        windows=WINDOWS,
        mass=mass,
    )


def contexts(profile: HeadProfile, geometry: Geometry, cases) -> dict[str, float]:
    """Effective context of every case on a text that outgrows all windows."""
    return {
        case.name: Pipeline(eviction_recipe(case.text, profile)).eviction(geometry).context(10**6) for case in cases
    }


@pytest.fixture(scope="module")
def seed() -> dict[str, float]:
    return contexts(profile_of(COUNTS, 32, 32), PYTHIA, study_kv(permutations=1))


def test_effective_contexts_of_seed_004_follow_from_its_class_counts(seed):
    expected = {
        "K_uniform64_aware": 68.0, "K_uniform128_aware": 132.0, "J_pos64_mix64_g128": 73.5,
        "I_pos256_mix128_g128": 178.2, "I_pos512_mix64_g128": 235.4, "I_pos256_mix64_g128": 142.9,
        "B_streaming_64": 64.0, "B_streaming_512": 512.0, "A_window_128": 128.0, "allocated_64": 64.0,
    }  # fmt: skip
    assert expected == {name: pytest.approx(seed[name], abs=0.06) for name in expected}


def test_a_control_has_the_context_of_its_run(seed):
    informed = [name for name in seed if f"{name} permuted 0" in seed]
    assert len(informed) == 16 + 5 + 5 + 4
    assert all(seed[name] == pytest.approx(seed[f"{name} permuted 0"]) for name in informed)


def test_the_study_has_every_group_of_the_seed_the_full_cache_and_several_controls():
    cases = study_kv()
    names = {case.name for case in cases}
    assert {f"A_window_{window}" for window in (64, 128, 512)} <= names
    assert {f"B_streaming_{context}" for context in (64, 128, 256, 512)} <= names
    levels = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
    assert {f"G_conf{level:g}_base{base}" for level in levels for base in (64, 128)} <= names
    assert {f"I_pos{far}_mix{mixed}_g128" for far in (256, 512) for mixed in (64, 128)} <= names
    assert {"full", "J_pos64_mix64_g128", "K_uniform64_aware", "K_uniform128_aware", "K_uniform256_aware"} <= names
    assert sum(case.group == "permuted" for case in cases) == 3 * 30
    assert len(names) == len(cases)


def test_every_case_is_read_back_as_the_part_it_plays():
    profile = profile_of(COUNTS, 32, 32)
    for case in study_kv(permutations=1):
        text = eviction_recipe(case.text, profile).strategies["kv_eviction"].text
        part = KvRun(Record(id="a", strategies={"kv_eviction": text})).part
        expected = {"A": "window", "B": "uniform", "K": TWIN, "full": "full", "permuted": PERMUTED}
        assert expected.get(case.group, HEAD_AWARE) == part, case.name


def test_a_control_is_found_by_the_canonical_text_of_its_run():
    case = next(case for case in study_kv() if case.group == "I")
    ours, control = (eviction_recipe(one.text).strategies["kv_eviction"].text for one in (case, shuffled(case, 2)))
    assert ours == KvRun(Record(id="a", strategies={"kv_eviction": control})).controls


@pytest.mark.parametrize(
    ("trained", "scale"), [(None, 1), (8192, 1), (2048, 1), (512, 0.25), (256, 0.125), (32, 0.125)]
)
def test_windows_shrink_with_the_trained_context(trained, scale):
    assert scale == scale_for(trained)


def test_scaled_cases_have_scaled_names_and_sinks_that_stay(seed):
    small = {case.name: case.text for case in study_kv(0.25)}
    assert small["B_streaming_16"] == "streaming:sinks=4,window=12"
    assert small["I_pos64_mix32_g32"] == "head_windows:positional=64,mixed=32,gathering=32,sinks=4"
    assert "threshold=0.6,base=16,positional=4,mixed=16,gathering=64,sinks=4" in small["G_conf0.6_base16"]


@pytest.mark.parametrize("cases", [demo_kv(0.25), demo_kv(1.0), demo_real()], ids=["quarter", "whole", "real"])
def test_the_demos_cases_have_plans_and_lie_between_uniform_runs(cases):
    profile = profile_of(COUNTS, 32, 32)
    found = contexts(profile, PYTHIA, cases)
    uniform = [found[case.name] for case in cases if case.group == "B"]
    informed = [found[case.name] for case in cases if case.group in ("I", "J", "allocated", "score")]
    assert len(informed) >= 3
    assert min(uniform) <= min(informed)
    assert max(informed) <= max(uniform)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("lm") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"), 30)


@pytest.fixture
def few(monkeypatch):
    """A study of a few cases."""
    informed = [case for case in study_kv(0.25) if case.group == "J"][:1]
    cases = [FULL, streaming(16), streaming(64), *informed, shuffled(informed[0], 0), scored("snapkv", 16)]
    monkeypatch.setattr(planning, "study_kv", lambda scale, permutations: cases)
    return cases


def ablate(folder, text, out, *words):
    given = ["--text", str(text), "--tokens", str(TOKENS), "--out", str(out), "--model", str(folder)]
    return main(["ablate", "--study", "kv", *given, *words])


def test_the_study_leaves_records_outcomes_a_profile_and_a_report(folder, text, few, tmp_path, capsys):
    out = tmp_path / "out"
    assert ablate(folder, text, out) == 0
    told = capsys.readouterr()
    records, _ = json_records(out)
    assert [case.name for case in few] == [record["name"] for record in records]
    assert {"kv"} == {record["study"] for record in records}
    assert all(record["n"] == TOKENS - 1 == len(json_outcomes(out, record["id"])) for record in records)
    assert HeadProfile.load(out / "tiny-profile.json").text.endswith(f"after the first {TOKENS}")
    assert "KV eviction, tiny on words.txt: Head-aware windows" in told.out
    assert "not judged, because two uniform runs alone do not say how far off" in told.out
    assert "6 trials run, 0 were there already." in told.out
    assert (out / "report.html").is_file()


def test_a_second_run_finds_everything_done_and_a_changed_text_does_not(folder, text, few, tmp_path, capsys):
    out = tmp_path / "out"
    assert ablate(folder, text, out) == 0
    before = (out / "results.jsonl").read_bytes()
    assert ablate(folder, text, out) == 0
    assert "0 trials run, 6 were there already." in capsys.readouterr().out
    assert before == (out / "results.jsonl").read_bytes()
    assert (
        main(
            [
                "ablate",
                "--study",
                "kv",
                "--text",
                str(text),
                "--tokens",
                "91",
                "--out",
                str(out),
                "--model",
                str(folder),
            ]
        )
        == 2
    )
    assert "give --out a folder of its own, or --profile" in capsys.readouterr().err


def test_the_command_of_a_record_gives_the_same_figures(folder, text, few, tmp_path, capsys):
    assert ablate(folder, text, tmp_path / "out") == 0
    capsys.readouterr()
    record = next(one for one in json_records(tmp_path / "out")[0] if one["group"] == "J")
    program, *words = shlex.split(record["command"])
    assert program == "headwise"
    assert main([*words, "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert {key: record[key] for key in ("id", "metric", "context", "kv_bytes", "profile")} == {
        key: again[key] for key in ("id", "metric", "context", "kv_bytes", "profile")
    }


def test_a_profile_that_is_given_is_used_and_needs_no_more_text(folder, text, few, tmp_path, capsys):
    profile_of({"positional": 4, "mixed": 2, "gathering": 2}, 2, 4).save(tmp_path / "mine.json")
    short = write_text(tmp_path, 1)
    assert ablate(folder, short, tmp_path / "out", "--profile", str(tmp_path / "mine.json")) == 0
    assert not list((tmp_path / "out").glob("*profile.json"))
    assert "mine.json" in next(one for one in json_records(tmp_path / "out")[0] if one["group"] == "J")["command"]


def test_a_strategy_that_breaks_costs_its_own_run_only(folder, text, few, tmp_path, capsys, monkeypatch):
    real = runner.measure_text

    def breaking(loaded, given, recipe, **more):
        if more["name"] == "snapkv_16":
            raise RuntimeError("shapes do\nnot match")
        return real(loaded, given, recipe, **more)

    monkeypatch.setattr(runner, "measure_text", breaking)
    assert ablate(folder, text, tmp_path / "out") == 2
    assert "1 trial failed; the report in" in capsys.readouterr().err.splitlines()[-1]
    (failed,) = [record for record in json_records(tmp_path / "out")[0] if record.get("error")]
    assert (failed["name"], failed["error"]) == ("snapkv_16", "RuntimeError: shapes do not match")
    assert "shapes do not match" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--heads", "4"], "--heads belongs to study a and b and means nothing in study kv; leave it out"),
        (["--positions", "keep"], "--positions belongs to study a, b and methods"),
        (["--tokens", "5"], "study kv scores one text of a whole number of tokens; give one"),
        (["--profile", "/nowhere.json"], "profile /nowhere.json is missing"),
        (["--scale", "0.01"], "see headwise ablate --help"),
        (["--text", "/nowhere/at/all"], "text /nowhere/at/all is missing"),
        (["--model", "demo-llava"], "demo-llava"),
    ],
)
def test_the_study_refuses_in_one_sentence(folder, text, few, tmp_path, capsys, words, told):
    assert ablate(folder, text, tmp_path / "out", *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("headwise: ")]
    assert told in line


def test_a_text_too_short_to_classify_on_says_what_to_do(folder, few, tmp_path, capsys):
    assert ablate(folder, write_text(tmp_path, 2), tmp_path / "out") == 2
    assert "90 to score and 1024 after them to classify heads on, unless --profile gives their classes" in (
        capsys.readouterr().err
    )


def test_the_demo_reads_with_every_language_model_there_is(folder, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "TEXT", str(text))
    monkeypatch.setattr(demo_module, "TOKENS", {str(folder): TOKENS})
    monkeypatch.setattr(demo_module, "CLASSIFY_ON", 300)
    plan = demo_module._reading(str(folder), tmp_path)
    store = Store.open(tmp_path / "demo", "demo")
    order = Order(title="Demo", plans=[plan], store=store, executor=Local(0), retries=0)
    tally = run(order, Display(Console(stderr=True), plan.trials))
    records, _ = json_records(tmp_path / "demo")
    assert (len(records), 0) == (tally.ran, tally.failed)
    assert {"A", "B", "K", "J", "I", "allocated", "permuted", "score", "full"} == {one["group"] for one in records}
    assert {"demo"} == {one["study"] for one in records}
    assert [record["name"] for record in records] == [trial.case for trial in plan.trials]


def test_a_language_model_that_cannot_be_loaded_is_left_out_and_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "TOKENS", {"/nowhere/at/all": TOKENS})
    assert demo_module._reading("/nowhere/at/all", tmp_path) is None
    assert "/nowhere/at/all is left out" in capsys.readouterr().err


def test_the_demo_always_reads_with_demo_pythia():
    assert demo_module._language_models()[0] == "demo-pythia"
    assert set(demo_module._language_models()) <= set(demo_module.TOKENS)


def test_a_plan_without_a_folder_keeps_no_profile_and_names_the_same_trials(folder, text, few, tmp_path):
    sweep = SweepFile(study="kv", models=(str(folder),), text=TextTable(name=str(text), tokens=TOKENS))
    (kept,), (bare,) = planning.planned_kv(sweep, tmp_path), planning.planned_kv(sweep)
    assert [trial.id for trial in kept.trials] == [trial.id for trial in bare.trials]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-profile.json"]
    assert {trial.benchmark for trial in kept.trials} == {"text words.txt"}
    assert [trial.prunes for trial in kept.trials] == [False] + [True] * (len(few) - 1)
    assert [kept.head(trial).id for trial in kept.trials] == [trial.id for trial in kept.trials]


def test_own_strategies_stand_beside_or_instead_of_the_cases_of_the_study(folder, text, few):
    given = TextTable(name=str(text), tokens=TOKENS)
    own = ("none", "kv_eviction=h2o:budget=20", "streaming:sinks=4,window=12")
    beside = SweepFile(study="kv", models=(str(folder),), text=given, kv_eviction=("*", *own))
    (plan,) = planning.planned_kv(beside)
    assert [trial.case for trial in plan.trials] == [*(case.name for case in few), "h2o:budget=20"]  # the rest is there
    (plan,) = planning.planned_kv(attrs.evolve(beside, kv_eviction=own))
    assert [(trial.case, trial.prunes) for trial in plan.trials] == [
        ("none", False), ("h2o:budget=20", True), ("streaming:sinks=4,window=12", True)
    ]  # fmt: skip


def test_a_strategy_without_a_plan_is_refused_and_none_that_evicts_is_an_error(folder, text, tmp_path):
    own = ("none", "head_windows:positional=9", "streaming:sinks=4,window=12")
    profile_of({"near": 6, "gathering": 2}, 2, 4).save(tmp_path / "mine.json")
    given = TextTable(name=str(text), tokens=TOKENS, profile=str(tmp_path / "mine.json"))
    sweep = SweepFile(study="kv", models=(str(folder),), text=given, kv_eviction=own)
    (plan,) = planning.planned_kv(sweep)
    reasons = [trial.refused for trial in plan.trials]
    assert [reason is None for reason in reasons] == [True, False, True]
    assert "is given nothing for the 6 heads of class 'near'" in reasons[1]
    with pytest.raises(StrategyError, match="of class 'near'"):  # as ablate does it
        planning.planned_kv(sweep, may_refuse=BudgetError)
    with pytest.raises(BudgetError, match="of class 'near'"):
        planning.planned_kv(attrs.evolve(sweep, kv_eviction=own[:2]))


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_sweep_file_makes_the_records_of_ablate(workers, folder, text, tmp_path, monkeypatch):
    monkeypatch.setattr("headwise_lab.commands.ending.finish", lambda *_: None)
    shown = ("none", "streaming:sinks=4,window=12", "head_windows:positional=8,mixed=8,gathering=16,sinks=4")
    cases = planning.cases_of(shown, 1, 0)
    monkeypatch.setattr(planning, "study_kv", lambda scale, permutations: cases)
    assert ablate(folder, text, tmp_path / "ablate") == 0
    (tmp_path / "kv.toml").write_text(
        f'study = "kv"\nmodels = ["{folder}"]\nkv_eviction = {json.dumps(shown)}\n'
        f'text.name = "{text}"\ntext.tokens = {TOKENS}\n'
    )
    line = ["sweep", str(tmp_path / "kv.toml"), "--out", str(tmp_path / "sweep"), "--workers", workers]
    assert main(line) == 0
    found = [{one["id"]: figures(one) for one in json_records(tmp_path / name)[0]} for name in ("ablate", "sweep")]
    assert len(found[0]) == 3
    assert found[0] == found[1]
    for name in found[0]:
        assert json_outcomes(tmp_path / "ablate", name) == json_outcomes(tmp_path / "sweep", name)
    assert [state for _, state in look(tmp_path / "sweep").trials] == ["done"] * 3


def figures(record):
    """What two runs of a trial have in common; commands name the profile of their own folder."""
    moving = ("created", "command", "seconds", "peak_bytes", "attempt")
    return {key: value for key, value in record.items() if key not in moving}
