"""Turns results of lmms-eval and lm-eval into records for ``headwise report``, one for each task.

``metrics`` holds the harness's own figures unchanged. The headline metric is one of them. If it is the mean of the
documents' scores, each document becomes an outcome, so that two runs can be compared document by document; and if the
scores are in 0..1, it is given in per cent, as in our own benchmarks. Any other metric, such as F1, has no outcomes.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from headwise.errors import DataError, HeadwiseError
from headwise.reading import shortened
from headwise_lab.engines import NAME
from headwise_lab.engines.arguments import Arguments, model_arguments
from headwise_lab.engines.results import VERSIONS, HarnessMetric, HarnessRun, Worth, figures_of, filter_of, worth_of
from headwise_lab.models.load import NAMES
from headwise_lab.models.placing import AUTO
from headwise_lab.schema.json_object import Json
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_schema import judged
from headwise_lab.store.record_types import VisualRecord
from headwise_lab.store.records import is_number

SCHEMA = 1
LONGEST = 1000  # letters of a sentence


def records_of(
    run: HarnessRun, wanted: Sequence[str] = ()
) -> tuple[list[tuple[VisualRecord, list[QuestionOutcome]]], list[str]]:
    """A record with its outcomes for every task of a run, and sentences about tasks that are left out.

    ``wanted``: names of metrics; a task's headline is the first of them that it has.
    """
    try:
        who = _who(run)
    except HeadwiseError as error:
        raise DataError(f"{run.path}: {shortened(str(error), LONGEST)}") from error
    found, notes = [], []
    for task in run.content["configs"]:
        figures = figures_of(run.content["results"].get(task) or {})
        if not figures:
            notes.append(f"{run.path}: task {task} has no figure, as where a server scores the answers; it is left out")
            continue
        data, outcomes = _record(run, task, figures, who, wanted)
        try:
            record = judged(data, f"{run.path}, task {task}")
        except DataError as error:
            notes.append(f"{error}; it is left out")
            continue
        assert isinstance(record, VisualRecord)  # because it has a benchmark, the task
        found.append((record, outcomes))
    return found, notes


def _record(
    run: HarnessRun, task: str, figures: Sequence[HarnessMetric], who: Json, wanted: Sequence[str]
) -> tuple[dict[str, object], list[QuestionOutcome]]:
    lines = run.lines(task)
    worths = {figure: worth_of(lines, figure) for figure in figures}
    figure = _headline(figures, wanted, worths)
    worth = worths[figure] or Worth((), figure.value, figure.se)
    own = [line for line in lines if filter_of(line) in (None, figure.filter)]
    record: dict[str, object] = {
        "schema": SCHEMA,
        "id": hashlib.sha256(f"{run.digest} {task} {figure.label}".encode()).hexdigest()[:16],
        **who,
        "benchmark": f"{task} ({run.harness})",
        "questions": _digest(own) if own else None,
        "seed": run.config.get("random_seed") or 0,
        "limit": run.config.get("limit"),
        "n": len(worth.scores) or _count(run, task, own),
        "metric": {"name": figure.label, "value": worth.value, "se": worth.se},
        "metrics": {one.label: one.value for one in figures},
        "overlap": None,
        "attention": None,
        "source": {"harness": run.harness, "file": run.path.name, "task": task},
        "command": command(run, task),
        "created": _date(run.content.get("date")),
    }
    return record, [_outcome(line, score) for line, score in zip(own, worth.scores, strict=bool(worth.scores))]


def _headline(
    figures: Sequence[HarnessMetric], wanted: Sequence[str], worths: Mapping[HarnessMetric, Worth | None]
) -> HarnessMetric:
    """The first wanted metric that is there, else the first with a score for each document, else the first."""
    for name in wanted:
        for figure in figures:
            if name in (figure.name, figure.label):
                return figure
    return next((figure for figure in figures if worths[figure]), figures[0])


def _outcome(line: Json, score: float) -> QuestionOutcome:
    answer = line.get("filtered_resps")
    pictures = line.get("input_media")
    return QuestionOutcome(
        id=str(line.get("doc_id")),
        unit=str(line.get("doc_id")),
        kind="",
        image=str(pictures[0]) if isinstance(pictures, list) and pictures else "",
        question=_asked(line),
        answers=[str(line.get("target"))],
        prediction=answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
        score=score,
    )


def _asked(line: Json) -> str:
    """The text of a request; each of the two harnesses stores it in its own place."""
    if "input" in line:
        return str(line["input"])
    arguments = line.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, Mapping) else None
    return str(first.get("arg_0") or "") if isinstance(first, Mapping) else ""


def _digest(lines: Sequence[Json]) -> str:
    """16 hexadecimal digits of a hash over all requests, which is equal for all runs on the same documents."""
    asked = [[line.get("doc_id"), line.get("doc_hash"), str(line.get("target")), _asked(line)] for line in lines]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _count(run: HarnessRun, task: str, lines: Sequence[Json]) -> int:
    """The number of documents, as the file says or as many as there are samples."""
    counts = run.content.get("n-samples")
    of_task = counts.get(task) if isinstance(counts, Mapping) else None
    count = of_task.get("effective") if isinstance(of_task, Mapping) else None
    return count if isinstance(count, int) and count > 0 else len(lines)


def _date(given: object) -> str:
    """lm-eval's seconds since 1970 as a date; lmms-eval's date unchanged."""
    if not is_number(given):
        return str(given or "")
    try:
        return datetime.fromtimestamp(given, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # too large or too small for a date
        return ""


def command(run: HarnessRun, task: str) -> str:
    """The command line that runs one task of the run again, as far as it follows from the file."""
    config = run.config
    given = config.get("model_args") or ""
    text = ",".join(f"{key}={value}" for key, value in given.items()) if isinstance(given, Mapping) else given
    ours = config.get("model") == NAME
    program = {"lmms-eval": ["lmms-eval"], "lm-eval": ["headwise-lm-eval" if ours else "lm-eval", "run"]}[run.harness]
    options = {"model": config.get("model"), "model_args": text, "tasks": task}
    options |= {key: config.get(key) for key in ("batch_size", "device", "limit")}
    options["include_path"] = (config.get("resolved_cli_args") or {}).get("include_path")
    words = [word for key, value in options.items() if value for word in (f"--{key}", str(value))]
    return shlex.join([*program, *words])


def _who(run: HarnessRun) -> dict[str, object]:
    """The part of a record that says which model ran, and what was pruned or evicted."""
    given = model_arguments(run.config.get("model_args"))
    source = str(given.get("pretrained") or given.get("model") or run.config.get("model"))
    versions = {run.harness: str(run.content.get(VERSIONS[run.harness]))}
    stock: dict[str, object] = {
        "study": None,
        "model": source if source in NAMES else Path(source).name,
        "weights": None,
        "strategies": {},
        "recipe": None,
        "settings": {},
        "budget": {"given": "everything"},
        "heads": {"of": None, "mean": None, "sd": None},
        "cost": {"batch": run.config.get("batch_size")},
        "versions": versions,
        "hardware": {"device": run.config.get("device")},
    }
    if run.config.get("model") != NAME:
        return stock
    return stock | (_language_model(run, versions) if run.harness == "lm-eval" else _vision_model(run, given))


def _language_model(run: HarnessRun, versions_of_harness: Json) -> dict[str, object]:
    """What our model wrote into lm-eval's file; the record's budget is the cache's strategy instead of tokens."""
    info = dict(run.config.get(NAME) or {})
    strategies = info.pop("strategies", None) or {}
    if not isinstance(strategies, dict):
        raise DataError(f"the strategies have to be a JSON object of names and texts, not {strategies!r}")
    strategies = {"kv_eviction": "none", **strategies}
    info["attention_implementation"] = info.pop("attention", None)
    versions = info.get("versions")
    info["versions"] = {**versions_of_harness, **(versions if isinstance(versions, dict) else {})}
    return {**info, "strategies": strategies, "budget": {"given": f"cache {strategies['kv_eviction']}"}}


