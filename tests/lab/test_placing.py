"""``auto``: what becomes of it on a machine without a GPU, on one with a GPU, and what records say."""

import pytest
import torch

from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise_lab.benchmarks import benchmark
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.questions import questions_of
from headwise_lab.kv.planning import planned_kv
from headwise_lab.models.load import load_language_model, load_model
from headwise_lab.models.placing import settled
from headwise_lab.sweeps.planning import planned, terms_of
from headwise_lab.sweeps.schema import SweepFile, TextTable
from headwise_lab.trial.record import Setting, head_of_record


@pytest.fixture
def gpu(monkeypatch):
    """A machine that has a GPU, as far as it is asked; returns what it is told to be able to."""
    able = {"bfloat16": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able["bfloat16"])
    monkeypatch.setattr(torch.cuda, "device", lambda place: pytest.MonkeyPatch.context())
    return able


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_auto_is_float32_on_the_cpu(no_gpu):
    assert settled("auto", "auto") == ("float32", "cpu")
    assert settled("bfloat16", "auto") == ("bfloat16", "cpu")
    assert settled("auto", "mps") == ("float32", "mps")


def test_on_a_gpu_auto_is_bfloat16_where_it_computes_in_it(gpu):
    assert settled("auto", "auto") == ("bfloat16", "cuda")
    assert settled("auto", "cuda:1") == ("bfloat16", "cuda:1")
    assert settled("auto", "cpu") == ("float32", "cpu")
    assert settled("float16", "auto") == ("float16", "cuda")
    gpu["bfloat16"] = False
    assert settled("auto", "auto") == ("float32", "cuda")


def test_a_record_says_what_auto_became_and_has_the_id_it_ever_had(no_gpu):
    """And its command names both, so that it runs the same trial on a machine that has a GPU."""
    heads = []
    for how in ({}, {"dtype": "float32", "device": "cpu"}):
        asked = benchmark("shapes-gqa")
        inputs = Inputs(load_model("demo-llava", **how), asked, questions_of(asked, limit=2, seed=0), 2)
        heads.append(head_of_record(Setting(recipe=Recipe.of("fastv:layer=2", keep=16), limit=2), inputs))
    assert heads[0].id == heads[1].id
    assert (heads[0].dtype, heads[0].hardware.device) == ("float32", "cpu")
    assert heads[0].command.endswith("--dtype float32 --device cpu")


def test_a_sweep_plans_what_auto_became_so_that_workers_run_the_same(no_gpu):
    given = {"models": ("demo-llava",), "benchmarks": ("shapes-gqa",), "recipes": ("fastv",), "limit": 2}
    auto, said = (planned(SweepFile(**given, **how)) for how in ({}, {"dtype": "float32", "device": "cpu"}))
    assert [trial.id for trial in auto.trials] == [trial.id for trial in said.trials]
    assert (auto.work.terms.dtype, auto.work.terms.device) == ("float32", "cpu")
    (text,) = planned_kv(SweepFile(study="kv", text=TextTable(tokens=40), kv_eviction=("window:window=8", "none")))
    assert (text.work.terms.dtype, text.work.terms.device) == ("float32", "cpu")


def test_a_sweep_on_a_gpu_machine_plans_for_the_gpu(gpu):
    assert terms_of(SweepFile(recipes=("fastv",)), None).device == "cuda"
    assert terms_of(SweepFile(recipes=("fastv",), device="cpu"), None).dtype == "float32"


@pytest.mark.parametrize("load", [load_model, load_language_model])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"device": "cuda:1"}, "torch finds no GPU here for device cuda:1; give auto or cpu"),
        ({"device": "gpu"}, "torch knows no device 'gpu'; give auto, cpu, cuda or cuda:1"),
        ({"device": "meta"}, "device 'meta' holds no numbers"),
        ({"dtype": "int4"}, "dtype 'int4' is not one of auto, float32, bfloat16, float16"),
    ],
)
def test_what_means_nothing_here_is_refused_before_the_model_is_read(no_gpu, load, how, said):
    with pytest.raises(ModelError, match=said):
        load("there-is/none", **how)
