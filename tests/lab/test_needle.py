"""PasskeyPrompts: prompts of an exact length, answers against the ordinary model, and ``headwise needle`` in use."""

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
from tests.lab.language_models import byte_tokenizer, write_model, write_text

from headwise.attachment import cache
from headwise.cli import main
from headwise.errors import DataError, ModelError
from headwise_lab.kv import needle as needle_module
from headwise_lab.kv.needle import NEW_TOKENS, PasskeyAnswer, ask, batches, find_passkeys, identity, summary
from headwise_lab.kv.passkey import PASSKEY, QUESTION, TASK, PasskeyPrompts
from headwise_lab.kv.recipes import eviction_recipe
from headwise_lab.models.load import load_language_model
from headwise_lab.report.kv.heat_map import draw_passkeys
from headwise_lab.store.locations import place
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_schema import record_of
from headwise_lab.store.record_types import PasskeyGrid
from headwise_lab.store.working_copy import at_hand

FIXED = len(TASK) + len(PASSKEY.format(key=10_000)) + len(QUESTION)  # one token a byte
LENGTH = 260


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("lm") / "tiny")


@pytest.fixture(scope="module")
def loaded(folder):
    return load_language_model(str(folder))


@pytest.fixture(scope="module")
def prompts(loaded):
    return PasskeyPrompts(loaded.tokenizer, seed=1).prompts([LENGTH], 3, 1)


TOKENIZERS = {begins: byte_tokenizer(begins) for begins in (False, True)}


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.booleans(), st.integers(FIXED + 1, 700), st.integers(1, 5), st.integers(1, 2), st.integers(0, 9))
def test_prompts_have_their_length_and_hold_their_passkey(begins, length, depths, repeats, seed):
    tokenizer = TOKENIZERS[begins]
    made = PasskeyPrompts(tokenizer, seed=seed).prompts([length], depths, repeats)
    assert len(made) == len({prompt.name for prompt in made}) == depths * repeats
    for prompt in made:
        assert len(prompt.ids) == prompt.length == length
        told = tokenizer.decode(prompt.ids[int(begins) :])
        assert (prompt.ids[0] == tokenizer.bos_token_id) == begins
        assert told.startswith(TASK)
        assert told.endswith(QUESTION)
        assert told.count(PASSKEY.format(key=prompt.key)) == 1
        assert len(prompt.key) == 5
        assert tokenizer.decode(prompt.answer) == f" {prompt.key}"


def test_depths_go_evenly_from_the_task_to_the_question(loaded):
    made = PasskeyPrompts(loaded.tokenizer).prompts([2000], 5, 1)
    assert [prompt.depth for prompt in made] == [0, 0.25, 0.5, 0.75, 1]
    told = [loaded.tokenizer.decode(prompt.ids) for prompt in made]
    places = [text.index(" The pass key is ") for text in told]
    assert places[0] == len(TASK)
    assert told[-1].endswith(PASSKEY.format(key=made[-1].key) + QUESTION)
    steps = np.diff(places)
    assert steps == pytest.approx(steps.mean(), abs=40)  # to the nearest end of a sentence
    assert all(text[place - 1] in ".!" for text, place in zip(told[1:], places[1:], strict=True))
    assert PasskeyPrompts(loaded.tokenizer).prompts([2000], 1, 1)[0].depth == 0.5


def test_the_seed_makes_the_keys_and_nothing_else_does(loaded):
    def made(seed, lengths):
        return {p.name: p for p in PasskeyPrompts(loaded.tokenizer, seed=seed).prompts(lengths, 2, 3)}

    first, again, other = made(0, [LENGTH]), made(0, [LENGTH, 400]), made(1, [LENGTH])
    assert all(torch.equal(first[name].ids, again[name].ids) for name in first)
    assert len({prompt.key for prompt in first.values()}) == 6
    assert all(first[name].key != other[name].key for name in first)


def test_a_text_can_be_the_filler(loaded, tmp_path):
    made = PasskeyPrompts(loaded.tokenizer, str(write_text(tmp_path))).prompts([600], 2, 2)
    texts = [loaded.tokenizer.decode(prompt.ids) for prompt in made]
    assert all("the word was 7 times" in text and "grass" not in text for text in texts)
    assert len(set(texts)) == 4
    assert PasskeyPrompts(loaded.tokenizer, "kjv").filler == "kjv"


