"""Perplexity under eviction: records and pairs against brute force, and ``headwise ppl`` as a user meets it."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import attrs
import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.as_json import as_json, json_outcomes
from tests.lab.language_models import write_model, write_text

from headwise.cli import main
from headwise.errors import DataError, ModelError, StrategyError
from headwise.heads import HeadLabels, HeadProfile
from headwise.registry import resolve
from headwise_lab.commands import ppl as command_module
from headwise_lab.kv import measure
from headwise_lab.kv.measure import identity, measure_text, outcomes_of, profile_digest
from headwise_lab.kv.recipes import eviction_recipe
from headwise_lab.models.load import load_language_model
from headwise_lab.report.kv.to_first import text_changes
from headwise_lab.stats.blocks import in_blocks
from headwise_lab.stats.means import mean_and_error, perplexity
from headwise_lab.stats.rule import holm
from headwise_lab.store.outcome_types import TokenOutcome
from headwise_lab.store.output_folder import Store
from headwise_lab.texts.tokens import tokens_of

TOKENS = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("lm") / "tiny")


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_language_model(str(folder))


@pytest.fixture(scope="module")
def text(loaded, words):
    return tokens_of(loaded.tokenizer, words, TOKENS)


def ppl(folder, words, *more):
    return main(["ppl", "--model", str(folder), "--text", str(words), "--tokens", str(TOKENS), *more])


def strategies(*texts):
    return [word for text in texts for word in ("--strategy", text)]


def refusal(capsys) -> str:
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    (line,) = [line for line in told.err.splitlines() if line.startswith("headwise: ")]
    return line


def brute_force(loaded, ids):
    """Losses and hits of an ordinary forward of the ordinary model."""
    with torch.no_grad():
        logits = loaded.model(ids.unsqueeze(0)).logits[0, :-1].double()
    losses = -logits.log_softmax(dim=-1)[torch.arange(len(ids) - 1), ids[1:]]
    return losses.numpy(), (logits.argmax(dim=-1) == ids[1:]).numpy()


def test_with_a_full_cache_every_figure_is_that_of_an_ordinary_forward(loaded, text):
    losses, hits = brute_force(loaded, text.ids)
    record, outcomes = as_json(
        measure_text(loaded, text, eviction_recipe("none"), name="full", group="full", study="kv")
    )
    assert [outcome["id"] for outcome in outcomes] == [str(position) for position in range(1, TOKENS)]
    assert [outcome["score"] for outcome in outcomes] == pytest.approx(losses, abs=2e-5)
    assert [outcome["right"] for outcome in outcomes] == hits.tolist()
    count, spread = TOKENS - 1, losses.std(ddof=1) / math.sqrt(TOKENS - 1)
    assert record["n"] == count
    assert record["nll"] == pytest.approx({"mean": losses.mean(), "se": spread}, abs=1e-4)
    assert record["metric"]["value"] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    assert record["metric"]["se"] == pytest.approx(math.exp(losses.mean()) * spread, rel=1e-4)
    assert record["accuracy"]["value"] == pytest.approx(hits.mean())
    assert record["accuracy"]["se"] == pytest.approx(hits.std(ddof=1) / math.sqrt(count))
    assert (record["context"], record["visible"]) == (TOKENS, pytest.approx((1 + count) / 2))
    assert (record["name"], record["group"], record["study"]) == ("full", "full", "kv")
    assert record["text"] == {"name": "words.txt", "digest": text.digest, "tokens": TOKENS}


def test_entries_and_bytes_are_those_of_the_plan(loaded, text):
    record, _ = as_json(measure_text(loaded, text, eviction_recipe("streaming:sinks=2,window=10")))
    assert record["context"] == 12
    assert record["visible"] == pytest.approx(np.minimum(np.arange(1, TOKENS), 12).mean())
    # 2 layers x 2 KV heads x 12 entries x (key and value) x 8 numbers x 4 bytes
    assert record["kv_bytes"] == record["kv_bytes_planned"] == 2 * 2 * 12 * 2 * 8 * 4


def test_the_context_of_a_score_based_strategy_is_a_mean_between_evictions(loaded, text):
    record, _ = as_json(measure_text(loaded, text, eviction_recipe("knorm:budget=20,every=5")))
    # Chunks of 5 begin with 20 entries held: the tokens see 21, 22, 23, 24 and 25.
    assert record["context"] == pytest.approx(23)
    assert record["kv_bytes"] == record["kv_bytes_planned"]


def test_chunks_change_nothing_but_their_size(loaded, text):
    recipe = eviction_recipe("window:window=9")
    _, whole = as_json(measure_text(loaded, text, recipe))
    heard: list[int] = []
    _, pieces = as_json(measure_text(loaded, text, recipe, chunk=32, progress=heard.append))
    assert [outcome["score"] for outcome in pieces] == pytest.approx([outcome["score"] for outcome in whole], abs=2e-5)
    assert heard == [32, 64, TOKENS]


def outcomes(losses, hits=None):
    hits = hits if hits is not None else [False] * len(losses)
    return [
        TokenOutcome(id=str(i), score=float(loss), right=bool(hit))
        for i, (loss, hit) in enumerate(zip(losses, hits, strict=True))
    ]


def block_error(apart) -> float:
    """Standard error of a mean over tokens, by blocks of them; 0 where there is one block alone."""
    error = mean_and_error([*in_blocks({str(i): float(gap) for i, gap in enumerate(apart)}).values()])[1]
    return 0.0 if math.isnan(error) else error


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.booleans(), st.booleans()), min_size=2, max_size=12))
def test_differences_are_those_of_pairs(rows):
    ours, theirs, our_hits, their_hits = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    (found,) = text_changes(list(reversed(outcomes(theirs, their_hits))), [outcomes(ours, our_hits)])
    for difference, apart in ((found.loss, ours - theirs), (found.right, our_hits - their_hits)):
        assert difference.value == pytest.approx(apart.mean(), abs=1e-9)
        assert difference.se == pytest.approx(block_error(apart), abs=1e-9, nan_ok=True)
    assert found.ratio[0] == pytest.approx(math.exp(ours.mean()) / math.exp(theirs.mean()))


def jackknife(statistic, count):
    """Standard error of a statistic of all but some observations, from leaving out one at a time."""
    left_out = np.array([statistic(np.delete(np.arange(count), i)) for i in range(count)])
    return math.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())


def test_errors_by_the_delta_method_are_those_of_the_jackknife():
    draw = np.random.default_rng(0)
    theirs = draw.gamma(2.0, 1.2, 400)
    ours = theirs + draw.normal(0.1, 0.4, 400)
    mean, se = ours.mean(), ours.std(ddof=1) / 20
    assert perplexity(mean, se)[1] == pytest.approx(jackknife(lambda kept: math.exp(ours[kept].mean()), 400), rel=0.02)
    (found,) = text_changes(outcomes(theirs), [outcomes(ours)])
    expected = jackknife(lambda kept: math.exp(ours[kept].mean()) / math.exp(theirs[kept].mean()), 400)
    assert found.ratio[1] == pytest.approx(expected, rel=0.3)  # tokens are independent here, and there are 27 blocks
    assert found.ratio[1] < perplexity(mean, se)[1] / 3  # what pairing is for


def test_records_without_a_token_in_common_are_not_compared():
    with pytest.raises(DataError, match="scored no token in common"):
        text_changes(outcomes([1.0]), [[TokenOutcome(id="x", score=1.0, right=True)]])


def test_strategies_are_compared_with_the_first_as_one_family():
    draw = np.random.default_rng(3)
    first = draw.gamma(2.0, 1.2, 900)
    others = [outcomes(first + draw.normal(gap, 0.3, 900), draw.random(900) < 0.5) for gap in (0.5, 0.01, 0.0, 0.0)]
    found = text_changes(outcomes(first, draw.random(900) < 0.5), others)
    pairs = [pair for one in found for pair in (one.loss, one.right)]
    assert [pair.adjusted for pair in pairs] == holm([pair.p for pair in pairs])
    assert [(pair.family, pair.n) for pair in pairs] == [(8, 47)] * 8
    assert [one.loss.clear for one in found] == [True, False, False, False]


def test_losses_that_are_no_numbers_or_too_many_are_one_sentence(loaded, text, monkeypatch):
    recipe = eviction_recipe("none")
    reading = measure.read_text(loaded.model, recipe, text.ids)
    with pytest.raises(ModelError, match="not finite numbers; try --dtype float32"):
        outcomes_of(attrs.evolve(reading, nll=reading.nll.log() * math.nan))
    monkeypatch.setattr(measure, "read_text", lambda *_, **__: attrs.evolve(reading, nll=reading.nll + 800))
    with pytest.raises(ModelError, match="nats per token, too large for a perplexity"):
        measure_text(loaded, text, recipe)


def profile(confidence: float = 0.9) -> HeadProfile:
    labels = np.array([[0, 1, 2, 0], [2, 2, 1, 0]])
    sure = np.full((2, 4), confidence) / 3 + np.arange(8).reshape(2, 4) / 30
    return HeadProfile(
        model="tiny", labels=HeadLabels(names=("positional", "mixed", "gathering"), labels=labels, confidence=sure)
    )


def test_a_record_is_named_by_what_can_change_it(loaded, text, words):
    recipe = eviction_recipe("window:window=9")
    name = identity(loaded, text, recipe)
    record, _ = as_json(measure_text(loaded, text, recipe, command="x", chunk=7, name="A", group="A", study="kv"))
    assert record["id"] == name
    fewer = tokens_of(loaded.tokenizer, words, TOKENS - 1)
    other = attrs.evolve(text, digest="0" * 16)
    changed = [
        identity(loaded, fewer, recipe),
        identity(loaded, other, recipe),
        identity(loaded, text, eviction_recipe("window:window=10")),
        identity(loaded, text, recipe, seed=1),
        identity(attrs.evolve(loaded, weights="0" * 16), text, recipe),
        identity(attrs.evolve(loaded, dtype="bfloat16"), text, recipe),
        identity(attrs.evolve(loaded, attention="eager"), text, recipe),
    ]
    assert len({name, *changed}) == 1 + len(changed)
    assert identity(attrs.evolve(loaded, name="renamed"), text, recipe) == name


def test_a_profile_counts_where_it_is_read_and_is_known_again_after_saving(loaded, text, tmp_path):
    windows, heads = "window:window=9", "head_windows:positional=5,mixed=9,gathering=20"
    assert identity(loaded, text, eviction_recipe(windows, profile())) == identity(
        loaded, text, eviction_recipe(windows)
    )
    names = {identity(loaded, text, eviction_recipe(heads, profile(sure))) for sure in (0.8, 0.9)}
    assert len(names) == 2
    profile().save(tmp_path / "p.json")
    again = HeadProfile.load(tmp_path / "p.json")
    assert profile_digest(again) == profile_digest(profile()) != profile_digest(profile(0.5))
    record, _ = as_json(measure_text(loaded, text, eviction_recipe(heads, again)))
    assert record["profile"] == profile_digest(profile())
    assert as_json(measure_text(loaded, text, eviction_recipe(windows, again)))[0]["profile"] is None


def test_names_that_other_hooks_know_too_are_clear():
    for name in ("none", "random:budget=8"):
        strategy = eviction_recipe(name).strategies["kv_eviction"]
        assert strategy.hook == "kv_eviction"
    with pytest.raises(StrategyError, match="exists for more than one hook"):
        resolve("none")
    with pytest.raises(StrategyError, match="unknown kv_eviction strategy 'fastv'"):
        eviction_recipe("fastv")


def test_the_command_prints_records_and_their_pairs(folder, words, capsys, tmp_path):
    chosen = strategies("none", "window:window=6", "streaming:sinks=2,window=4")
    assert ppl(folder, words, *chosen, "--json", "--out", str(tmp_path / "o")) == 0
    first, *others = json.loads(capsys.readouterr().out)
    assert first["to_first"] is None
    theirs = {outcome["id"]: outcome for outcome in json_outcomes(tmp_path / "o", first["id"])}
    for record in others:
        ours = {outcome["id"]: outcome for outcome in json_outcomes(tmp_path / "o", record["id"])}
        apart = np.array([ours[name]["score"] - theirs[name]["score"] for name in theirs])
        pairs = record["to_first"]
        assert pairs["nll"]["mean"] == pytest.approx(apart.mean())
        assert pairs["nll"]["se"] == pytest.approx(block_error(apart))
        ratio = record["metric"]["value"] / first["metric"]["value"]
        assert pairs["perplexity_ratio"] == pytest.approx({"value": ratio, "se": ratio * pairs["nll"]["se"]})
        assert pairs["clear"]["nll"] == (pairs["adjusted_p"]["nll"] <= 0.05 and len(apart) >= 89)  # ten blocks
    stored = Store.open(tmp_path / "o", "ppl").records
    assert list(stored) == [record["id"] for record in (first, *others)]
    assert "to_first" not in stored[first["id"]].to_json()


def test_the_command_of_a_record_makes_it_again(folder, words, capsys, tmp_path):
    profile().save(tmp_path / "p.json")
    heads = "head_windows:positional=5,mixed=9,gathering=20"
    options = ["--profile", str(tmp_path / "p.json"), "--attention", "eager", "--chunk", "40"]
    assert ppl(folder, words, *strategies(heads), *options, "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    program, *typed = shlex.split(record["command"])
    assert program == "headwise"
    assert main([*typed, "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    moving = ("created", "seconds")
    assert {k: v for k, v in again.items() if k not in moving} == {k: v for k, v in record.items() if k not in moving}


def test_what_is_stored_is_not_run_again(folder, words, capsys, tmp_path, monkeypatch):
    typed = [*strategies("none", "window:window=6"), "--json", "--out", str(tmp_path / "o")]
    assert ppl(folder, words, *typed) == 0
    before = capsys.readouterr().out
    monkeypatch.setattr(measure, "read_text", None)
    assert ppl(folder, words, *typed) == 0
    assert capsys.readouterr().out == before


def test_what_is_stored_behind_a_url_is_not_run_again(folder, words, capsys, monkeypatch):
    typed = [*strategies("none", "window:window=6"), "--json", "--out", "memory://ppl/out"]
    assert ppl(folder, words, *typed) == 0
    before = capsys.readouterr()
    assert "stored in memory://ppl/out\n" in before.err
    monkeypatch.setattr(measure, "measure_text", lambda *_, **__: pytest.fail("it was run again"))
    assert ppl(folder, words, *typed) == 0
    assert capsys.readouterr().out == before.out
    fsspec.filesystem("memory").store.clear()


def test_the_table_says_what_differs_and_what_to_mind(folder, words, capsys, monkeypatch):
    read, noise = measure.read_text, torch.tensor([3.0, -2.9]).repeat(TOKENS)[: TOKENS - 1]
    planted = {"none": 0.0, "window": 0.1, "streaming": noise}  # nats worse than the full cache

    def reading(model, recipe, ids, **_):
        found = read(model, eviction_recipe("none"), ids)
        visible = read(model, recipe, ids).visible
        return attrs.evolve(found, nll=found.nll + planted[recipe.strategies["kv_eviction"].name], visible=visible)

    monkeypatch.setattr(measure, "read_text", reading)
    assert ppl(folder, words, *strategies("none", "window:window=3", "streaming:sinks=4,window=26")) == 0
    told = capsys.readouterr().out
    head, none, window, streaming = told.split("\n\n")[0].splitlines()
    assert head.split()[:2] == ["Strategy", "Perplexity"]
    assert none.count("±") == 2
    assert window.startswith("window:window=3 ")
    assert "+10.5 ± 0.0 *" in window  # exp(0.1)
    assert window.rstrip().endswith("MiB")
    assert "*" not in streaming
    assert "are paired" in told
    assert "The effective contexts differ (3.0 to 30.0)" in told


def test_one_strategy_is_compared_with_nothing(folder, words, capsys):
    assert ppl(folder, words) == 0
    told = capsys.readouterr().out
    assert "\nnone " in told
    assert "paired" not in told


def test_a_text_longer_than_the_model_was_trained_on_is_warned_of(folder, words, capsys, monkeypatch):
    ppl(folder, words)
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr(command_module, "_warnings", lambda loaded, _: _real(loaded, 5000))
    ppl(folder, words)
    assert "warning: tiny was trained on 4096 tokens at most" in capsys.readouterr().err


_real = command_module._warnings


@pytest.mark.parametrize(
    ("words_typed", "told"),
    [
        (["--strategy", "streeming"], "did you mean streaming"),
        (["--strategy", "fastv"], "unknown kv_eviction strategy 'fastv'"),
        (["--strategy", "token_pruning=fastv"], "what is wanted here is kv_eviction"),
        (["--strategy", "window:window=0"], "window"),
        (["--strategy", "window:width=3"], "has no option 'width'"),
        (["--strategy", "head_windows"], "profile"),
        (["--strategy", "knorm:budget=20,every=0"], "every=0"),
        (["--profile", "/nowhere.json"], "profile /nowhere.json is missing"),
        (["--tokens", "999999"], "and 999999 are wanted"),
        (["--tokens", "1"], "see headwise ppl --help"),
        (["--text", "/nowhere.txt"], "is missing"),
        (["--model", "/nowhere"], "there is no model folder /nowhere"),
        (["--dtype", "int4"], "dtype 'int4' is not one of"),
        (["--chunk", "0"], "see headwise ppl --help"),
    ],
)
def test_the_command_refuses_in_one_sentence(folder, words, capsys, words_typed, told):
    assert ppl(folder, words, *words_typed) == 2
    assert told in refusal(capsys)


def test_the_folder_of_another_command_is_left_alone(folder, words, capsys, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    assert ppl(folder, words, "--out", str(tmp_path)) == 2
    assert "is not an output folder of headwise" in refusal(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("text_name", ["kjv", "shakespeare"])
def test_without_sinks_smollm2_loses_half_as_much_again(text_name):
    loaded = load_language_model("smollm2")
    text = tokens_of(loaded.tokenizer, text_name, 800)
    window, window_losses = measure_text(loaded, text, eviction_recipe("window:window=64"))
    sinks, sink_losses = measure_text(loaded, text, eviction_recipe("streaming:sinks=4,window=60"))
    assert window.context == sinks.context == 64
    assert window.metric.value >= 1.5 * sinks.metric.value
    (found,) = text_changes(sink_losses, [window_losses])
    assert found.loss.verdict == "worse"
