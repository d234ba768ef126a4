"""One trial against a stock model asked by hand, and its identity, record and figures."""

from __future__ import annotations

import itertools
import math
import statistics

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from tests.lab.as_json import as_json

from headwise import ModelError, StrategyError
from headwise.recipe import Recipe
from headwise_adapters import patching
from headwise_lab.benchmarks import inputs as inputs_module
from headwise_lab.benchmarks.inputs import Inputs, diversity
from headwise_lab.benchmarks.prompting import prompt
from headwise_lab.cost import timing
from headwise_lab.sweeps.studies import pruning_recipes
from headwise_lab.trial import answering
from headwise_lab.trial.record import Setting, command, identity, summary
from headwise_lab.trial.run import check, run_trial

FASTV = ("fastv:layer=2", "sum", "head_count=all")
SHARP = ("fastv:layer=2", "sparsity", "fixed:heads=3")


@pytest.fixture(autouse=True)
def few_new_tokens(monkeypatch):
    monkeypatch.setattr(answering, "NEW_TOKENS", 4)


def trial(tiny, toy, *texts, batch=4, inputs=None, timed_batches=1, **options):
    setting = Setting(recipe=Recipe.of(*texts, **options), timed_batches=timed_batches)
    return as_json(run_trial(setting, inputs or Inputs(tiny, toy, toy.questions, batch)))


def by_hand(tiny, question):
    """Ids and pixels of one prompt, written out as LLaVA-1.5 does."""
    return tiny.processor(
        text=f"USER: <image>\n{question.text} ASSISTANT:", images=Image.open(question.image), return_tensors="pt"
    )


def test_unpruned_answers_are_those_of_the_stock_model_asked_one_by_one(tiny, toy):
    record, outcomes = trial(tiny, toy)
    for question, outcome in zip(toy.questions, outcomes, strict=True):
        given = by_hand(tiny, question)
        ids = tiny.model.generate(**given, max_new_tokens=4, do_sample=False)[0, given["input_ids"].shape[1] :]
        assert outcome["prediction"] == tiny.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert outcome["kept"] == list(range(144))
        assert outcome["heads"] == []
    assert len({outcome["prediction"] for outcome in outcomes}) > 1  # the model does look at what it is asked
    assert record["heads"] == {"of": 8, "mean": None, "sd": None}
    assert record["attention"] is None


def test_fastv_keeps_what_the_attention_maps_of_the_eager_model_rank_highest(tiny, toy):
    _, outcomes = trial(tiny, toy, *FASTV, keep=16)
    tiny.model.set_attn_implementation("eager")
    try:
        for question, outcome in zip(toy.questions, outcomes, strict=True):
            given = by_hand(tiny, question)
            with torch.no_grad():
                maps = tiny.model(**given, output_attentions=True).attentions[1]
            image = given["input_ids"][0] == tiny.model.config.image_token_id
            ranked = maps[0, :, -1, image].sum(dim=0).argsort(descending=True)
            assert outcome["kept"] == sorted(ranked[:16].tolist())
    finally:
        tiny.model.set_attn_implementation("sdpa")


def test_batches_of_different_lengths_answer_and_keep_as_each_question_alone(tiny, toy):
    assert len({len(question.text) for question in toy.questions}) > 1
    _, together = trial(tiny, toy, *SHARP, keep=12, batch=6)
    _, alone = trial(tiny, toy, *SHARP, keep=12, batch=1)
    for key in ("prediction", "kept", "heads"):
        assert [outcome[key] for outcome in together] == [outcome[key] for outcome in alone]


@pytest.mark.parametrize("name", pruning_recipes())
def test_every_recipe_answers_and_keeps_in_a_batch_as_it_does_alone(deeper, toy, name):
    few = toy.questions[:3]
    record, together = trial(deeper, toy, name=name, tokens=110, inputs=Inputs(deeper, toy, few, 3))
    _, alone = trial(deeper, toy, name=name, tokens=110, inputs=Inputs(deeper, toy, few, 1), timed_batches=0)
    assert record["budget"]["processed"] == pytest.approx(110, abs=1)
    assert {len(outcome["kept"]) for outcome in together} == {record["budget"]["kept"]}
    for key in ("prediction", "kept", "heads"):
        assert [outcome[key] for outcome in together] == [outcome[key] for outcome in alone]


