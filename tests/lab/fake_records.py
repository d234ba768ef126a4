"""Made-up output folders with known effects: records, paired outcomes and images, seeded and small."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from headwise_lab.report.trials import Trial
from headwise_lab.store.outcomes import encode
from headwise_lab.store.record_schema import record_of
from headwise_lab.store.records import outcomes_path

SIDE, PATCH = 12, 4
VISUAL = SIDE * SIDE


def identity(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def fake_record(
    scoring: str = "sum",
    heads: int | str = "all",
    keep: int | None = 16,
    *,
    benchmark: str = "made-up",
    query: str = "last_token",
    pruning: str = "fastv:layer=2",
    study: str | None = "a",
    seed: int = 0,
    n: int = 60,
    value: float = 50.0,
    se: float | None = 5.0,
) -> dict:
    """A whole record; ``heads`` is "all", a fixed count, or the text of a head_count strategy."""
    reads = pruning.startswith("fastv")
    count = "all" if heads == "all" else (f"fixed:heads={heads}" if isinstance(heads, int) else heads)
    mean = {"all": 8.0}.get(str(heads), float(heads) if isinstance(heads, int) else 3.5)
    processed = VISUAL if keep is None else (2 * VISUAL + 10 * keep) / 12
    return {
        "schema": 1,
        "id": identity(scoring, heads, keep, benchmark, query, pruning, study, seed),
        "study": study,
        "model": "demo-llava",
        "weights": "0123456789abcdef",
        "strategies": {
            "query_selection": query, "head_scoring": scoring, "head_count": count, "token_pruning": pruning,
        },
        "recipe": None,
        "settings": {"positions": "keep", "aggregate": "mean", "min_mass": 0.0, "sink_share": 1.0},
        "budget": {
            "given": "everything" if keep is None else f"keep={keep}",
            "processed": processed, "kept": keep or VISUAL, "visual": VISUAL,
        },
        "heads": {"of": 8, "mean": mean if reads else None, "sd": 0.0},
        "benchmark": benchmark,
        "seed": seed,
        "n": n,
        "units": n,
        "metric": {"name": "accuracy", "value": value, "se": se},
        "metrics": {"accuracy/color": 90.0},
        "cost": {
            "flops_visual": int(1e6 * processed), "flops_total": int(1.2e6 * processed), "flops_formula": "gated",
            "kv_bytes": int(processed * 6144), "prefill_ms": 1.0 + processed / 50, "decode_tokens_per_s": 210.5,
            "batch": 16,
        },
        "overlap": {"recall": 0.8, "precision": 0.1, "iou": 0.09, "lift": 7.2, "n": n},
        "attention": {"concentration": 0.7, "entropy": 0.5},
        "diversity": 0.4,
        "notes": {},
        "timing": {"head_scoring": 0.1},
        "versions": {"headwise": "0.1.0", "torch": "2.13.0"},
        "hardware": {"cpu": "a made-up CPU", "cores": 2, "device": "cpu"},
        "command": f"headwise run --strategy {scoring}",
        "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip


def fake_outcomes(record: dict, ability: float, folder: Path, *, noise: float = 0.05) -> list[dict]:
    """Outcomes of a record: a question is answered where its difficulty, equal for all strategies, is below ability."""
    text = json.dumps(record["strategies"], sort_keys=True)
    lines = []
    for number in range(record["n"]):
        difficulty = Random(f"{record['benchmark']}-{record['seed']}-{number}").random()
        own = Random(f"{text}-{record['seed']}-{number}")
        right = difficulty + own.gauss(0, noise) < ability
        cell = Random(f"cell-{number}").randrange(VISUAL)
        x, y = cell % SIDE * PATCH, cell // SIDE * PATCH
        kept = set(own.sample(range(VISUAL), record["budget"]["kept"]))
        kept = set(sorted(kept)[1:]) | {cell} if right else kept - {cell}
        lines.append({
            "id": f"q{number}", "unit": f"q{number}", "kind": "color",
            "image": str(folder / "images" / f"{number % 5}.png"),
            "question": "what color is circle ?\nAnswer the question using a single word or phrase.",
            "answers": ["red"], "prediction": "red" if right else "blue", "score": float(right),
            "boxes": [[x, y, x + PATCH, y + PATCH]], "kept": sorted(kept), "heads": [0, 3], "recall": float(right),
        })  # fmt: skip
    return lines


def with_figures(record: dict, outcomes: list[dict]) -> dict:
    """The record with value and SE that its outcomes give."""
    scores = [line["score"] for line in outcomes]
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    metric = {"name": "accuracy", "value": 100 * mean, "se": 100 * math.sqrt(variance / len(scores))}
    return {**record, "metric": metric, "n": len(scores), "units": len(scores)}


def write_folder(folder: Path, trials: list[tuple[dict, float]], *, images: bool = True) -> list[dict]:
    """Write records and outcomes of (record, ability) pairs in the layout of a run; returns the records."""
    (folder / "outcomes").mkdir(parents=True, exist_ok=True)
    if images:
        write_images(folder / "images")
    records = []
    for record, ability in trials:
        outcomes = fake_outcomes(record, ability, folder)
        records.append(with_figures(record, outcomes))
        write_outcomes(folder, record["id"], outcomes)
    (folder / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def write_outcomes(folder: Path, identity: str, outcomes: list[dict]) -> None:
    """Write the outcomes of a trial in the layout of a run."""
    (folder / "outcomes").mkdir(parents=True, exist_ok=True)
    outcomes_path(folder, identity).write_bytes(encode(outcomes))


def write_images(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(5):
        image = Image.new("RGB", (SIDE * PATCH, SIDE * PATCH), (210, 214, 220))
        draw = ImageDraw.Draw(image)
        random = Random(number)
        for _ in range(9):
            x, y = random.randrange(SIDE) * PATCH, random.randrange(SIDE) * PATCH
            draw.rectangle((x, y, x + PATCH - 1, y + PATCH - 1), fill=tuple(random.randrange(256) for _ in range(3)))
        image.save(folder / f"{number}.png")


def study_a(benchmarks: tuple[str, ...] = ("made-up",), keeps: tuple[int, ...] = (48, 16), n: int = 60) -> list:
    """A small study A: ``sharp`` beats all heads, ``dull`` loses, ``even`` differs by noise; control and unpruned."""
    trials = []
    for benchmark in benchmarks:
        trials.append((fake_record(pruning="none", keep=None, benchmark=benchmark, n=n), 0.97))
        for keep in keeps:
            base = 0.45 + keep / 200
            trials.append((fake_record(keep=keep, benchmark=benchmark, n=n), base))
            trials.append((fake_record(keep=keep, pruning="random:seed=0", benchmark=benchmark, n=n), base - 0.3))
            for heads in (4, 2):
                effects = {"random:seed=0": -0.08, "sharp": 0.3, "dull": -0.25, "even": 0.0}
                for scoring, effect in effects.items():
                    trials.append((fake_record(scoring, heads, keep, benchmark=benchmark, n=n), base + effect))
    return trials


def trial_from(record: dict, units: dict | None = None) -> Trial:
    """The trial of a record."""
    return Trial(record_of(record), units)
