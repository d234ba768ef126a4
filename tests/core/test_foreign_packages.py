"""Benchmarks, checkpoints, commands and executors of other packages: their failures are theirs, and end nothing."""

from __future__ import annotations

import json

import pytest
from tests.core.test_blame import RAISED

from headwise import HeadwiseError
from headwise.cli import main
from headwise_lab.benchmarks import Benchmark, benchmark
from headwise_lab.models.checkpoints import checkpoint_of
from headwise_lab.report.trials import benchmark_of

BENCHMARK = """
class Mine:
    metric, scale, needs_data = "accuracy", 100.0, True
    @property
    def name(self):
        return "mine"
    def prepare(self, folder, count, seed):
        pass
    def load(self, folder, limit):
        if limit == 1:
            {raised}
        return []
    def score(self, question, prediction):
        return 1.0
    def units(self, questions, scores):
        return {{}}
    def metrics(self, questions, predictions):
        return {{}}
"""


@pytest.fixture
def mine(install):
    def make(raised: str):
        install("extra", "2.0", {"benchmark": {"mine": "extra_bench:Mine"}},
                extra_bench=BENCHMARK.format(raised=raised.replace("\n        ", "\n            ")))  # fmt: skip
        return benchmark("mine")

    return make


@pytest.mark.parametrize("raised", RAISED.values(), ids=RAISED)
def test_what_a_benchmark_raises_long_after_it_was_built_names_it(mine, tmp_path, raised):
    found = mine(raised)
    assert isinstance(found, Benchmark)
    assert (found.name, found.scale, found.needs_data, getattr(found, "hub", None)) == ("mine", 100.0, True, None)
    assert found.load(tmp_path, 2) == []
    with pytest.raises(HeadwiseError, match=r"load of benchmark 'mine' \(extra 2\.0\) failed: \w+") as caught:
        found.load(tmp_path, 1)
    assert "\n" not in str(caught.value)


def test_a_benchmark_that_is_half_one_is_none_for_a_report(install):
    install("extra", "2.0", {"benchmark": {"mine": "extra_bench:Mine"}}, extra_bench="class Mine:\n    name = 'mine'\n")
    assert benchmark_of("mine") is None
    with pytest.raises(HeadwiseError, match="lacks part of the benchmark contract"):
        benchmark("mine")


def test_running_a_benchmark_that_ends_the_program_is_status_2(mine, tmp_path, capsys):
    mine("raise SystemExit(0)")
    words = ["run", "--model", "demo-llava", "--benchmark", "mine", "--data", str(tmp_path), "--limit", "1"]
    assert main([*words, "--strategy", "fastv", "--keep", "9"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert "benchmark 'mine' (extra 2.0) failed: SystemExit" in told[-1]


@pytest.mark.parametrize("raised", ["raise SystemExit(0)", "raise RuntimeError('boom')"])
@pytest.mark.parametrize("method", ["recognises", "load"])
def test_a_checkpoint_layout_that_fails_is_named(install, tmp_path, method, raised):
    bodies = {"recognises": "return config.get('model_type') == 'zebra'", "load": "pass", method: raised}
    source = (
        "class Zebra:\n"
        f"    def recognises(self, config):\n        {bodies['recognises']}\n"
        f"    def load(self, folder, dtype, attention):\n        {bodies['load']}\n"
    )
    install("extra", "2.0", {"checkpoint": {"zebra": "extra_zebra:Zebra"}}, extra_zebra=source)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "zebra"}))
    with pytest.raises(HeadwiseError, match=r"of checkpoint layout 'zebra' \(extra 2\.0\) failed: "):
        checkpoint_of(tmp_path).load(tmp_path, None, "sdpa")


def test_a_command_of_another_package_fails_in_its_name_and_ends_as_it_likes(install, capsys):
    source = "import sys\ndef mine(how: str):\n    '''Do.'''\n    sys.exit(3) if how == 'exit' else how[99]\n"
    install("extra", "2.0", {"command": {"mine": "extra_command:mine"}}, extra_command=source)
    assert main(["mine", "so"]) == 2
    assert "command 'mine' (extra 2.0) failed: string index out of range" in capsys.readouterr().err
    assert main(["mine"]) == 2  # usage: typer still sees its arguments
    assert "Missing argument 'how'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="3"):
        main(["mine", "exit"])


def test_an_adapter_that_fails_is_named_and_what_is_done_inside_the_block_is_not_its_fault(install):
    import torch
    from tests.adapters.decoders import tiny

    import headwise
    from headwise.recipe import Recipe

    source = (
        "from contextlib import contextmanager\n"
        "from headwise_adapters.families.causal_lm import CausalLmAdapter\n"
        "from headwise_adapters.families.family import Family\n"
        "class Mine(CausalLmAdapter):\n"
        "    @contextmanager\n"
        "    def attached(self, pipeline, plan, eviction):\n"
        "        raise SystemExit(0)\n"
        "        yield\n"
        "ZEBRAS = Family(adapts='extra_adapter:Mine')\n"
    )
    install("extra", "2.0", {"adapter": {"zebra": "extra_adapter:ZEBRAS"}}, extra_adapter=source)
    model = tiny("llama")
    with pytest.raises(torch.OutOfMemoryError), headwise.attach(model, Recipe.of("window:window=4")):
        raise torch.OutOfMemoryError("too much")
    with pytest.raises(ZeroDivisionError), headwise.attach(model, Recipe.of("window:window=4")):
        1 / 0  # noqa: B018
    model.config.model_type = "zebra"
    with pytest.raises(HeadwiseError, match="the adapter Mine failed: SystemExit"), headwise.attach(model, Recipe.of()):
        pass


def test_an_executor_that_ends_the_program_is_named(install, tmp_path, capsys):
    source = (
        "import attrs\n"
        "@attrs.frozen\n"
        "class Mine:\n"
        "    workers: int | None = None\n"
        "    def run(self, work, trials, tell):\n"
        "        raise SystemExit(0)\n"
    )
    install("extra", "2.0", {"executor": {"mine": "extra_executor:Mine"}}, extra_executor=source)
    file = tmp_path / "a.toml"
    file.write_text(
        'models = ["demo-llava"]\nbenchmarks = ["shapes-gqa"]\nlimit = 2\nrecipes = ["fastv"]\n[budgets]\nkeep = [9]\n'
    )
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--executor", "mine"]) == 2
    assert "ended the program" in capsys.readouterr().err