def test_record_tells_the_plan_and_its_cost(tiny, toy):
    record, outcomes = trial(tiny, toy, *SHARP, keep=12)
    processed = (144, 144, 12)
    text = round(statistics.fmean(len(by_hand(tiny, q)["input_ids"][0]) - 144 for q in toy.questions))
    assert record["budget"] == {"given": "keep=12", "processed": 100.0, "kept": 12, "visual": 144}
    assert record["heads"] == {"of": 8, "mean": 3.0, "sd": 0.0}
    assert all(len(outcome["heads"]) == 3 and len(outcome["kept"]) == 12 for outcome in outcomes)
    assert record["cost"]["kv_bytes"] == sum(n + text for n in processed) * 2 * 8 * 16 * 4  # k and v, float32
    per_token = 4 * 128 * 128 + 3 * 128 * 384
    assert record["cost"]["flops_visual"] == sum(n * per_token + 2 * n * n * 128 for n in processed)
    assert record["cost"].keys() == {
        "prefill_ms", "prefill_unpruned_ms", "prefill_share", "prefill_share_low", "prefill_share_high",
        "selection_ms", "selection_share", "decode_tokens_per_s", "batch", "flops_visual", "flops_total",
        "flops_formula", "flops_counted", "flops_counted_unpruned",
        "flops_counted_layers", "flops_counted_selection", "text_tokens", "kv_bytes", "kv_bytes_stored",
        "peak_bytes", "peak_grown_bytes", "peak_source",
    }  # fmt: skip
    assert record["cost"]["prefill_ms"] > record["cost"]["selection_ms"] > 0
    low, middle, high = (record["cost"][f"prefill_share{end}"] for end in ("_low", "", "_high"))
    assert 0 < low <= middle <= high
    assert record["strategies"]["head_scoring"] == "sparsity:form=l2"
    assert set(record["timing"]) == {"query_selection", "head_scoring", "head_count", "token_pruning"}
    assert record["versions"].keys() == {"headwise", "torch", "transformers", "python"}


def test_headline_is_the_mean_over_units_and_its_error(tiny, toy):
    record, _ = trial(tiny, toy)
    units = [0.5 + 0.25, 0.0 + 0.5, 0.25 + 0.0]
    assert record["metric"]["value"] == pytest.approx(10 * sum(units) / 3)
    assert record["metric"]["se"] == pytest.approx(10 * np.std(units, ddof=1) / math.sqrt(3))
    assert (record["n"], record["units"], record["metrics"]) == (6, 3, {"answered": 6.0})


def test_overlap_counts_kept_tokens_under_the_boxes(tiny, toy):
    record, outcomes = trial(tiny, toy, *FASTV, keep=40)
    hits = [len({i, i + 1} & set(outcome["kept"])) for i, outcome in enumerate(outcomes) if i != 1]
    assert sum(hits) > 0
    assert outcomes[1]["recall"] is None
    assert [outcome["recall"] for outcome in outcomes if outcome["recall"] is not None] == [hit / 2 for hit in hits]
    assert record["overlap"]["n"] == 5
    assert record["overlap"]["precision"] == pytest.approx(statistics.fmean(hit / 40 for hit in hits))
    assert record["overlap"]["lift"] == pytest.approx(statistics.fmean(hit / 2 for hit in hits) / (40 / 144))


def test_pictures_seen_before_change_nothing(tiny, toy):
    random_heads = ("fastv:layer=2", "head_scoring=random", "fixed:heads=2")  # drawn by the image
    shared = Inputs(tiny, toy, toy.questions, 4)
    looks = []
    inner = tiny.model.model.vision_tower.embeddings.register_forward_hook(lambda *_: looks.append(1))
    try:
        trial(tiny, toy, *SHARP, keep=12, inputs=shared)
        first = len(looks)
        _, again = trial(tiny, toy, *random_heads, keep=12, inputs=shared)
        second = len(looks) - first
    finally:
        inner.remove()
    _, fresh = trial(tiny, toy, *random_heads, keep=12)
    assert again == fresh
    assert first - second == 2 + 1  # two batches were answered, and the unpruned model's work counted, once for both
    assert "forward" not in vars(tiny.model.model.vision_tower)


