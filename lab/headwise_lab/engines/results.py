"""Reads result files of lmms-eval and lm-eval, and the scores of single documents behind their metrics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise.reading import json_within
from headwise_lab.schema.json_schema import what_is_wrong
from headwise_lab.stats.means import mean_and_error
from headwise_lab.store.records import is_number, read_lines

VERSIONS = {"lmms-eval": "lmms_eval_version", "lm-eval": "lm_eval_version"}
"""Harness -> a key that only its result files have."""

_SAME = 1e-6  # means with a smaller relative difference count as equal
LARGEST, DEEPEST = 2**28, 50  # bytes; levels of nested lists and objects
_PLAIN = ("", "none")  # filters that leave answers unchanged


@attrs.frozen(eq=False)
class HarnessRun:
    """One result file: the harness that wrote it, and its content."""

    path: Path
    harness: str
    content: Mapping[str, Any]
    digest: str

    @property
    def config(self) -> Mapping[str, Any]:
        """The model, its arguments and other options of the run."""
        found: Mapping[str, Any] = self.content["config"]
        return found

    @property
    def stamp(self) -> str:
        """The part of the file's name that its sample files share."""
        stem = self.path.stem
        return stem.removesuffix("_results") if self.harness == "lmms-eval" else stem.rpartition("_")[2]

    def samples(self, task: str) -> Path:
        """The file with the score of every document, which exists only after ``--log_samples``."""
        names = {
            "lmms-eval": f"{self.stamp}_samples_{task}.jsonl",
            "lm-eval": f"samples_{task}_{self.stamp}.jsonl",
        }
        return self.path.with_name(names[self.harness])

    def lines(self, task: str) -> list[Mapping[str, Any]]:
        """The samples of a task, empty where they were not logged; raises DataError, which names file and line."""
        path = self.samples(task)
        return [line for _, line in read_lines(path)[0]] if path.is_file() else []


@attrs.frozen
class HarnessMetric:
    """One metric of a task: its name, the filter that was applied to answers, its value, and its error if given."""

    name: str
    filter: str
    value: float
    se: float | None

    @property
    def label(self) -> str:
        """The name, and the filter if it changes answers."""
        return self.name if self.filter in _PLAIN else f"{self.name}/{self.filter}"


@attrs.frozen
class Worth:
    """A headline metric with its error, and the document scores whose mean it is; none where it is no mean."""

    scores: tuple[float, ...]
    value: float
    se: float | None


@attrs.frozen
class _RunConfig:
    """The fields of a run's configuration that go into records."""

    model: str | None = None
    model_args: dict[str, object] | str | None = None
    device: str | None = None
    limit: float | None = None
    random_seed: int | None = None
    batch_size: int | str | None = None
    resolved_cli_args: dict[str, object] | None = None
    headwise: dict[str, object] | None = None


@attrs.frozen
class _ResultFileSchema:
    """The fields of a result file that are read."""

    config: _RunConfig
    configs: dict[str, object]
    results: dict[str, dict[str, object] | None]
    throughput: dict[str, object] | None = None


def result_files(paths: Sequence[Path]) -> list[Path]:
    """The given files, and all result files below given folders; raises DataError for a folder without any."""
    found: list[Path] = []
    for path in paths:
        inside = [*path.rglob("*_results.json"), *path.rglob("results_*.json")] if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no result file of lmms-eval (*_results.json) or lm-eval (results_*.json)")
        found += sorted(inside)
    return list(dict.fromkeys(found))


def read_run(path: Path) -> HarnessRun:
    """Read a result file; raises DataError where it cannot be read, or neither harness wrote it."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give result files or their folder") from error
    if len(content) > LARGEST:
        raise DataError(f"{path} is no result file: it has more than {LARGEST} bytes")
    data = json_within(content, str(path), deepest=DEEPEST)
    harness = next((name for name, key in VERSIONS.items() if isinstance(data, dict) and key in data), None)
    if harness is None or not all(isinstance(data.get(key), dict) for key in ("results", "configs", "config")):
        raise DataError(f"{path} is no result file of {' or '.join(VERSIONS)}; give what they write to --output_path")
    found = what_is_wrong(data, _ResultFileSchema)
    if found:
        raise DataError(f"{path} is no result file as {harness} writes it: {found[0]}: {found[1]}")
    return HarnessRun(path, harness, data, hashlib.sha256(content).hexdigest()[:16])


def figures_of(result: Mapping[str, Any]) -> list[HarnessMetric]:
    """Every metric with a value, in the order of the file, where its key is ``NAME,FILTER``."""
    found = []
    for key, value in result.items():
        name, comma, rule = key.partition(",")
        if comma and is_number(value) and "_stderr" not in name:
            errors: list[Any] = [result.get(f"{name}_stderr{kind},{rule}") for kind in ("", "_clt")]
            se = next((float(error) for error in errors if is_number(error)), None)
            found.append(HarnessMetric(name, rule, float(value), se))
    return found


def worth_of(lines: Sequence[Mapping[str, Any]], figure: HarnessMetric) -> Worth | None:
    """The scores of all documents; None where a document has no score, or the metric is not the mean of the scores."""
    found = [line.get(figure.name) for line in lines if filter_of(line) in (None, figure.filter)]
    scores: list[Any] = [score.get("score") if isinstance(score, Mapping) else score for score in found]
    if scores and all(isinstance(score, bool) or is_number(score) for score in scores):
        return _mean([float(score) for score in scores], figure)
    if scores and all(isinstance(score, list) and len(score) == 2 and all(map(is_number, score)) for score in scores):
        return _per_weight(scores, figure)
    return None


def _mean(scores: Sequence[float], figure: HarnessMetric) -> Worth | None:
    """A plain mean, in per cent if all scores are in 0..1; the harness may have given it in per cent already."""
    mean, error = mean_and_error(scores)
    if not (_same(mean, figure.value) or _same(100 * mean, figure.value)):
        return None
    scale = 100.0 if min(scores) >= 0 and max(scores) <= 1 else 1.0
    return Worth(tuple(scores), scale * mean, None if math.isnan(error) else scale * error)


def _per_weight(pairs: Sequence[Sequence[float]], figure: HarnessMetric) -> Worth | None:
    """Bits per byte or a similar ratio, from the log-likelihood and the length of every document.

    A document's score is its number of bits divided by the mean length, so that the mean of the scores is the metric.
    The error is that of a ratio of two sums, from the difference between each document's bits and the bits that its
    length predicts.
    """
    lengths = [length for _, length in pairs]
    middle = math.fsum(lengths) / len(pairs)
    bits = [-likelihood / math.log(2) for likelihood, _ in pairs]
    if middle <= 0 or not _same(math.fsum(bits) / math.fsum(lengths), figure.value):
        return None
    beyond = [(found - figure.value * length) / middle for found, length in zip(bits, lengths, strict=True)]
    error = mean_and_error(beyond)[1]
    return Worth(tuple(found / middle for found in bits), figure.value, None if math.isnan(error) else error)


def _same(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=_SAME, abs_tol=_SAME)


def filter_of(line: Mapping[str, Any]) -> str | None:
    """The filter of a sample; None for samples of lmms-eval, which do not name it."""
    found: str | None = line.get("filter")
    return found
