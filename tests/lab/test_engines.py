"""headwise inside lmms-eval and lm-eval: arguments, prompts, scores and answers, against slow readings of the same.

The harnesses are not needed here; what our models import of them is in fake_harnesses.py.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import entry_points

import pytest
import torch
from PIL import Image
from tests.lab.as_json import as_json
from tests.lab.fake_harnesses import install, request
from tests.lab.language_models import write_model

import headwise
from headwise import BudgetError, DataError, HeadwiseError, Recipe, StrategyError
from headwise_lab.benchmarks.prompting import picture
from headwise_lab.engines import lmms_eval_manifest
from headwise_lab.engines.arguments import Arguments, model_arguments, strategy_texts
from headwise_lab.engines.asking import HarnessRequest, continuation, pictures_of, prompt
from headwise_lab.engines.generating import Stopping, Wish, answers, batched, dictated
from headwise_lab.engines.reading import Reader
from headwise_lab.models.load import load_language_model

WINDOW = "streaming:sinks=2,window=9"
SCORED = ("snapkv:budget=12,recent=4,every=0", "h2o:budget=12,recent=4,every=4")
TEXT = "In the beginning was the word, and the word was 7 times 12345 letters long."


# Arguments


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, ()),
        ("", ()),
        ("sparsity", ("sparsity",)),
        ("fastv:layer=2+sparsity+fixed:heads=4", ("fastv:layer=2", "sparsity", "fixed:heads=4")),
        ("fastv:layer=2 sparsity", ("fastv:layer=2", "sparsity")),
        ("[streaming:sinks=4,window=60]", ("streaming:sinks=4,window=60",)),
        ('"[streaming:sinks=4,window=60]"', ("streaming:sinks=4,window=60",)),
        ("[fastv:layer=2 streaming:sinks=4,window=60]", ("fastv:layer=2", "streaming:sinks=4,window=60")),
        ("fastv+[adakv:of=[snapkv:budget=64],floor=0.3]", ("fastv", "adakv:of=[snapkv:budget=64],floor=0.3")),
        ("adakv:of=[snapkv:budget=64]+sum", ("adakv:of=[snapkv:budget=64]", "sum")),
        ("name:scale=1e+5", ("name:scale=1e+5",)),
        (["fastv:layer=2", "[streaming:sinks=4,window=60]"], ("fastv:layer=2", "streaming:sinks=4,window=60")),
    ],
)
def test_strategy_texts_come_in_brackets_lists_and_joined_by_plus_or_blank(given, wanted):
    assert strategy_texts(given) == wanted


@pytest.mark.parametrize("text", ["[streaming:sinks=4", "streaming]", "a]+[b"])
def test_a_bracket_without_its_partner_is_said_with_the_way_to_write_it(text):
    with pytest.raises(StrategyError, match=r"bracket without its partner.*strategy=\[NAME:option=1,other=2\]"):
        strategy_texts(text)


def test_model_arguments_of_a_result_file_are_cut_as_the_harnesses_cut_them():
    told = 'pretrained=demo-llava,strategy=[a:b=1,c=2],recipe="x"'
    assert model_arguments(told) == {"pretrained": "demo-llava", "strategy": "[a:b=1,c=2]", "recipe": "x"}
    assert model_arguments({"pretrained": "x"}) == {"pretrained": "x"}
    assert model_arguments(None) == {}
    with pytest.raises(DataError, match="'fast' is not of the form"):
        model_arguments("pretrained=x,fast")


def test_an_option_cut_off_at_its_comma_is_answered_with_brackets():
    with pytest.raises(HeadwiseError, match=r"unknown model argument window=60.*put strategies .* in brackets"):
        Arguments.of({"pretrained": "demo-pythia", "strategy": "streaming:sinks=4", "window": 60})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no model is named"),
        ({"pretrained": "x", "batch_size": "auto"}, "batch_size='auto' is not a number of rows"),
        ({"pretrained": "x", "batch_size": 0}, "not a number of rows"),
        ({"pretrained": "x", "keep": "few"}, "'few' is no whole number"),
        ({"pretrained": "x", "tokens": "few"}, "'few' is no number"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_in_one_sentence(given, said):
    with pytest.raises(HeadwiseError, match=said):
        Arguments.of(given)


def test_arguments_make_the_recipe_that_the_command_line_makes():
    given = {"pretrained": "x", "strategy": "fastv:layer=2+sparsity", "keep": 16, "positions": "compact"}
    ours = Arguments.of({**given, "batch_size": "8", "max_batch_size": 64, "device": None}).make_recipe()
    theirs = Recipe.of("fastv:layer=2", "sparsity", keep=16, positions="compact")
    assert (ours.text, ours.budget, ours.settings) == (theirs.text, theirs.budget, theirs.settings)


# Generation arguments


def test_a_wish_is_greedy_unless_a_task_asks_for_sampling():
    assert Wish.of({}, 7) == Wish(most=7)
    assert Wish.of({"temperature": 0, "do_sample": True}, 7).sampling == {}
    assert Wish.of({"temperature": 0.7, "do_sample": False, "top_p": 0.9}, 7).sampling == {}
    assert Wish.of({"temperature": 0.7, "top_p": 0.9}, 7).sampling == {"temperature": 0.7, "top_p": 0.9}
    assert Wish.of({"do_sample": True}, 7).sampling == {"temperature": 1.0}


def test_a_wish_knows_lengths_by_all_their_names_and_says_what_it_leaves_out():
    for name in ("max_new_tokens", "max_gen_toks", "max_tokens"):
        assert Wish.of({name: 3}, 7).most == 3
    wish = Wish.of({"until": "\n", "num_beams": 2, "image_aspect_ratio": "pad"}, 7)
    assert (wish.stops, wish.beams, wish.ignored) == (("\n",), 2, ("image_aspect_ratio",))
    assert Wish.of({"until": ["a", "", "b"]}, 7).cut("xxbyya") == "xx"


def test_rows_are_answered_together_where_their_wishes_agree():
    one, two = Wish(most=3), Wish(most=4)
    assert batched([one, two, one, one], 2) == [[0, 2], [3], [1]]
    assert batched([one, one, one], 2, [5, 9, 7]) == [[1, 2], [0]]


# A language model


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_language_model(str(write_model(tmp_path_factory.mktemp("lm") / "llama", begins=True)))


@pytest.fixture
def ids(loaded):
    return loaded.tokenizer(TEXT)["input_ids"]


def forced(loaded, ids, start):
    """Nats and hits of tokens from ``start`` on, by one stock forward of one row."""
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids])).logits[0, start - 1 : -1].double()
    wanted = torch.tensor(ids[start:])
    return -logits.log_softmax(dim=-1)[range(len(wanted)), wanted].sum(), bool((logits.argmax(-1) == wanted).all())


def stepped(loaded, recipe, context, rest):
    """The same under eviction: the context at once, then token after token into the same cache."""
    cache = headwise.cache(loaded.model, recipe)
    nll, fed, place = 0.0, context, 0
    with torch.inference_mode():
        for token in rest:
            positions = torch.arange(place, place + len(fed))[None]
            out = loaded.model(torch.tensor([fed]), past_key_values=cache, position_ids=positions, use_cache=True)
            nll -= float(out.logits[0, -1].double().log_softmax(dim=-1)[token])
            place, fed = place + len(fed), [token]
    return nll


def pairs_of(ids):
    """Contexts and continuations of unequal lengths."""
    return [(ids[:30], ids[30:36]), (ids[:1], ids[1:40]), (ids[:50], ids[50:51]), (ids[5:17], ids[17:31])]


def test_continuations_under_the_full_cache_are_scored_as_by_a_stock_forward(loaded, ids):
    found = Reader(loaded, Recipe.of()).continuations(pairs_of(ids))
    for (context, rest), (nll, right) in zip(pairs_of(ids), found, strict=True):
        wanted = forced(loaded, context + rest, len(context))
        assert (float(wanted[0]), wanted[1]) == (pytest.approx(nll, rel=1e-5), right)


@pytest.mark.parametrize("text", [WINDOW, *SCORED])
def test_continuations_are_scored_as_if_the_model_wrote_them_with_the_cache_forgetting(loaded, ids, text):
    recipe = Recipe.of(text)
    found = Reader(loaded, recipe).continuations(pairs_of(ids))
    wanted = [stepped(loaded, recipe, *pair) for pair in pairs_of(ids)]
    assert wanted == [pytest.approx(nll, rel=1e-4) for nll, _ in found]
    full = Reader(loaded, Recipe.of()).continuations(pairs_of(ids))
    assert full[0][0] != pytest.approx(found[0][0], rel=1e-3)  # or nothing was forgotten, and the test says nothing


@pytest.mark.parametrize("text", [WINDOW, *SCORED])
def test_a_continuation_scores_the_same_whatever_is_scored_beside_it(loaded, ids, text):
    reader, pairs = Reader(loaded, Recipe.of(text)), pairs_of(ids)
    alone = [reader.continuations([pair])[0][0] for pair in pairs]
    assert alone == [pytest.approx(nll, rel=1e-4) for nll, _ in reader.continuations(pairs[::-1])[::-1]]


def test_what_a_model_answers_is_what_it_would_answer_and_nothing_else_is(loaded, ids):
    reader = Reader(loaded, Recipe.of(SCORED[1]))
    with headwise.attach(loaded.model, reader.recipe), torch.inference_mode():
        told = loaded.model.generate(torch.tensor([ids[:30]]), max_new_tokens=9, do_sample=False)[0, 30:].tolist()
    other = [*told[:-1], (told[-1] + 1) % 250]
    assert [right for _, right in reader.continuations([(ids[:30], told), (ids[:30], other)])] == [True, False]


def test_dictation_reads_past_an_end_token_and_heeds_no_penalty_of_the_model(loaded, ids):
    end = loaded.tokenizer.eos_token_id
    rest = [ids[3], end, ids[4], end, ids[5]]
    tensors = {"input_ids": torch.tensor([ids[:20]]), "attention_mask": torch.ones(1, 20, dtype=torch.int64)}
    own = loaded.model.generation_config
    before, own.repetition_penalty = own.repetition_penalty, 1.7
    try:
        ((nll, _),) = dictated(loaded.model, loaded.tokenizer, tensors, [rest])
        assert loaded.model.generation_config is own
    finally:
        own.repetition_penalty = before
    assert float(forced(loaded, ids[:20] + rest, 20)[0]) == pytest.approx(float(nll.sum()), rel=1e-5)


def test_a_model_keeps_its_generation_config_when_dictation_fails(loaded):
    own = loaded.model.generation_config
    with pytest.raises(RuntimeError, match="Size does not match"):
        dictated(loaded.model, loaded.tokenizer, {"input_ids": torch.zeros(2, 3, dtype=torch.int64)}, [[1], [2], [3]])
    assert loaded.model.generation_config is own


def test_an_answer_ends_before_the_first_stop_and_is_else_what_it_was(loaded, ids):
    tensors = {"input_ids": torch.tensor([ids[:30], ids[10:40]])}
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    whole = answers(loaded.model, loaded.tokenizer, tensors, Wish(most=40))
    stops = (whole[0][7:9], whole[1][3:5])
    wanted = [text[: min(text.find(stop) for stop in stops if stop in text)] for text in whole]
    assert wanted == answers(loaded.model, loaded.tokenizer, tensors, Wish(most=40, stops=stops))
    assert all(len(cut) < len(text) for cut, text in zip(wanted, whole, strict=True))


def test_writing_ends_as_soon_as_a_stop_is_there(loaded):
    stopping = Stopping(loaded.tokenizer, ["was"], start=4)
    rows = loaded.tokenizer(["was in the", "the was xx"], add_special_tokens=False)["input_ids"]
    assert stopping(torch.tensor(rows), None).tolist() == [False, True]  # what stands in the prompt does not count


# Our model in lm-eval


@pytest.fixture
def harness(monkeypatch):
    return install(monkeypatch)


@pytest.fixture
def in_lm_eval(harness):
    """Makes our model as lm-eval does."""
    kind = import_module("headwise_lab.engines.lm_eval_model").HeadwiseLM
    assert harness.models == {"headwise": kind}
    yield lambda **given: kind(**{"max_batch_size": None, "device": "cpu", **given})
    sys.modules.pop("headwise_lab.engines.lm_eval_model")


REQUESTS = [
    request("In the beginning", " was the word"),
    request("", "And the word"),
    request("the word was 7 times ", "12345"),
]


def test_lm_eval_is_given_log_probabilities_in_the_order_it_asked(in_lm_eval, loaded):
    model = in_lm_eval(pretrained=loaded.source, strategy=f"[{WINDOW}]", batch_size="2")
    found = model.loglikelihood(REQUESTS, disable_tqdm=True)
    for one, (score, _) in zip(REQUESTS, found, strict=True):
        context = loaded.tokenizer(one.args[0].rstrip())["input_ids"]
        whole = loaded.tokenizer("".join(one.args))["input_ids"]
        assert -stepped(loaded, Recipe.of(WINDOW), context, whole[len(context) :]) == pytest.approx(score, rel=1e-4)
    assert {kind for kind, _, _ in model.cache_hook.seen} == {"loglikelihood"}
    assert {asked: told for _, asked, told in model.cache_hook.seen} == dict(
        zip([one.args for one in REQUESTS], found, strict=True)
    )


def test_contexts_longer_than_the_model_lose_their_beginning(in_lm_eval, loaded, ids):
    model = in_lm_eval(pretrained=loaded.source, max_length=20)
    ((score, _),) = model.loglikelihood([request(TEXT[:60], TEXT[60:66])], disable_tqdm=True)
    assert -float(forced(loaded, ids[46:67], 15)[0]) == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("text", [WINDOW, SCORED[1]])
def test_a_whole_text_is_read_as_headwise_ppl_reads_it(in_lm_eval, loaded, text):
    from headwise_adapters.eviction.streaming import read_text

    model = in_lm_eval(pretrained=loaded.source, strategy=[text])
    bare = [0, *loaded.tokenizer(TEXT)["input_ids"]]  # the prefix, and what the tokenizer itself begins with
    wanted = -float(read_text(loaded.model, Recipe.of(text), torch.tensor(bare)).nll.sum())
    assert model.loglikelihood_rolling([request(TEXT)], disable_tqdm=True) == [pytest.approx(wanted)]


def test_a_text_longer_than_the_model_is_foretold_once_window_by_window(in_lm_eval, loaded):
    model = in_lm_eval(pretrained=loaded.source, max_length=16)
    ids = loaded.tokenizer(TEXT)["input_ids"]
    text, wanted = [0, *ids], 0.0
    assert 64 < len(ids) < 80
    for last in (16, 32, 48, 64, len(ids)):
        new = last - 64 if last > 64 else 16
        wanted -= float(forced(loaded, text[last - 16 : last + 1], 17 - new)[0])
    assert model.loglikelihood_rolling([request(TEXT)], disable_tqdm=True) == [pytest.approx(wanted, rel=1e-5)]


def test_score_plans_that_never_evict_while_reading_say_so(in_lm_eval, loaded):
    model = in_lm_eval(pretrained=loaded.source, strategy=[SCORED[0]])
    with pytest.raises(BudgetError, match="every=0 evicts after a prefill only"):
        model.loglikelihood_rolling([request(TEXT)], disable_tqdm=True)


def test_lm_eval_is_given_answers_in_the_order_it_asked(in_lm_eval, loaded, caplog):
    model = in_lm_eval(pretrained=loaded.source, strategy=[WINDOW], batch_size=2)
    given = {"until": ["e"], "max_gen_toks": 12, "logprobs": 3}
    asked = [request(text, given) for text in (TEXT[:20], TEXT, TEXT[:33])]
    found = model.generate_until(asked, disable_tqdm=True)
    reader = Reader(loaded, Recipe.of(WINDOW))
    wanted = [reader.answers([loaded.tokenizer(one.args[0])["input_ids"]], Wish.of(given, 1))[0] for one in asked]
    assert wanted == found
    assert "headwise does not support the generation argument logprobs" in caplog.text


def test_the_result_file_of_lm_eval_says_what_was_forgotten(in_lm_eval, loaded):
    told = in_lm_eval(pretrained=loaded.source, strategy=[WINDOW]).get_model_info()["headwise"]
    assert told["strategies"] == {"kv_eviction": f"{WINDOW},positions=relative"}
    assert told["weights"] == loaded.weights
    json.dumps(told)


def test_without_lm_eval_its_command_line_says_what_to_install(monkeypatch, capsys):
    (script,) = entry_points(group="console_scripts", name="headwise-lm-eval")
    monkeypatch.setattr("headwise_lab.engines.find_spec", lambda name: None)
    assert script.load()() == 2
    assert "pip install 'headwise[lm-eval]'" in capsys.readouterr().err


def test_a_launcher_of_several_processes_is_refused(in_lm_eval, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(HeadwiseError, match="one process of a harness, and a launcher started 4"):
        in_lm_eval(pretrained="demo-pythia")


# Our model in lmms-eval


@pytest.fixture
def in_lmms_eval(harness):
    """Makes our model as lmms-eval does, over documents of a picture and a question each."""
    kind = import_module("headwise_lab.engines.lmms_eval_model").HeadwiseModel

    def make(documents, **given):
        model = kind(**{"max_batch_size": None, "device": "cpu", **given})
        model.task_dict = {"toy": {"test": documents}}
        return model

    yield make
    sys.modules.pop("headwise_lab.engines.lmms_eval_model")


def visuals(document):
    return document["pictures"]


def documents_of(toy):
    found = [{"text": one.text, "pictures": [picture(one)]} for one in toy.questions]
    return [*found, {"text": toy.questions[0].text, "pictures": []}]


def asked_of(documents, *second):
    given = {"max_new_tokens": 16, "until": ["\n\n"], "temperature": 0}
    return [
        request(one["text"], *(second or (given,)), visuals, row, "toy", "test") for row, one in enumerate(documents)
    ]


def test_lmms_eval_finds_our_model_by_its_entry_point(harness):
    (entry,) = (one for one in entry_points(group="lmms_eval.models") if one.name == "headwise")
    told = entry.load()()
    assert told == lmms_eval_manifest()
    module, _, name = told.simple_class_path.rpartition(".")
    assert (told.model_id, hasattr(import_module(module), name)) == ("headwise", True)
    sys.modules.pop(module)


@pytest.mark.parametrize("strategy", ["fastv:layer=1+sparsity+fixed:heads=2", f"fastv:layer=1+[{WINDOW}]"])
def test_answers_in_lmms_eval_are_those_of_headwise_run(in_lmms_eval, harness, tiny, toy, strategy):
    from headwise_lab.benchmarks.inputs import Inputs
    from headwise_lab.trial.record import Setting
    from headwise_lab.trial.run import run_trial

    recipe = Recipe.of(*strategy_texts(strategy), keep=9)
    record, outcomes = as_json(run_trial(Setting(recipe=recipe, timed_batches=0), Inputs(tiny, toy, toy.questions, 4)))
    model = in_lmms_eval(documents_of(toy)[:-1], pretrained=tiny.source, strategy=strategy, keep=9, batch_size="4")
    assert [one["prediction"] for one in outcomes] == model.generate_until(asked_of(documents_of(toy)[:-1]))
    (told,) = harness.logged
    assert (record["budget"]["processed"], 9) == (
        pytest.approx(told["headwise_processed"], abs=1e-4),
        told["headwise_kept"],
    )
    assert record["heads"]["mean"] == told.get("headwise_heads")


def test_questions_without_a_picture_are_answered_beside_those_with_one(in_lmms_eval, tiny, toy):
    given = {"pretrained": tiny.source, "strategy": "fastv:layer=1", "keep": 9}
    documents = documents_of(toy)
    alone = in_lmms_eval(documents, **given).generate_until(asked_of(documents))
    assert alone == in_lmms_eval(documents, **given, batch_size=7).generate_until(asked_of(documents))


def test_the_answer_a_model_gives_is_its_likeliest_in_lmms_eval(in_lmms_eval, toy):
    documents = documents_of(toy)[:3]
    model = in_lmms_eval(documents, pretrained="demo-llava", strategy="fastv:layer=1", keep=9, batch_size=2)
    told = model.generate_until(asked_of(documents))
    assert len({*told, "top-left"}) > 2
    scored = [model.loglikelihood(asked_of(documents, lambda _, text=text: text)) for text in (*told, "top-left")]
    rows = [[one.text for one in row] for row in scored]
    assert [rows[row][row][1] for row in range(3)] == [True] * 3
    per_token = [row[0][0] for row in rows]
    assert per_token[0] < per_token[-1]


def test_a_continuation_is_what_follows_the_prompt(tiny):
    asked = HarnessRequest("Where is the green square ?")
    tokenizer = tiny.processor.tokenizer
    for text in ("red", " red", "red circle"):
        wanted = tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        assert wanted == continuation(tiny, asked, text)
    with pytest.raises(DataError, match="an answer that is no token long"):
        continuation(tiny, asked, "  ")


def test_pictures_stand_where_a_text_marks_them_and_else_ahead_of_it(tiny):
    two = (Image.new("RGB", (9, 9)),) * 2
    assert prompt(tiny.processor, HarnessRequest("why", two)) == "USER: <image>\n<image>\nwhy ASSISTANT:"
    bare = type("Bare", (), {"chat_template": None})()
    assert (
        prompt(bare, HarnessRequest("this <image> or <image> ?", two))
        == "USER: this <image>\n or <image>\n ? ASSISTANT:"
    )
    assert prompt(bare, HarnessRequest("why")) == "USER: why ASSISTANT:"
    with pytest.raises(DataError, match="document 3 has 1 marks <image> in its text, but 2 pictures"):
        prompt(bare, HarnessRequest("<image> why", two, "document 3"))


def test_videos_and_sounds_are_refused_in_one_sentence():
    assert pictures_of(None, "x") == ()
    assert pictures_of([Image.new("L", (3, 3))], "x")[0].mode == "RGB"
    with pytest.raises(DataError, match="document 3 has a str, but headwise supports only pictures"):
        pictures_of(["film.mp4"], "document 3")


def test_several_rounds_are_refused_in_one_sentence(in_lmms_eval, tiny, toy):
    model = in_lmms_eval(documents_of(toy), pretrained=tiny.source)
    with pytest.raises(HeadwiseError, match="task toy asks in several rounds"):
        model.generate_until_multi_round(asked_of(documents_of(toy)))


def test_a_budget_that_cannot_be_met_is_said_before_anything_is_asked(in_lmms_eval, tiny, toy):
    with pytest.raises(BudgetError):
        in_lmms_eval(documents_of(toy), pretrained=tiny.source, strategy="fastv:layer=2", tokens=3)