def test_a_strategy_that_looks_inside_the_tower_sees_it_work_on_every_batch(tiny, toy):
    shared = Inputs(tiny, toy, toy.questions, 4)
    trial(tiny, toy, *SHARP, keep=12, inputs=shared)
    looks = []
    inner = tiny.model.model.vision_tower.embeddings.register_forward_hook(lambda *_: looks.append(1))
    try:
        _, again = trial(tiny, toy, "vispruner", keep=12, inputs=shared)
    finally:
        inner.remove()
    _, fresh = trial(tiny, toy, "vispruner", keep=12)
    # Two batches are answered; one is timed: a prefill, one without the recipe, and new tokens; and one is counted.
    assert len(looks) == 2 + 3 + 1
    assert again == fresh
    assert len({tuple(outcome["kept"]) for outcome in fresh}) == len(toy.questions)


def test_merged_tokens_are_counted_where_they_stand(tiny, toy):
    record, outcomes = trial(tiny, toy, "pooling", keep=36)
    assert record["stages"] == [{"layer": 0, "keep": 36, "merged": 36}]
    assert {len(outcome["kept"]) for outcome in outcomes} == {36}
    hits = [len({i, i + 1} & set(outcome["kept"])) / 2 for i, outcome in enumerate(outcomes) if i != 1]
    assert [outcome["recall"] for outcome in outcomes if outcome["recall"] is not None] == hits
    assert 0 < record["diversity"] < 2


def test_what_a_stage_notes_is_in_the_record(tiny, toy):
    record, _ = trial(tiny, toy, name="cdpruner", keep=12)
    assert record["recipe"] == "cdpruner"
    assert "embeddings" in str(record["notes"])  # the model names no CLIP, and the record says what stood in for it


def test_prefill_is_timed_beside_the_unpruned_model(tiny, toy):
    cost = trial(tiny, toy, *SHARP, keep=12)[0]["cost"]
    assert cost["prefill_share"] == pytest.approx(cost["prefill_ms"] / cost["prefill_unpruned_ms"])


def test_nothing_watches_while_the_clock_runs(tiny, toy, monkeypatch):
    watched = []
    real = timing.generate

    def generate(loaded, *more):
        watched.append(patching.watched(loaded.model.model.language_model.layers[2]))
        return real(loaded, *more)

    monkeypatch.setattr(timing, "generate", generate)
    record, _ = trial(tiny, toy, *SHARP, keep=12)
    assert watched == [True]  # the recipe is on the model
    assert record["timing"].keys() == {"query_selection", "head_scoring", "head_count", "token_pruning"}


@pytest.mark.parametrize(
    ("texts", "options", "told"),
    [
        ((), {"name": "finepruner", "keep": 12}, "--recipe finepruner --keep 12 --batch 4"),
        (("fixed:heads=3",), {"name": "finepruner", "keep": 12, "positions": "compact"},
         "--recipe finepruner --keep 12 --strategy head_count=fixed:heads=3 --positions compact --batch 4"),
        ((), {"name": "finepruner-dynamic", "tokens": 101}, "--recipe finepruner-dynamic --tokens 101 --batch 4"),
        ((), {"name": "finepruner-dynamic", "tokens": 101, "aggregate": "mean"},
         "--recipe finepruner-dynamic --tokens 101 --aggregate mean --batch 4"),
        (("fastv", "raters"), {"name": "sparsevlm", "keep": 12},
         "--recipe sparsevlm --keep 12 --strategy token_pruning=fastv:layer=2"
         " --strategy query_selection=raters:scale=none --strategy head_scoring=sum --strategy head_count=all"
         " --batch 4"),
    ],
)  # fmt: skip
def test_the_command_of_a_named_recipe_says_its_name_and_what_is_different(tiny, toy, texts, options, told):
    setting = Setting(recipe=Recipe.of(*texts, **options))
    words = command(setting, Inputs(tiny, toy, toy.questions, 4))
    assert words.partition("--benchmark toy ")[2] == f"{told} --dtype float32 --device cpu"


def test_notes_of_the_adaptive_strategy_are_counted(tiny, toy):
    record, outcomes = trial(tiny, toy, "fastv:layer=2", "adaptive", keep=12)
    told = record["notes"]["adaptive"]
    assert sum(told["strategy"].values()) == 6
    assert told["count"]["mean"] == pytest.approx(statistics.fmean(len(outcome["heads"]) for outcome in outcomes))


