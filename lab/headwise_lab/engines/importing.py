"""Results of lmms-eval and lm-eval as records that ``headwise report`` reads, one per task.

The harness's own figures are kept as they are under ``metrics``. The headline is one of them; where it is the mean of
what single documents are worth, the documents become outcomes, and two runs can be compared document by document. A
mean of scores in 0..1 is given in per cent, as those of our own benchmarks are. Every other figure, such as F1, comes
without outcomes.
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
from headwise_lab.engines.results import VERSIONS, Figure, Run, Worth, figures_of, filter_of, worth_of
from headwise_lab.models.load import NAMES
from headwise_lab.schema.json_object import Json
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_schema import judged
from headwise_lab.store.record_types import VisualRecord
from headwise_lab.store.records import is_number

SCHEMA = 1
LONGEST = 1000  # letters of a sentence


def records_of(
    run: Run, wanted: Sequence[str] = ()
) -> tuple[list[tuple[VisualRecord, list[QuestionOutcome]]], list[str]]:
    """A record with its outcomes for every task of a run, and sentences about tasks that have no figure.

    ``wanted``: metrics that shall be the headline of tasks that have them, the first one first.
    """
    try:
        who = _who(run)
    except HeadwiseError as error:
        raise DataError(f"{run.path}: {shortened(str(error), LONGEST)}") from error
    found, notes = [], []
    for task in run.told["configs"]:
        figures = figures_of(run.told["results"].get(task) or {})
        if not figures:
            notes.append(f"{run.path}: task {task} has no figure, as where a server scores the answers; it is left out")
            continue
        told, outcomes = _record(run, task, figures, who, wanted)
        try:
            record = judged(told, f"{run.path}, task {task}")
        except DataError as error:
            notes.append(f"{error}; it is left out")
            continue
        assert isinstance(record, VisualRecord)  # whatever it is that ran, it did a task of a harness
        found.append((record, outcomes))
    return found, notes


def _record(
    run: Run, task: str, figures: Sequence[Figure], who: Json, wanted: Sequence[str]
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
        "created": _date(run.told.get("date")),
    }
    return record, [_outcome(line, score) for line, score in zip(own, worth.scores, strict=bool(worth.scores))]


def _headline(figures: Sequence[Figure], wanted: Sequence[str], worths: Mapping[Figure, Worth | None]) -> Figure:
    """The first metric that is wanted, else the first that documents can be paired by, else the first."""
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
    """The text of a request, where the two harnesses keep it."""
    if "input" in line:
        return str(line["input"])
    arguments = line.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, Mapping) else None
    return str(first.get("arg_0") or "") if isinstance(first, Mapping) else ""


def _digest(lines: Sequence[Json]) -> str:
    """16 hexadecimal digits over all that was asked, the same for every run of the same documents."""
    told = [[line.get("doc_id"), line.get("doc_hash"), str(line.get("target")), _asked(line)] for line in lines]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _count(run: Run, task: str, lines: Sequence[Json]) -> int:
    counts = run.told.get("n-samples")
    told = counts.get(task) if isinstance(counts, Mapping) else None
    count = told.get("effective") if isinstance(told, Mapping) else None
    return count if isinstance(count, int) and count > 0 else len(lines)


def _date(told: object) -> str:
    """Seconds since 1970 (lm-eval) as a date; lmms-eval's date as it is."""
    if not is_number(told):
        return str(told or "")
    try:
        return datetime.fromtimestamp(told, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # no year that there is
        return ""


def command(run: Run, task: str) -> str:
    """The command line of one task of the run, as far as the file tells."""
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


def _who(run: Run) -> dict[str, object]:
    """The part of a record that says which model ran and what it threw away."""
    given = model_arguments(run.config.get("model_args"))
    source = str(given.get("pretrained") or given.get("model") or run.config.get("model"))
    told: dict[str, object] = {
        "study": None,
        "model": source if source in NAMES else Path(source).name,
        "weights": None,
        "strategies": {},
        "recipe": None,
        "settings": {},
        "budget": {"given": "everything"},
        "heads": {"of": None, "mean": None, "sd": None},
        "cost": {"batch": run.config.get("batch_size")},
        "versions": {run.harness: str(run.told.get(VERSIONS[run.harness]))},
        "hardware": {"device": run.config.get("device")},
    }
    if run.config.get("model") != NAME:
        return told
    return told | (
        _language_model(run, {run.harness: str(run.told.get(VERSIONS[run.harness]))})
        if run.harness == "lm-eval"
        else _vision_model(run, given)
    )


def _language_model(run: Run, versions_of_harness: Json) -> dict[str, object]:
    """What our model wrote into lm-eval's file; what the cache forgets takes the place of a token budget."""
    info = dict(run.config.get(NAME) or {})
    strategies = info.pop("strategies", None) or {}
    if not isinstance(strategies, dict):
        raise DataError(f"the strategies that headwise wrote are an object, not {strategies!r}")
    strategies = {"kv_eviction": "none", **strategies}
    info["attention_implementation"] = info.pop("attention", None)
    versions = info.get("versions")
    info["versions"] = {**versions_of_harness, **(versions if isinstance(versions, dict) else {})}
    return {**info, "strategies": strategies, "budget": {"given": f"cache {strategies['kv_eviction']}"}}


def _vision_model(run: Run, given: Json) -> dict[str, object]:
    """The recipe from the model arguments, and what our model told lmms-eval of it beside its speed.

    Runs of named recipes are laid out as a comparison of methods, all others by budget and heads.
    """
    asked = Arguments.of(given)
    recipe = asked.make_recipe()
    figures = run.told.get("throughput") or {}
    seen: dict[str, object] = {
        key: figures.get(f"avg_headwise_{key}") for key in ("processed", "kept", "visual", "heads", "heads_of")
    }
    whole = {key: round(value) for key in ("kept", "visual") if is_number(value := seen[key])}
    return {
        "study": "methods" if recipe.name else None,
        "dtype": asked.dtype,
        "attention_implementation": asked.attention,
        "strategies": {hook: strategy.text for hook, strategy in recipe.strategies.items()},
        "recipe": recipe.name,
        "settings": recipe.settings,
        "budget": {"given": recipe.budget.text, "processed": seen["processed"], **whole},
        "heads": {"of": seen["heads_of"], "mean": seen["heads"], "sd": None},
    }