def test_what_makes_no_prompt_is_one_sentence(loaded, tmp_path):
    with pytest.raises(DataError, match=rf"^60 tokens are too few for .* and question, which take {FIXED}; give"):
        PasskeyPrompts(loaded.tokenizer).prompts([60], 1, 1)
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(DataError, match="holds no sentence"):
        PasskeyPrompts(loaded.tokenizer, str(tmp_path / "empty"))
    with pytest.raises(DataError, match="nowhere is missing"):
        PasskeyPrompts(loaded.tokenizer, str(tmp_path / "nowhere"))


def test_with_a_full_cache_answers_and_probabilities_are_those_of_the_ordinary_model(loaded, prompts):
    answers = ask(loaded, eviction_recipe("none"), prompts)
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            logits = loaded.model(torch.cat([prompt.ids, prompt.answer])[None]).logits[0].double()
            out = loaded.model.generate(prompt.ids[None], max_new_tokens=NEW_TOKENS, do_sample=False)
        said = logits.log_softmax(dim=-1)[LENGTH - 1 : -1].gather(-1, prompt.answer[:, None])
        assert answer.logprob == pytest.approx(said.mean().item(), abs=1e-4)
        assert answer.text == loaded.tokenizer.decode(out[0, LENGTH:], skip_special_tokens=True)
        assert answer.found == (prompt.key in answer.text)


@pytest.mark.parametrize("strategy", ["streaming:sinks=2,window=30", "knorm:budget=40"])
def test_with_eviction_they_are_those_of_one_token_after_another(strategy, loaded, prompts):
    recipe = eviction_recipe(strategy)
    found = ask(loaded, recipe, prompts)
    full = ask(loaded, eviction_recipe("none"), prompts)
    for row, prompt in enumerate(prompts):
        held, total = cache(loaded.model, recipe), 0.0
        with torch.no_grad():
            logits = loaded.model(prompt.ids[None], past_key_values=held).logits[0, -1]
            for token in prompt.answer:
                total += logits.log_softmax(dim=-1)[token].item()
                logits = loaded.model(token[None, None], past_key_values=held).logits[0, -1]
        assert found[row].logprob == pytest.approx(total / len(prompt.answer), abs=1e-4)
        assert found[row].logprob != pytest.approx(full[row].logprob, abs=1e-3)


def test_a_passkey_counts_where_it_stands_in_the_answer(loaded, prompts):
    (said,) = ask(loaded, eviction_recipe("none"), prompts[:1])
    assert not said.found
    rigged = attrs.evolve(prompts[0], key=said.text[2:5])
    assert ask(loaded, eviction_recipe("none"), [rigged])[0].found


def test_an_answer_ends_where_the_model_ends_it(loaded, prompts, monkeypatch):
    (said,) = ask(loaded, eviction_recipe("none"), prompts[:1])
    ids = loaded.tokenizer(said.text, add_special_tokens=False)["input_ids"]
    for end in (0, 2):
        monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", ids[end])
        (stopped,) = ask(loaded, eviction_recipe("none"), prompts[:1])
        assert stopped.text == loaded.tokenizer.decode(ids[: ids.index(ids[end])])


def test_batches_hold_one_length_each_and_leave_nothing_out(loaded):
    made = PasskeyPrompts(loaded.tokenizer).prompts([LENGTH, 300], 5, 1)
    parts = list(batches(made, 3))
    assert [len(part) for part in parts] == [3, 2, 3, 2]
    assert [prompt.name for part in parts for prompt in part] == [prompt.name for prompt in made]
    assert all(len({prompt.length for prompt in part}) == 1 for part in parts)


@pytest.mark.parametrize("size", [1, 2])
def test_batches_of_any_size_answer_alike(size, loaded, prompts):
    recipe, grid = (
        eviction_recipe("streaming:sinks=2,window=30"),
        PasskeyGrid(lengths=[LENGTH], depths=3, filler="grass"),
    )
    heard: list[int] = []
    _, whole = as_json(find_passkeys(loaded, recipe, prompts, grid, batch=3))
    _, parts = as_json(find_passkeys(loaded, recipe, prompts, grid, batch=size, progress=heard.append))
    assert heard[-1] == 3
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours["answer"] == theirs["answer"]
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-4)