def test_summary_averages_numbers_and_counts_words():
    notes = [{"a": {"name": "x", "size": 2}}, {"a": {"name": "x", "size": 4}, "b": True}, {"a": {"name": "y"}}]
    assert summary(notes) == {
        "a": {"name": {"x": 2, "y": 1}, "size": {"mean": 3.0, "sd": 1.0}},
        "b": {"True": 1},
    }
    assert summary([]) == {}


def test_diversity_is_one_minus_the_mean_cosine_of_all_pairs():
    features = torch.nn.functional.normalize(torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    kept = [[0, 2, 5], [1]]
    pairs = [float(features[0, i] @ features[0, j]) for i, j in itertools.combinations(kept[0], 2)]
    assert diversity(features, kept) == pytest.approx(1 - statistics.fmean(pairs), abs=1e-6)
    assert diversity(features, [[1], [3]]) is None
    assert diversity(features[:1].expand(1, 6, 5)[:, [0, 0]], [[0, 1]]) == pytest.approx(0, abs=1e-6)


def test_only_a_sample_of_the_features_is_held(tiny, toy, monkeypatch):
    monkeypatch.setattr(inputs_module, "SAMPLE", 3)
    assert [len(row) for row in Inputs(tiny, toy, toy.questions, 2).features] == [144] * 3


def test_identity_is_stable_and_changes_with_all_that_can_change_the_answers(tiny, toy, tmp_path):
    def named(questions=toy.questions, loaded=tiny, seed=0, limit=None, texts=SHARP, **options):
        recipe = Recipe.of(*texts, **({"keep": 12} | options))
        return identity(Setting(recipe=recipe, seed=seed, limit=limit), Inputs(loaded, toy, questions, 4))

    repainted = attrs.evolve(toy.questions[0], image=tmp_path / "0.png")
    Image.new("RGB", (144, 144)).save(repainted.image)
    reworded = attrs.evolve(toy.questions[0], answers=("blue",))
    assert named() == named()
    names = [
        named(),
        named(texts=("fastv:layer=1", *SHARP[1:])),
        named(texts=(SHARP[0], "sparsity:form=hoyer", SHARP[2])),
        named(keep=13),
        named(keep=None, tokens=100),
        named(positions="compact"),
        named(min_mass=0.1),
        named(seed=1),
        named(limit=6),
        named(questions=toy.questions[:5]),
        named(questions=[repainted, *toy.questions[1:]]),
        named(questions=[reworded, *toy.questions[1:]]),
        named(loaded=attrs.evolve(tiny, weights="0" * 16)),
        named(loaded=attrs.evolve(tiny, dtype="bfloat16")),
        named(loaded=attrs.evolve(tiny, attention="eager")),
    ]
    assert len(set(names)) == len(names)
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


def test_more_heads_than_the_model_has_are_refused_before_anything_runs(tiny):
    with pytest.raises(StrategyError, match=r"wants 9 heads.*has 8"):
        check(Recipe.of("fastv:layer=2", "fixed:heads=9", keep=12), tiny.geometry)


def test_a_processor_without_template_gets_the_prompt_of_llava(tiny):
    class Plain:
        chat_template = None

    assert prompt(Plain(), "Why?") == "USER: <image>\nWhy? ASSISTANT:"
    assert prompt(tiny.processor, "Why?") == prompt(Plain(), "Why?")


def test_unreadable_weights_and_foreign_models_are_one_sentence(tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    from headwise_lab.models.load import digest, load_model

    for name, content, told in (
        ("bert", '{"model_type": "bert"}', "model_type 'bert' has no adapter; supported: apertus, arcee"),
        ("torn", '{"model_type": ', "cannot be loaded"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        with pytest.raises(ModelError, match=told):
            load_model(str(tmp_path / name))
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            (lacking / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny_folder / "model.safetensors")
    dropped = next(name for name in weights if "layers.1.self_attn.q_proj" in name and "vision" not in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of the model's tensors, such as .*q_proj"):
        load_model(str(lacking))
    assert digest(lacking) != digest(tiny_folder)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dtype": "int4"}, "dtype 'int4' is not one of auto, float32"),
        ({"attention": "flash"}, "attention 'flash' is not one of sdpa, eager"),
        ({"device": "tpu9"}, "torch knows no device 'tpu9'"),
    ],
)
def test_settings_no_model_can_have_are_one_sentence(tiny_folder, options, told):
    from headwise_lab.models.load import load_model

    with pytest.raises(ModelError, match=told) as caught:
        load_model(str(tiny_folder), **options)
    assert "\n" not in str(caught.value)
