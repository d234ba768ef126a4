"""Result files of lmms-eval and lm-eval, and what each of their figures is made of, document by document."""

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
"""Harness -> the key of its result files that no other has."""

_SAME = 1e-6  # as a share: means that differ by less are the same
LARGEST, DEEPEST = 2**28, 50  # bytes; lists and objects within each other
_PLAIN = ("", "none")  # filters of answers that do nothing


@attrs.frozen(eq=False)
class Run:
    """One result file: the harness that wrote it, and all it holds."""

    path: Path
    harness: str
    told: Mapping[str, Any]
    digest: str

    @property
    def config(self) -> Mapping[str, Any]:
        """Model, model arguments and circumstances."""
        found: Mapping[str, Any] = self.told["config"]
        return found

    @property
    def stamp(self) -> str:
        """What the file shares with those of its samples."""
        stem = self.path.stem
        return stem.removesuffix("_results") if self.harness == "lmms-eval" else stem.rpartition("_")[2]

    def samples(self, task: str) -> Path:
        """The file with what every document was worth, which is there only after ``--log_samples``."""
        names = {
            "lmms-eval": f"{self.stamp}_samples_{task}.jsonl",
            "lm-eval": f"samples_{task}_{self.stamp}.jsonl",
        }
        return self.path.with_name(names[self.harness])

    def lines(self, task: str) -> list[Mapping[str, Any]]:
        """The samples of a task, none where they were not logged; raises DataError with file and line of faults."""
        path = self.samples(task)
        return [line for _, line in read_lines(path)[0]] if path.is_file() else []


@attrs.frozen
class Figure:
    """One metric of a task: its name, the filter its answers went through, its value, its error where it is given."""

    name: str
    filter: str
    value: float
    se: float | None

    @property
    def label(self) -> str:
        """The name, and the filter where it does something."""
        return self.name if self.filter in _PLAIN else f"{self.name}/{self.filter}"


@attrs.frozen
class Worth:
    """A headline figure with its error, and the documents whose mean it is; no document where it is no mean."""

    scores: tuple[float, ...]
    value: float
    se: float | None


@attrs.frozen
class _Config:
    """The model, and the circumstances that records tell."""

    model: str | None = None
    model_args: dict[str, object] | str | None = None
    device: str | None = None
    limit: float | None = None
    random_seed: int | None = None
    batch_size: int | str | None = None
    resolved_cli_args: dict[str, object] | None = None
    headwise: dict[str, object] | None = None


@attrs.frozen
class _ResultFile:
    """What is read of a result file beside the names of metrics."""

    config: _Config
    configs: dict[str, object]
    results: dict[str, dict[str, object] | None]
    throughput: dict[str, object] | None = None


def result_files(paths: Sequence[Path]) -> list[Path]:
    """The result files among files and folders, searched to the bottom; raises DataError where there is none."""
    found: list[Path] = []
    for path in paths:
        inside = [*path.rglob("*_results.json"), *path.rglob("results_*.json")] if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no result file of lmms-eval (*_results.json) or lm-eval (results_*.json)")
        found += sorted(inside)
    return list(dict.fromkeys(found))


def read_run(path: Path) -> Run:
    """A result file; raises DataError where it cannot be read or no harness we know wrote it."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give result files or their folder") from error
    if len(content) > LARGEST:
        raise DataError(f"{path} is no result file: it has more than {LARGEST} bytes")
    told = json_within(content, str(path), deepest=DEEPEST)
    harness = next((name for name, key in VERSIONS.items() if isinstance(told, dict) and key in told), None)
    if harness is None or not all(isinstance(told.get(key), dict) for key in ("results", "configs", "config")):
        raise DataError(f"{path} is no result file of {' or '.join(VERSIONS)}; give what they write to --output_path")
    found = what_is_wrong(told, _ResultFile)
    if found:
        raise DataError(f"{path} is no result file as {harness} writes it: {found[0]}: {found[1]}")
    return Run(path, harness, told, hashlib.sha256(content).hexdigest()[:16])


def figures_of(result: Mapping[str, Any]) -> list[Figure]:
    """Every metric that has a value, ``NAME,FILTER`` in the file, in the order of the file."""
    found = []
    for key, value in result.items():
        name, comma, rule = key.partition(",")
        if comma and is_number(value) and "_stderr" not in name:
            errors: list[Any] = [result.get(f"{name}_stderr{kind},{rule}") for kind in ("", "_clt")]
            se = next((float(error) for error in errors if is_number(error)), None)
            found.append(Figure(name, rule, float(value), se))
    return found


def worth_of(lines: Sequence[Mapping[str, Any]], figure: Figure) -> Worth | None:
    """What every document is worth; None where one has no figure of its own, or the metric is no mean of them."""
    found = [line.get(figure.name) for line in lines if filter_of(line) in (None, figure.filter)]
    scores: list[Any] = [score.get("score") if isinstance(score, Mapping) else score for score in found]
    if scores and all(isinstance(score, bool) or is_number(score) for score in scores):
        return _mean([float(score) for score in scores], figure)
    if scores and all(isinstance(score, list) and len(score) == 2 and all(map(is_number, score)) for score in scores):
        return _per_weight(scores, figure)
    return None


def _mean(scores: Sequence[float], figure: Figure) -> Worth | None:
    """A plain mean, in per cent where that is a mean in 0..1; a harness may have it in per cent already."""
    mean, error = mean_and_error(scores)
    if not (_same(mean, figure.value) or _same(100 * mean, figure.value)):
        return None
    scale = 100.0 if min(scores) >= 0 and max(scores) <= 1 else 1.0
    return Worth(tuple(scores), scale * mean, None if math.isnan(error) else scale * error)


def _per_weight(pairs: Sequence[Sequence[float]], figure: Figure) -> Worth | None:
    """Bits per byte or the like, from the log-likelihood and the length of every document.

    A document's share of the figure is its bits over the mean length. The error is that of a ratio of two sums: what
    counts is by how much a document has more bits than its length lets expect.
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
    """The filter that a sample of lm-eval went through; samples of lmms-eval do not say."""
    found: str | None = line.get("filter")
    return found
