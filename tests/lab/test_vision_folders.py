"""Trials of every vision-language family from a folder: pictures of all sizes in a batch, and no answer is lost."""

from __future__ import annotations

import json
import math
import shutil

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from tests.lab.as_json import as_json
from tests.lab.vision_folders import FAMILIES, write

from headwise import DataError
from headwise.cli import main
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.official.pope import Pope
from headwise_lab.benchmarks.prompting import encode, picture
from headwise_lab.benchmarks.questions import questions_of
from headwise_lab.metrics.overlap import token_mask
from headwise_lab.models.load import load_model
from headwise_lab.trial import answering
from headwise_lab.trial import run as trial_module
from headwise_lab.trial.record import Setting
from headwise_lab.trial.run import run_trial

SIZES = ((30, 20), (20, 50), (40, 40), (16, 48))
UNPRUNED, FASTV, VISION = [], ["--strategy", "fastv:layer=2"], ["--recipe", "visionzip"]
KEEP = {"llava": 4, "llava_next": 4, "qwen2_5_vl": 200}  # of 16 tokens a picture, and of 576


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """POPE with two questions a category, each about a picture of a shape of its own."""
    folder, noise = tmp_path_factory.mktemp("pope"), np.random.default_rng(0)
    (folder / "val2014").mkdir()
    for number, subset in enumerate(("random", "popular", "adversarial")):
        rows = []
        for row in range(2):
            width, height = SIZES[(number + row) % len(SIZES)]
            name = f"{subset}{row}.png"
            pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "val2014" / name)
            asked = "Is there a blue star in the image ?" if row else "Is there a circle in the image ?"
            rows.append({"question_id": row, "image": name, "text": asked, "label": "yes" if row else "no"})
        (folder / f"coco_pope_{subset}.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: write(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def loaded(folders):
    return {family: load_model(str(folder)) for family, folder in folders.items()}


@pytest.fixture(autouse=True)
def few_new_tokens(monkeypatch):
    monkeypatch.setattr(Pope, "new_tokens", 3)


def asked(loaded, data, batch=4):
    return Inputs(loaded, Pope(), questions_of(Pope(), data=data), batch)


@pytest.mark.parametrize("recipe", [UNPRUNED, FASTV, VISION], ids=["unpruned", "fastv", "visionzip"])
@pytest.mark.parametrize("family", FAMILIES)
def test_run_answers_and_measures_everything(family, recipe, folders, data, capsys):
    words = ["run", "--model", str(folders[family]), "--benchmark", "pope", "--data", str(data), "--batch", "4"]
    budget = ["--keep", str(KEEP[family])] if recipe else []
    assert main([*words, "--json", *recipe, *budget]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert "warning" not in told.err
    assert "unmeasured" not in record
    assert record["n"] == 6
    assert math.isfinite(record["diversity"])
    assert record["overlap"] is None  # POPE has no boxes
    assert record["pictures"] == ("cropped" if family == "llava" else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_pictures_of_all_sizes_answers_as_the_stock_model_does_one_by_one(family, loaded, data):
    model, processor = loaded[family].model, loaded[family].processor
    _, outcomes = as_json(run_trial(Setting(recipe=Recipe.of(), timed_batches=0), asked(loaded[family], data)))
    for question, outcome in zip(questions_of(Pope(), data=data), outcomes, strict=True):
        given = encode(processor, [question])
        ids = model.generate(**given, max_new_tokens=3, do_sample=False)[0, given["input_ids"].shape[1] :]
        assert outcome["prediction"] == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert len(outcome["kept"]) == int((given["input_ids"] == model.config.image_token_id).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_diversity_is_that_of_the_features_that_take_the_places_of_image_tokens(family, loaded, data):
    """What the language model is given at those places, seen where it enters."""
    model, inputs = loaded[family].model, asked(loaded[family], data, batch=3)
    seen, inner = [], model.model.language_model
    hook = inner.register_forward_pre_hook(lambda _, __, given: seen.append(given["inputs_embeds"]), with_kwargs=True)
    try:
        for batch in inputs.batches():
            model(**batch.tensors)
    finally:
        hook.remove()
    entered = []
    for batch, embeds in zip(inputs.batches(), seen, strict=True):
        marks = batch.tensors["input_ids"] == model.config.image_token_id
        entered += [row[mark] for row, mark in zip(embeds, marks, strict=True)]
    for found, given in zip(inputs.features, entered, strict=True):
        torch.testing.assert_close(found, torch.nn.functional.normalize(given, dim=-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_are_laid_over_tokens_of_one_square_picture_only(family, loaded, data):
    questions = [attrs.evolve(question, boxes=((0.0, 0.0, 9.0, 9.0),)) for question in questions_of(Pope(), data=data)]
    inputs = Inputs(loaded[family], Pope(), questions, 4)
    recipe = Recipe.of("fastv:layer=2", keep=4)
    record, outcomes = as_json(run_trial(Setting(recipe=recipe, timed_batches=0), inputs))
    if family != "llava":
        assert record["overlap"] is None
        return
    for question, outcome in zip(questions, outcomes, strict=True):
        truth = np.flatnonzero(token_mask(question.boxes, picture(question).size, 16, 16))
        wanted = len(set(truth) & set(outcome["kept"])) / len(truth) if len(truth) else None
        assert outcome["recall"] == wanted


def test_boxes_are_laid_over_nothing_where_the_picture_is_made_larger_than_its_square(loaded, data, monkeypatch):
    images = loaded["llava"].processor.image_processor
    monkeypatch.setattr(images, "size", type(images.size)(shortest_edge=20))  # of which 16 x 16 are cut out
    assert asked(loaded["llava"], data).pictures is None


@pytest.mark.parametrize("figure", ["diversity", "times", "costs", "overlap", "notes"])
def test_a_figure_that_cannot_be_measured_costs_no_answer(figure, loaded, data, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    inputs, setting = asked(loaded["llava_next"], data), Setting(recipe=Recipe.of("fastv:layer=2", keep=4))
    whole, outcomes = as_json(run_trial(setting, inputs))
    where = {"times": "timed", "costs": "watched", "overlap": "_overlaps", "notes": "summary"}.get(figure, figure)
    monkeypatch.setattr(trial_module, where, broken)
    record, again = as_json(run_trial(setting, inputs))
    assert record["unmeasured"] == {figure: "RuntimeError: no such kernel"}
    assert "unmeasured" not in whole
    assert again == outcomes
    assert record["metric"] == whole["metric"]
    spans = {"prefill_share_low", "prefill_share_high"} if figure == "times" else set()  # newer than "null" for unknown
    assert whole["cost"].keys() - record["cost"].keys() == spans
    assert record["cost"].keys() <= whole["cost"].keys()


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("meta", "device 'meta' holds no numbers"),
        ("meta:0", "device 'meta' holds no numbers"),
        ("bogus", "torch knows no device 'bogus'; give auto, cpu, cuda or cuda:1"),
    ],
)
def test_a_device_that_cannot_compute_is_one_sentence(device, told, folders, data, capsys):
    words = ["run", "--model", str(folders["llava"]), "--benchmark", "pope", "--data", str(data), "--device", device]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_run_says_what_could_not_be_measured_and_prints_the_rest(folders, data, monkeypatch, capsys):
    def broken(*_, **__):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(trial_module, "timed", broken)
    words = ["run", "--model", str(folders["llava"]), "--benchmark", "pope", "--data", str(data)]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "warning: times could not be measured: OutOfMemoryError: too much" in told.err
    assert "(6 questions)" in told.out


def faulty(data, tmp_path, change):
    """A copy of the benchmark with a question changed: its row, or the bytes of its picture."""
    copy = tmp_path / "faulty"
    shutil.copytree(data, copy)
    path = copy / "coco_pope_adversarial.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows[0], copy / "val2014" / rows[0]["image"])
    path.write_text("\n".join(map(json.dumps, rows)))
    return copy


def too_long(row, path):
    Image.new("RGB", (2010, 10)).save(path)


def marked(row, path):
    row["text"] = "What does <image> show ?"


def cut(row, path):
    path.write_bytes(path.read_bytes()[:-300])


MARKED = "has <image> in its text, which the model takes for a picture; remove it"
FAULTS = [
    ("qwen2_5_vl", too_long, "2010 x 10 pixels) cannot be given to the model: absolute aspect ratio must be smaller"),
    *((family, marked, MARKED) for family in FAMILIES),
    *((family, cut, "cannot be read") for family in FAMILIES),
]


@pytest.mark.parametrize(("family", "change", "told"), FAULTS)
def test_a_bad_question_is_named_before_any_is_asked(
    family, change, told, folders, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(answering, "ask", lambda *_, **__: pytest.fail("the model was asked"))
    copy, out = faulty(data, tmp_path, change), tmp_path / "out"
    words = ["run", "--benchmark", "pope", "--model", str(folders[family]), "--data", str(copy), "--out", str(out)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("headwise: question adversarial/0")
    assert str(copy / "val2014" / "adversarial0.png") in error
    assert told in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_study_with_a_bad_picture_is_refused_when_it_is_planned(folders, data, tmp_path, capsys):
    copy, out = faulty(data, tmp_path, cut), tmp_path / "out"
    words = ["ablate", "--study", "a", "--benchmarks", "pope", "--model", str(folders["llava"]), "--keep", "4"]
    assert main([*words, "--data", str(copy), "--out", str(out)]) == 2
    assert "question adversarial/0: the picture" in capsys.readouterr().err
    assert not list(out.glob("*.jsonl"))


def test_a_processor_that_lacks_a_part_is_one_sentence(folders, data, tmp_path, capsys):
    copy = shutil.copytree(folders["llava"], tmp_path / "no-patches")
    path = copy / "processor_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in told.items() if key != "patch_size"}))
    assert main(["run", "--model", str(copy), "--benchmark", "pope", "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert "cannot be given to the model: its LlavaProcessor says: " in error
    assert error.count("\n") == 1


def test_a_question_that_the_model_fails_on_is_named(loaded, data):
    """It is the longest, so that it fails in a batch and alone, and the others fail beside it only."""
    inputs = asked(loaded["llava"], data)
    longest = attrs.evolve(inputs.questions[4], text=inputs.questions[4].text.replace("Is there", "Is there red red"))
    most = encode(loaded["llava"].processor, [longest])["input_ids"].shape[1]

    def short_of_room(_, __, given):
        if given["inputs_embeds"].shape[1] >= most:
            raise IndexError("index out of range in self")

    inputs = Inputs(loaded["llava"], Pope(), [*inputs.questions[:3], longest], 4)
    inner = loaded["llava"].model.model.language_model
    hook = inner.register_forward_pre_hook(short_of_room, with_kwargs=True)
    told = rf"^the model cannot answer question {longest.id} \(picture {longest.image}\): IndexError: index out"
    try:
        with pytest.raises(DataError, match=told):
            run_trial(Setting(recipe=Recipe.of(), timed_batches=0), inputs)
    finally:
        hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_calibrated(family, folders, data, tmp_path, capsys):
    words = ["calibrate", "--model", str(folders[family]), "--benchmark", "pope", "--data", str(data)]
    assert main([*words, "--limit", "4", "--layers", "1", "--out", str(tmp_path / "weights.json"), "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["source"]["n"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_studies_sweeps_and_searches_end_with_a_report(family, folders, data, tmp_path, capsys):
    model = ["--model", str(folders[family])]
    study = [*model, "--benchmarks", "pope", "--data", str(data), "--keep", "4", "--limit", "6", "--batch", "4"]
    assert main(["ablate", "--study", "a", *study, "--heads", "2", "--out", str(tmp_path / "a")]) == 0
    methods = ["--recipe", "fastv", "--recipe", "visionzip", "--recipe", "cdpruner"]
    assert main(["ablate", "--study", "methods", *study, *methods, "--out", str(tmp_path / "m")]) == 0
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        f'models = ["{folders[family]}"]\nbenchmarks = ["pope"]\ndata = "{data}"\nlimit = 6\nbatch = 4\n'
        '[budgets]\nkeep = [4]\n[[grids]]\nhead_scoring = ["sum", "variance"]\nheads = [2]\n'
    )
    assert main(["sweep", str(sweep), "--out", str(tmp_path / "s"), "--workers", "0"]) == 0
    for folder in ("a", "m", "s"):
        records = [json.loads(line) for line in (tmp_path / folder / "results.jsonl").read_text().splitlines()]
        assert records
        assert not any("unmeasured" in record or record.get("error") for record in records)
        assert not (tmp_path / folder / "answers").exists()
    capsys.readouterr()
