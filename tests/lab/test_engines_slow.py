"""lmms-eval and lm-eval themselves, end to end on four local rows, each in an environment of its own; no network then.

The environments are made with pip, which takes minutes and 1.6 GB each. With HEADWISE_HARNESSES=FOLDER they are made in
that folder, and used again the next time.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.lab.as_json import as_json, json_outcomes, json_records

from headwise import Recipe
from headwise.cli import main
from headwise_lab.benchmarks import benchmark

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOR_LMMS_EVAL = (
    "torch transformers accelerate datasets evaluate jsonlines numexpr pytablewriter sacrebleu loguru python-dotenv"
    " einops tenacity openpyxl httpx pillow"
)
STEPS = {  # all of lmms-eval's own requirements would bring another torch along
    "lmms-eval": [FOR_LMMS_EVAL.split(), ["--no-deps", "lmms-eval==0.7.3"]],
    "lm-eval": [["torch", "transformers", "accelerate", "lm-eval==0.4.13"]],
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
STRATEGY = "fastv:layer=2+sparsity+fixed:heads=4"
WINDOW = "streaming:sinks=4,window=28"


@pytest.fixture(scope="session")
def harnesses(tmp_path_factory) -> Path:
    told = os.environ.get("HEADWISE_HARNESSES")
    return Path(told) if told else tmp_path_factory.mktemp("harnesses")


def made(folder: Path, name: str) -> Path:
    """The programs of an environment, made unless it is there and whole."""
    place = folder / name
    programs, done = place / "bin", place / "made"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        install = [str(programs / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        for words in [*STEPS[name], ["-e", str(ROOT)]]:
            subprocess.run([*install, *words], check=True)
        done.touch()
    return programs


def run(words, folder: Path) -> str:
    """Run a harness offline; its output where it succeeds."""
    told = {**os.environ, **OFFLINE, "HF_HOME": str(folder / "cache")}
    done = subprocess.run(words, cwd=folder, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def results(folder: Path, pattern: str) -> dict:
    (path,) = folder.rglob(pattern)
    return json.loads(path.read_text())


# lmms-eval

POPE_YAML = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
task: headwise_pope
test_split: test
output_type: generate_until
doc_to_visual: !function utils.pictures
doc_to_text: !function utils.question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 16, temperature: 0, do_sample: false}}
process_results: !function utils.pope
metric_list:
  - {{metric: pope_accuracy, aggregation: !function utils.pope_aggregate_accuracy, higher_is_better: true}}
  - {{metric: pope_f1_score, aggregation: !function utils.pope_aggregate_f1_score, higher_is_better: true}}
"""
CHOICE_YAML = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
task: headwise_choice
test_split: test
output_type: multiple_choice
doc_to_visual: !function utils.pictures
doc_to_text: !function utils.question
doc_to_choice: ["yes", "no"]
doc_to_target: !function utils.target
metric_list:
  - {{metric: acc}}
"""
UTILS = """
from PIL import Image
from lmms_eval.tasks.pope.utils import pope_aggregate_accuracy, pope_aggregate_f1_score, pope_process_results


def pictures(doc):
    return [Image.open(doc["image"]).convert("RGB")]


def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def target(doc):
    return ["yes", "no"].index(doc["answer"])


def pope(doc, results):
    found = pope_process_results(doc, results)
    return {name: found[name] for name in ("pope_accuracy", "pope_f1_score")}