def test_the_record_adds_up(loaded, monkeypatch):
    made = PasskeyPrompts(loaded.tokenizer).prompts([LENGTH, 300], 2, 3)
    lucky = {prompt.name for prompt in made[:7:2]}
    monkeypatch.setattr(
        needle_module,
        "ask",
        lambda _, __, asked: [PasskeyAnswer(p, "x", p.name in lucky, -1.0 - p.depth) for p in asked],
    )
    grid = PasskeyGrid(lengths=[LENGTH, 300], depths=2, repeats=3, filler="grass")
    record, outcomes = as_json(find_passkeys(loaded, eviction_recipe("window:window=20"), made, grid))
    assert (record["n"], record["study"], record["metric"]["name"]) == (12, "needle", "passkeys found")
    assert record["metric"]["value"] == pytest.approx(4 / 12)
    assert record["metric"]["se"] == pytest.approx(math.sqrt(4 / 12 * 8 / 12 / 12))
    assert record["logprob"]["mean"] == pytest.approx(-1.5)
    short, long = record["lengths"]
    assert (short["length"], short["n"], short["metric"]["value"]) == (LENGTH, 6, pytest.approx(3 / 6))
    assert [one["metric"]["value"] for one in short["depths"]] == pytest.approx([2 / 3, 1 / 3])
    assert [one["logprob"]["mean"] for one in long["depths"]] == [-1, -2]
    assert short["context"] == 20
    assert {outcome["id"] for outcome in outcomes if outcome["score"] == 1.0} == lucky
    assert record["id"] == identity(loaded, eviction_recipe("window:window=20"), made)
    assert record["id"] != identity(loaded, eviction_recipe("window:window=20"), made[1:])


@given(st.lists(st.booleans(), min_size=2, max_size=20))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_the_error_of_a_share_is_binomial(hits):
    found = summary([PasskeyAnswer(None, "", hit, -1.0) for hit in hits])["metric"]  # type: ignore[arg-type]
    assert found.value == pytest.approx(np.mean(hits))
    assert found.se == pytest.approx(np.std(hits) / math.sqrt(len(hits)))


def test_probabilities_that_are_no_numbers_are_one_sentence(loaded, prompts, monkeypatch):
    monkeypatch.setattr(needle_module, "_log_probabilities", lambda *_: [math.nan])
    with pytest.raises(ModelError, match="probabilities that are not finite numbers; try --dtype float32"):
        ask(loaded, eviction_recipe("none"), prompts[:1])


def needle(folder, *more):
    return main(["needle", "--model", str(folder), "--lengths", f"{LENGTH},300", "--depths", "2", *more])


CHOSEN = ["--strategy", "none", "--strategy", "streaming:sinks=4,window=30"]


def test_the_command_prints_records_pairs_and_heat_maps(folder, capsys, tmp_path, monkeypatch):
    typed = [*CHOSEN, "--repeats", "3", "--batch", "6", "--json", "--out", str(tmp_path / "o")]
    assert needle(folder, *typed) == 0
    told = capsys.readouterr()
    first, second = json.loads(told.out)
    assert first["to_first"] is None
    ours, theirs = (
        {outcome["id"]: outcome["logprob"] for outcome in json_outcomes(tmp_path / "o", record["id"])}
        for record in (second, first)
    )
    apart = np.array([ours[name] - theirs[name] for name in theirs])
    assert len(apart) == 12
    pairs = second["to_first"]["logprob"]
    assert pairs["mean"] == pytest.approx(apart.mean())
    assert pairs["se"] == pytest.approx(apart.std(ddof=1) / math.sqrt(12))
    assert second["to_first"]["found"] == {"mean": 0.0, "se": 0.0, "adjusted_p": 1.0, "clear": False}
    assert list(Store.open(tmp_path / "o", "needle").records) == [first["id"], second["id"]]
    pictures = sorted(path.name for path in (tmp_path / "o" / "figures").iterdir())
    assert pictures == [f"needle-none-{first['id'][:8]}.png", f"needle-streaming-{second['id'][:8]}.png"]
    assert all(name in told.err for name in pictures)
    monkeypatch.setattr(needle_module, "ask", None)
    assert needle(folder, *typed) == 0
    assert capsys.readouterr().out == told.out


