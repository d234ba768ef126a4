"""Made-up KV records with known effects: losses of every token from a formula of the context plus what is planted."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.lab.fake_records import write_outcomes

SINKS = 4


@functools.cache
def hardness(token: int) -> float:
    """What a token costs every run alike."""
    return Random(f"token-{token}").gauss(2.3, 1.0)


def loss(token: int, context: float) -> float:
    """What a uniform run of this context loses on a token: difficulty, and less of it the more is seen.

    Straight in log2(context) but for a slight bend, as real curves are.
    """
    octaves = math.log2(context / 64)
    return hardness(token) - 0.06 * octaves + 0.004 * octaves**2


def kv_record(strategy: str, context: float, **changes) -> dict:
    """A whole record but for what its outcomes give."""
    return {
        "schema": 1,
        "id": hashlib.sha256(f"{strategy}-{changes.get('model', '')}".encode()).hexdigest()[:16],
        "study": "kv",
        "group": None,
        "name": None,
        "model": "made-up",
        "weights": "0123456789abcdef",
        "dtype": "float32",
        "attention": "sdpa",
        "strategies": {"kv_eviction": strategy},
        "profile": "fedcba9876543210" if "head_windows" in strategy else None,
        "text": {"name": "novel.txt", "digest": "aaaabbbbccccdddd", "tokens": 401},
        "seed": 0,
        "context": context,
        "visible": 0.9 * context,
        "kv_bytes": int(context * 1000),
        "kv_bytes_planned": int(context * 1000),
        "peak_bytes": int(context * 1100),
        "seconds": 1.5,
        "versions": {"headwise": "0.1.0", "torch": "2.13.0"},
        "hardware": {"cpu": "a made-up CPU", "cores": 2, "device": "cpu"},
        "command": f"headwise ppl --strategy {strategy}",
        "created": "2026-01-01T00:00:00+00:00",
        **changes,
    }


def losses(record: dict, effect: float = 0.0, noise: float = 0.01, n: int = 400) -> list[float]:
    """Losses of a run: the uniform ones at its context, plus an effect (nats), plus noise of its own."""
    own = Random(record["strategies"]["kv_eviction"])
    return [loss(token, record["context"]) + effect + own.gauss(0, noise) for token in range(1, n + 1)]


def finished(record: dict, values: Sequence[float]) -> dict:
    """The record with the figures that these losses give."""
    n = len(values)
    mean = math.fsum(values) / n
    se = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return {
        **record,
        "n": n,
        "metric": {"name": "perplexity", "value": math.exp(mean), "se": math.exp(mean) * se},
        "nll": {"mean": mean, "se": se},
        "accuracy": {"value": 0.5, "se": 0.5 / math.sqrt(n)},
    }


def write_kv(folder: Path, runs: Sequence[tuple[dict, Sequence[float]]]) -> list[dict]:
    """Write (record, losses) pairs in the layout of a study; returns the records."""
    (folder / "outcomes").mkdir(parents=True, exist_ok=True)
    records = [finished(record, values) for record, values in runs]
    for record, (_, values) in zip(records, runs, strict=True):
        lines = [{"id": str(at), "score": value, "right": value < 2} for at, value in enumerate(values, 1)]
        write_outcomes(folder, record["id"], lines)
    with (folder / "results.jsonl").open("a") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)
    return records


def streaming(context: int, **changes) -> dict:
    """Group B: StreamingLLM with so many entries."""
    text = f"streaming:sinks={SINKS},window={context - SINKS},positions=relative"
    return kv_record(text, float(context), group="B", name=f"B_streaming_{context}", **changes)


def window(context: int) -> dict:
    """Group A: no sinks."""
    return kv_record(f"window:window={context}", float(context), group="A", name=f"A_window_{context}")


def heads(positional: int, mixed: int, gathering: int, context: float, group: str = "J") -> dict:
    """Windows by class, with all options spelled out as records do."""
    name = f"{group}_pos{positional}_mix{mixed}_g{gathering}"
    text = f"head_windows:positional={positional},mixed={mixed},gathering={gathering},sinks=4,positions=relative"
    return kv_record(text, context, group=group, name=name)


def twin(size: int) -> dict:
    """Group K: equal windows for all classes, which is StreamingLLM with four entries more."""
    return {**heads(size, size, size, size + 4.0, "K"), "name": f"K_uniform{size}_aware"}


def sure(threshold: float, base: int, context: float) -> dict:
    """Group G: heads above a confidence get the window of their class."""
    text = (
        f"confidence_windows:threshold={threshold:g},base={base},positional=16,mixed=64,gathering=256,sinks=4,"
        "positions=relative"
    )
    return kv_record(text, context, group="G", name=f"G_conf{threshold:g}_base{base}", profile="fedcba9876543210")


def permuted(of: dict, seed: int, **changes) -> dict:
    """A control of a run: the same windows shuffled over the heads."""
    text = f"permuted:of=[{of['strategies']['kv_eviction']}],seed={seed},within=model"
    return kv_record(text, of["context"], group="permuted", name=f"{of['name']} permuted {seed}", **changes)


def full(n: int = 401) -> dict:
    """The full cache."""
    return kv_record("none", float(n), group="full", name="full")