"""


def lmms_task(folder: Path, questions) -> Path:
    """Tasks of lmms-eval over our own questions: POPE with its official formulas, and the same as a choice."""
    folder.mkdir()
    rows = [
        {"question_id": one.id, "question": one.text, "answer": one.answers[0], "image": str(one.image)}
        for one in questions
    ]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "utils.py").write_text(UTILS)
    for name, text in (("pope", POPE_YAML), ("choice", CHOICE_YAML)):
        (folder / f"headwise_{name}.yaml").write_text(text.format(rows=folder / "rows.json"))
    return folder


def test_lmms_eval_gets_the_answers_of_headwise_run_and_its_results_are_reported(tmp_path, harnesses):
    from headwise_lab.benchmarks.inputs import Inputs
    from headwise_lab.models.load import load_model
    from headwise_lab.trial.record import Setting
    from headwise_lab.trial.run import run_trial

    asked = benchmark("shapes-pope")
    asked.prepare(tmp_path / "pope", 60, 3)
    questions = [one for one in asked.load(tmp_path / "pope", None) if one.kind == "popular"][:4]
    setting = Setting(recipe=Recipe.of(*STRATEGY.split("+"), keep=4), timed_batches=0)
    record, outcomes = as_json(run_trial(setting, Inputs(load_model("demo-llava"), asked, questions, 2)))

    given = f"pretrained=demo-llava,strategy={STRATEGY},keep=4"
    words = [str(made(harnesses, "lmms-eval") / "python"), "-m", "lmms_eval", "--model", "headwise"]
    words += ["--model_args", given, "--include_path", str(lmms_task(tmp_path / "task", questions))]
    words += ["--tasks", "headwise_pope,headwise_choice", "--batch_size", "2", "--device", "cpu"]
    print(run([*words, "--output_path", "out", "--log_samples"], tmp_path))

    told = results(tmp_path / "out", "*_results.json")
    right = sum(one["score"] for one in outcomes) / 4
    assert told["results"]["headwise_pope"]["pope_accuracy,none"] == right
    assert told["results"]["headwise_choice"]["acc,none"] == right
    assert told["throughput"]["avg_headwise_processed"] == pytest.approx(record["budget"]["processed"], abs=1e-4)

    assert main(["import-results", str(tmp_path / "out"), "--out", str(tmp_path / "store")]) == 0
    imported = {one["benchmark"]: one for one in json_records(tmp_path / "store")[0]}
    pope = imported["headwise_pope (lmms-eval)"]
    assert pope["strategies"] == record["strategies"]
    assert (pope["heads"]["mean"], pope["metric"]["value"]) == (4.0, 100 * right)
    predictions = [one["prediction"] for one in json_outcomes(tmp_path / "store", pope["id"])]
    assert [one["prediction"] for one in outcomes] == predictions
    assert main(["report", str(tmp_path / "store")]) == 0
    assert "headwise_choice (lmms-eval)" in (tmp_path / "store" / "report.md").read_text()


# lm-eval

TEXTS = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and void. ",
    "And God said, Let there be light: and there was light. And God saw the light, that it was good. ",
    "The LORD is my shepherd; I shall not want. He maketh me to lie down in green pastures. ",
    "Blessed is the man that walketh not in the counsel of the ungodly, nor standeth in the way of sinners. ",
)
PPL_YAML = """
task: headwise_ppl
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
WORDS_YAML = """
task: headwise_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}} And God called the light"
doc_to_choice: ["Day", "shepherd", "the waters"]
doc_to_target: "0"
metric_list: [{{metric: acc}}]
"""
ANSWER_YAML = """
task: headwise_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}} And the"
doc_to_target: "LORD"
generation_kwargs: {{until: [",", "."], max_gen_toks: 12}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
TASKS = {"headwise_ppl": PPL_YAML, "headwise_words": WORDS_YAML, "headwise_answer": ANSWER_YAML}


def lm_task(folder: Path) -> Path:
    """Tasks of lm-eval of all three kinds over four texts."""
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"text": text * 3}) for text in TEXTS))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text.format(rows=rows))
    return folder


def in_lm_eval(programs: Path, folder: Path, out: str, model: str, *given: str) -> dict:
    words = [str(programs / "headwise-lm-eval"), "run", "--model", model, "--model_args", ",".join(given)]
    words += ["--include_path", str(folder / "task"), "--tasks", ",".join(TASKS), "--batch_size", "2"]
    print(run([*words, "--device", "cpu", "--output_path", out, "--log_samples"], folder))
    return results(folder / out, "results_*.json")["results"]


def samples(folder: Path, task: str) -> list[dict]:
    (path,) = folder.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def bits(told: dict) -> float:
    return told["headwise_ppl"]["bits_per_byte,none"]


def likelihoods(folder: Path) -> list[float]:
    """Of every choice of every text."""
    return [float(choice[0][0]) for one in samples(folder, "headwise_words") for choice in one["resps"]]


def test_lm_eval_reads_with_a_cache_that_forgets_and_its_results_are_reported(tmp_path, harnesses):
    from headwise_adapters.eviction.streaming import read_text
    from headwise_lab.models import shipped
    from headwise_lab.models.load import load_language_model

    programs = made(harnesses, "lm-eval")
    lm_task(tmp_path / "task")
    folder = shipped("demo-pythia")
    stock = in_lm_eval(programs, tmp_path, "stock", "hf", f"pretrained={folder}", "dtype=float32")
    full = in_lm_eval(programs, tmp_path, "full", "headwise", "pretrained=demo-pythia")
    less = in_lm_eval(programs, tmp_path, "less", "headwise", "pretrained=demo-pythia", f"strategy=[{WINDOW}]")

    # the full cache gives what lm-eval's own model gives
    assert bits(stock) == pytest.approx(bits(full), rel=1e-5)
    assert stock["headwise_words"]["acc,none"] == full["headwise_words"]["acc,none"]
    scores = [likelihoods(tmp_path / out) for out in ("stock", "full")]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    texts = [[one["resps"] for one in samples(tmp_path / out, "headwise_answer")] for out in ("stock", "full")]
    assert texts[0] == texts[1]

    # and a cache that forgets what headwise itself reads with one
    loaded, nats = load_language_model("demo-pythia"), 0.0
    for text in TEXTS:  # after the prefix that lm-eval puts before every text
        ids = torch.tensor([loaded.tokenizer.bos_token_id, *loaded.tokenizer(text * 3)["input_ids"]])
        nats += float(read_text(loaded.model, Recipe.of(WINDOW), ids).nll.sum())
    assert nats / math.log(2) / sum(len((text * 3).encode()) for text in TEXTS) == pytest.approx(bits(less), rel=1e-5)
    assert bits(less) != pytest.approx(bits(full), rel=1e-3)

    store = tmp_path / "store"
    folders = [str(tmp_path / out) for out in ("stock", "full", "less")]
    assert main(["import-results", *folders, "--out", str(store)]) == 0
    imported = [one for one in json_records(store)[0] if one["benchmark"] == "headwise_ppl (lm-eval)"]
    assert [one["model"] for one in imported] == ["demo-pythia"] * 3
    assert [one["strategies"].get("kv_eviction") for one in imported] == [None, "none", f"{WINDOW},positions=relative"]
    assert len({one["questions"] for one in imported}) == 1
    assert main(["report", str(store)]) == 0
    assert "headwise_words (lm-eval)" in (store / "report.md").read_text()