def test_behind_a_url_are_the_records_and_heat_maps_and_nothing_is_run_again(folder, capsys, monkeypatch):
    typed = [*CHOSEN, "--json", "--out", "memory://needle/out"]
    assert needle(folder, *typed) == 0
    told = capsys.readouterr()
    monkeypatch.setattr(needle_module, "ask", None)
    assert needle(folder, *typed) == 0
    assert capsys.readouterr().out == told.out
    with at_hand(place("memory://needle/out")) as copy:
        assert [record["id"] for record in json.loads(told.out)] == list(Store.look(copy).records)
        pictures = sorted(path.name for path in (copy / "figures").iterdir())
    assert [name.partition("-")[2].rpartition("-")[0] for name in pictures] == ["none", "streaming"]
    assert all(f"heat map: memory://needle/out/figures/{name}\n" in told.err for name in pictures)
    fsspec.filesystem("memory").store.clear()


def test_the_command_of_a_record_makes_it_again(folder, capsys):
    assert needle(folder, "--strategy", "window:window=20", "--seed", "5", "--batch", "1", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    program, *typed = shlex.split(record["command"])
    assert program == "headwise"
    assert main([*typed, "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    moving = ("created", "seconds")
    assert {k: v for k, v in again.items() if k not in moving} == {k: v for k, v in record.items() if k not in moving}


def test_the_table_says_plainly_that_a_model_cannot_do_it(folder, capsys):
    assert needle(folder, *CHOSEN) == 0
    told = capsys.readouterr().out
    head, none, streaming = told.split("\n\n")[0].splitlines()
    assert head.split()[:3] == ["Strategy", str(LENGTH), "300"]
    assert none.split()[:5] == ["none", "0", "0", "0.0", "±"]
    assert streaming.startswith("streaming:sinks=4,window=30")
    assert "With its full cache tiny finds no passkey: it cannot do this task" in told
    assert "the question sees only the entries in its windows" in told


def test_without_the_full_cache_the_table_says_what_is_not_known(folder, capsys):
    assert needle(folder, "--strategy", "window:window=20") == 0
    told = capsys.readouterr().out
    assert "add --strategy none" in told
    assert "finds no passkey" not in told
    assert "paired" not in told


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--lengths", "512,many"], "--lengths '512,many' is not a list of whole numbers; write --lengths 512,1024"),
        (["--lengths", ","], "is not a list of whole numbers"),
        (["--lengths", "9" * 20], "is too large; give at most 4194304; write --lengths 512,1024"),
        (["--lengths", "9" * 5000], "is too large; give at most 4194304"),
        (["--lengths", "64"], "64 tokens are too few for task, passkey and question"),
        (["--depths", "0"], "see headwise needle --help"),
        (["--filler", "/nowhere.txt"], "is missing; give a UTF-8"),
        (["--strategy", "streeming"], "did you mean streaming"),
        (["--model", "/nowhere"], "there is no model folder /nowhere"),
    ],
)
def test_the_command_refuses_in_one_sentence(folder, capsys, typed, told):
    assert main(["needle", "--model", str(folder), *typed]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = [line for line in found.err.splitlines() if line.startswith("headwise: ")]
    assert told in line


def test_equal_records_make_equal_pictures(tmp_path):
    def of(share):
        return {"depth": 0.5, **figures, "metric": {"value": share}}

    figures = {"n": 1, "metric": {"value": 1.0}, "logprob": {}}
    record = {
        "id": "0123456789abcdef",
        "study": "needle",
        "model": "tiny",
        "strategies": {"kv_eviction": "mine/window:window=20"},
        **figures,
        "grid": {},
        "lengths": [
            {"length": 512, "context": 20, **figures, "depths": [of(1.0)]},
            {"length": 1024, "context": 20, **figures, "depths": [of(0.25)]},
        ],
    }
    first, second = (draw_passkeys(record_of(record), tmp_path / name) for name in ("a", "b"))
    assert first.name == "needle-window-01234567.png"
    assert first.read_bytes() == second.read_bytes()
    record["lengths"][0]["depths"] = [of(0.0)]
    assert draw_passkeys(record_of(record), tmp_path / "c").read_bytes() != first.read_bytes()


@pytest.mark.slow
def test_smollm2_finds_passkeys_that_a_window_forgets():
    loaded = load_language_model("smollm2")
    made = PasskeyPrompts(loaded.tokenizer).prompts([512], 5, 1)
    full, window = (ask(loaded, eviction_recipe(text), made) for text in ("none", "streaming:sinks=4,window=60"))
    assert sum(answer.found for answer in full) >= 4
    assert sum(answer.found for answer in window) <= 2
    assert full[0].logprob > window[0].logprob + 1