def _vision_model(run: HarnessRun, given: Json) -> dict[str, object]:
    """The recipe from the model arguments, and the figures that our model wrote beside lmms-eval's speed.

    Reports show runs of named recipes as a comparison of methods, and all others by budget and heads.
    """
    asked = Arguments.of(given)
    recipe = asked.make_recipe()
    figures = run.content.get("throughput") or {}
    seen: dict[str, object] = {
        key: figures.get(f"avg_headwise_{key}") for key in ("processed", "kept", "visual", "heads", "heads_of")
    }
    whole = {key: round(value) for key in ("kept", "visual") if is_number(value := seen[key])}
    return {
        "study": "methods" if recipe.name else None,
        "dtype": _dtype(asked.dtype, figures.get("avg_headwise_dtype_bits")),
        "attention_implementation": asked.attention,
        "strategies": {hook: strategy.text for hook, strategy in recipe.strategies.items()},
        "recipe": recipe.name,
        "settings": recipe.settings,
        "budget": {"given": recipe.budget.text, "processed": seen["processed"], **whole},
        "heads": {"of": seen["heads_of"], "mean": seen["heads"], "sd": None},
    }


def _dtype(asked: str, bits: object) -> str:
    """What the model was loaded in. ``auto`` was float32 before our model wrote ``bits``, and where they are 32."""
    if asked != AUTO:
        return asked
    return "bfloat16" if bits == 16 else "float32"
