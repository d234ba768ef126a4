"""Identical predictions before lmms-eval's own task utilities and ours: equal where the rules agree, and the places
where they differ, named one by one.

Needs lmms-eval, which replaces torch where it is installed with its dependencies. In an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0 accelerate datasets evaluate jsonlines numexpr pytablewriter \
        sacrebleu loguru python-dotenv einops tenacity openpyxl httpx pytz
    pip install --no-deps lmms-eval==0.7.3
    pip install -e '.[testing]'
    python -m pytest -m slow tests/lab/test_official_golden.py
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest

from headwise_lab.benchmarks import Question, benchmark
from headwise_lab.benchmarks.official.common import MultipleChoice
from headwise_lab.metrics.answers import vqa_answer
from headwise_lab.metrics.choices import option_letter

pytestmark = pytest.mark.slow

ANSWERS = """yes|no|Yes.|No, it is not|two|2|the dog|A dog.|a red sock|red sock|it's 3|dont know|don't know|10:30|3.5|
t-shirt|t shirt|new york|"stop"|stop|stop/go|none|0|unanswerable|Unanswerable|The man's hat|man hat|coca cola|
coca-cola|50%|$5|blue and white|blue & white|1,000|1000|what?|  spaced  out |UPPER|isnt|he'd|12.|.5|a|the""".replace(
    "\n", ""
).split("|")
SINGLE = [text for text in ANSWERS if not set(text) & set(",?'")]  # what VQAv2's two readings agree on


def utilities(task: str, module: str = "utils") -> Any:
    """A task's utilities; where lmms-eval is missing, the sentence that says how to get it."""
    pytest.importorskip("lmms_eval", reason="lmms-eval is installed as the head of this file says")
    return import_module(f"lmms_eval.tasks.{task}.{module}")


def asked(answers: Sequence[str], kind: str = "kind", unit: str = "1") -> Question:
    return Question("1", unit, Path("none.png"), "?", tuple(answers), kind)


def draws(pool: Sequence[str], count: int = 300) -> list[tuple[str, list[str]]]:
    """Predictions with the ten answers they are held against; agreement of every degree occurs."""
    rng = Random("golden")
    found = []
    for _ in range(count):
        few = rng.sample(list(pool), 3)
        found.append((rng.choice(few), [rng.choice(few) for _ in range(10)]))
    return found


@pytest.mark.parametrize(("name", "task"), [("textvqa", "textvqa"), ("vizwiz", "vizwiz_vqa")])
def test_soft_accuracy_is_theirs(name: str, task: str) -> None:
    theirs = getattr(utilities(task), f"{task}_process_results")
    scores = set()
    for said, answers in draws(ANSWERS):
        document = {"question_id": 1, "answers": list(answers)}
        expected = theirs(document, [said])
        score = benchmark(name).score(asked(answers), said)
        assert pytest.approx(expected["exact_match"]) == score
        assert expected["submission"]["answer"] == vqa_answer(said)
        scores.add(round(score, 6))
    assert len(scores) > 4


def test_vqav2_is_theirs_where_no_comma_question_mark_or_apostrophe_is_in_play() -> None:
    theirs = utilities("vqav2").vqav2_process_results
    for said, answers in draws(SINGLE):
        rows = [{"answer": answer, "answer_id": i} for i, answer in enumerate(answers)]
        expected = theirs({"question_id": 1, "answers": rows}, [said])["exact_match"]
        assert pytest.approx(expected) == benchmark("vqav2").score(asked(answers), said)


def test_vqav2_cuts_possessives_as_llavas_submission_does_and_their_score_does_not() -> None:
    theirs = utilities("vqav2").vqav2_process_results
    rows = [{"answer": "man 's hat", "answer_id": i} for i in range(10)]
    assert theirs({"question_id": 1, "answers": rows}, ["man's hat"])["exact_match"] == 0
    assert benchmark("vqav2").score(asked(["man 's hat"] * 10), "man's hat") == 1


def test_gqa_is_theirs_but_for_punctuation_that_is_not_a_full_stop_at_the_end() -> None:
    utilities("gqa")
    theirs = import_module("lmms_eval.api.metrics").exact_match_hf_evaluate
    pool = ["yes", "Yes", "YES.", "no", "table", "Table.", "on top", "left"]
    for said in pool:
        for answer in ("yes", "no", "table", "left"):
            expected = theirs(predictions=[said], references=[answer], ignore_case=True, ignore_punctuation=True)
            assert expected["exact_match"] == benchmark("gqa").score(asked([answer]), said)
    lenient = theirs(predictions=["yes!"], references=["yes"], ignore_case=True, ignore_punctuation=True)
    assert (lenient["exact_match"], benchmark("gqa").score(asked(["yes"]), "yes!")) == (1, 0)


def test_pope_is_theirs_for_answers_of_one_word_but_for_their_yes_ratio_which_is_the_labels() -> None:
    tasks = utilities("pope")
    rng = Random("pope")
    labels = [rng.choice(["yes", "no", "no"]) for _ in range(200)]
    said = [rng.choice(["yes", "Yes", "no", "No"]) for _ in labels]
    results = [
        tasks.pope_process_results({"question_id": i, "answer": label}, [prediction])["pope_accuracy"]
        for i, (label, prediction) in enumerate(zip(labels, said, strict=True))
    ]
    ours = benchmark("pope").metrics([asked([label], "random") for label in labels], said)
    for figure, theirs in (
        ("accuracy", "accuracy"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("f1", "f1_score"),
    ):
        expected = 100 * getattr(tasks, f"pope_aggregate_{theirs}")(results)
        assert pytest.approx(expected) == ours[f"{figure}/random"]
    assert pytest.approx(100 * tasks.pope_aggregate_yes_ratio(results)) == 100 * labels.count("yes") / len(labels)
    assert ours["yes_ratio/random"] == 100 * sum(text.lower() == "yes" for text in said) / len(said)


def test_pope_reads_sentences_as_llava_does_and_they_do_not() -> None:
    tasks = utilities("pope")
    theirs = tasks.pope_process_results({"question_id": 1, "answer": "no"}, ["There is no cat."])["pope_accuracy"]
    assert (theirs["score"], benchmark("pope").score(asked(["no"]), "There is no cat.")) == (0, 1)


def test_mme_is_theirs_but_for_single_letters() -> None:
    tasks = utilities("mme")
    rng = Random("mme")
    pool = ["Yes", "yes.", "Yes, it is", "No", "no.", "No, it is not", "maybe", "It is", "a yes", "Nope", "unknown"]
    questions, said, results = [], [], []
    for category in ("existence", "OCR", "code_reasoning"):
        for picture in range(20):
            for answer in ("Yes", "No"):
                questions.append(asked([answer], category, f"{category}/{picture}"))
                said.append(rng.choice(pool))
                document = {"question_id": f"{picture}", "category": category, "answer": answer}
                results += tasks.mme_process_results(document, [said[-1]]).values()
    ours = benchmark("mme").metrics(questions, said)
    assert pytest.approx(tasks.mme_aggregate_results(results)) == ours["total"]
    for category in ("existence", "OCR", "code_reasoning"):
        of_category = [result for result in results if result["category"] == category]
        assert pytest.approx(tasks.mme_aggregate_results(of_category)) == ours[f"score/{category}"]
    assert (tasks.parse_pred_ans("y"), benchmark("mme").score(asked(["Yes"]), "y")) == ("yes", 0)


def test_scienceqa_is_theirs_but_for_small_letters_and_llavas_sentence() -> None:
    theirs = utilities("scienceqa").sqa_process_results
    document = {"choices": ["a", "b", "c"], "answer": 1}

    def both(said: str) -> tuple[float, float]:
        return theirs(document, [said])["exact_match"], benchmark("scienceqa").score(asked(["B"]), said)

    for said in ("A", "B", "C", "D", "B. b", "A. b", "b b", "sturgeon", "", "B) b", "A B"):
        expected, score = both(said)
        assert expected == score, said
    assert [both(said) for said in ("b", "B.", "The answer is B.")] == [(1, 0), (1, 0), (0, 1)]


OPTIONS = ("food", "people", "cars", "sky")
CHOSEN = ["A", "B.", "(C)", "D)", "Answer: B", "The answer is (A).", "A man with an umbrella", "A or B", "people",
          "Food.", "food and cars", "E", "b", "", "C, surely", ":D", "B. people", "A dog and people"]  # fmt: skip


def evaluator() -> Any:
    return utilities("mmbench", "mmbench_evals").MMBench_Evaluator()


def test_mmbench_reads_letters_and_texts_as_they_do_before_they_ask_a_language_model() -> None:
    theirs = evaluator()
    for said in CHOSEN:
        expected = theirs.can_infer(said, dict(zip("ABCD", OPTIONS, strict=True)))
        assert (expected or "") == option_letter(said, OPTIONS), said
    assert {True, False} == {bool(option_letter(said, OPTIONS)) for said in CHOSEN}


def test_circular_accuracy_is_theirs_where_every_answer_can_be_read() -> None:
    theirs = evaluator()
    rng = Random("circular")
    readable = [said for said in CHOSEN if option_letter(said, OPTIONS)]
    questions, said, rows = [], [], []
    for index in range(80):
        sure = rng.random() < 0.5  # else hardly any question survives four passes
        for turn in range(4):
            options = (*OPTIONS[turn:], *OPTIONS[:turn])
            answer = rng.choice("ABCD")
            text = answer if sure else rng.choice(readable)
            row = {"index": index + 1_000_000 * turn, "question": "?", "answer": answer, "prediction": text}
            rows.append(
                row | dict(zip("ABCD", options, strict=True)) | {"category": "c", "L2-category": f"l{index % 3}"}
            )
            questions.append(
                MultipleChoice(str(row["index"]), str(index), Path(), "?", (answer,), f"l{index % 3}", options=options)
            )
            said.append(text)
    overall, _, per_kind = theirs.eval_result(copy.deepcopy(rows), eval_method="static")
    ours = benchmark("mmbench").metrics(questions, said)
    assert ours["unread"] == 0
    assert 0 < ours["accuracy"] < ours["first_pass"]
    assert pytest.approx(100 * overall) == ours["accuracy"]
    assert pytest.approx({kind: 100 * rate for kind, rate in per_kind.items()}) == {
        kind: ours[f"accuracy/{kind}"] for kind in per_kind
    }


def test_mm_vets_figures_per_skill_are_theirs() -> None:
    from loguru import logger

    from headwise_lab.benchmarks.official.mmvet import SKILLS, by_skill

    tasks = utilities("mmvet")
    rng = Random("mm-vet")
    kinds = ["rec", "ocr", "rec_ocr", "ocr_math", "rec_know_gen", "ocr_spat"]
    questions = [asked(["x"], rng.choice(kinds)) for _ in range(60)]
    scores = [round(rng.random(), 1) for _ in questions]
    results = [{"score": s, "capabilities": q.kind.replace("_", ",")} for q, s in zip(questions, scores, strict=True)]
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    try:
        assert pytest.approx(tasks.mmvet_aggregate_results(results)) == 100 * sum(scores) / len(scores)
    finally:
        logger.remove(sink)
    told = {skill: f"{100 * score:.2f}" for skill, score in by_skill(questions, scores).items()}
    assert set(SKILLS) == set(told)
    for skill, score in told.items():
        assert f"Score for {skill}: {score}" in lines
