"""Files that headwise reads, damaged at random: for every door a whole file, what is done to it, and who reads it."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from tests.lab.fake_kv import full, losses, streaming, write_kv
from tests.lab.fake_records import study_a, write_folder
from tests.lab.fake_sweep import trials
from tests.lab.test_import_results import lmms

from headwise.errors import HeadwiseError
from headwise.families import read_geometry
from headwise.head_weights import HeadWeights
from headwise.heads import HeadLabels, HeadProfile
from headwise_lab.commands.import_results import described
from headwise_lab.commands.status import as_dict, details, sentence
from headwise_lab.engines.importing import records_of
from headwise_lab.engines.results import read_run
from headwise_lab.exporting import export, read_tables
from headwise_lab.report.content import gather
from headwise_lab.report.html_page import html_page
from headwise_lab.report.markdown_page import markdown_page
from headwise_lab.report.page.grid import grid_csv
from headwise_lab.report.page.latex import latex
from headwise_lab.report.published.context_page import context_lines
from headwise_lab.report.published.context_recount import recount_contexts
from headwise_lab.report.published.recount import recount
from headwise_lab.report.published.recount_page import recount_lines
from headwise_lab.store.manifest import MANIFEST, manifest
from headwise_lab.store.output_folder import Store
from headwise_lab.store.records import read_records
from headwise_lab.sweeps.folder import write_plan
from headwise_lab.sweeps.reading import read as read_sweep
from headwise_lab.sweeps.status import look
from headwise_lab.tuning.reading import read as read_space

LONGEST = 20  # seconds

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**63,
        -(2**63),
        10**400,
        1.5,
        -0.0,
        1e308,
        float("inf"),
        float("nan"),
        "",
        "x",
        "0",
    ),
    *(
        [],
        {},
        [None],
        [[]],
        {"": 0},
        {"a": {"b": []}},
        "\ud800",
        "\x1b[2J",
        "\0",
        "a\nb",
        "=1+1",
        "../../x",
        "~nosuch/x",
    ),
    *(
        "x" * 5000,
        "[" * 200,
        ":",
        "a:b",
        "sum:",
        "sum:k=9" + "9" * 400,
        "/dev/zero",
        [1] * 50,
        "<script>",
        "|",
        "٣",
        "1e400",
    ),
)
"""What stands where something else is wanted."""

PIECES = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\r",
        b"\n",
        b"\t",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
    ),
    *(b"=", b"#", b"|", b"-", b".", b"'", b"\xed\xa0\x80", b"\x1b[31m", b"1e999", b"null", b"nan", b"\\ud800", b"**"),
    *(
        b" " * 3000,
        b"[" * 3000,
        b"{" * 300,
        b"9" * 5000,
        b"# " + b" " * 3000 + b"x",
        b"|" * 500,
        b"\xe2\x80\xa8",
        b"e" * 300,
    ),
)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes with a few changes."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(changed) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            changed[at:at] = draw.choice(PIECES)
        elif kind == 1:
            del changed[at : at + draw.choice((1, 3, 30))]
        elif kind == 2 and at < len(changed):
            changed[at] = draw.randrange(256)
        elif kind == 3:
            changed[at:at] = changed[at : at + draw.choice((3, 40, 400))]
        else:
            del changed[at:]
    return bytes(changed)


def _value(draw: random.Random) -> Any:
    """One of the values, as its own object: it may be damaged in its turn."""
    return copy.deepcopy(draw.choice(VALUES))


def places(value: Any) -> list[tuple[Any, ...]]:
    """Keys that lead to every value within a value; not by recursion, as values may be hundreds of levels deep."""
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while waiting:
        path, one = waiting.pop()
        found.append(path)
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        waiting += [((*path, key), within) for key, within in inner]
    return found


def replaced(value: Any, draw: random.Random) -> Any:
    """A value in which a few others stand somewhere, or something is missing."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        path = draw.choice(places(value))
        if not path:
            if draw.random() < 0.1:
                return _value(draw)
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        kind = draw.randrange(5)
        if kind == 0:
            del holder[path[-1]]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice((*holder, "x", "", "error", "refused", "\ud800"))] = _value(draw)
        else:
            holder[path[-1]] = _value(draw)
        if kind == 2 and draw.random() < 0.2:
            deep: Any = _value(draw)
            for _ in range(draw.choice((30, 60, 900))):
                deep = [deep] if draw.random() < 0.5 else {"a": deep}
            holder[path[-1]] = deep
    return value


def _json(path: Path, draw: random.Random) -> None:
    """Damage a JSON file, or one line of a JSONL file, by its structure or by its bytes."""
    content = path.read_bytes()
    if draw.random() < 0.35:
        path.write_bytes(damaged(content, draw))
        return
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(lines))
        try:
            lines[at] = json.dumps(replaced(json.loads(lines[at]), draw)).encode()
        except (ValueError, RecursionError):
            continue
    path.write_bytes(b"\n".join(lines) + b"\n")


def _text(path: Path, draw: random.Random) -> None:
    """Damage a text of lines: a value, a key, a cell, a line, or bytes."""
    content = path.read_bytes()
    if draw.random() < 0.4:
        path.write_bytes(damaged(content, draw))
        return
    lines = content.decode().split("\n")
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(lines))
        value = draw.choice(VALUES)
        shown = json.dumps(value) if draw.random() < 0.7 else str(value)[:6000]
        pieces = re.split(r"([=|,\[\]:]\s*)", lines[at])
        pieces[draw.randrange(len(pieces))] = shown
        lines[at] = draw.choice(("".join(pieces), "".join(pieces), f"{lines[at]}\n{lines[at]}", ""))
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


Door = tuple[Callable[[Path], None], Callable[[Path, random.Random], None], Callable[[Path], None]]
"""What makes a folder of whole files, what damages it, and what reads it."""


def _a(folder: Path) -> None:
    write_folder(folder, study_a(keeps=(16,), n=3)[:4], images=False)
    (folder / MANIFEST).write_bytes(manifest("sweep"))
    write_plan(folder, "Title", trials(4, t1="refuses"))


def _kv(folder: Path) -> None:
    write_kv(folder, [(record, losses(record)) for record in (full(), streaming(64), streaming(128))])


def _record_files(folder: Path, draw: random.Random) -> None:
    names = ["results.jsonl"] * 4 + [path.name for path in folder.iterdir() if path.suffix == ".json"]
    outcomes = sorted((folder / "outcomes").iterdir())
    if draw.random() < 0.2:
        path = draw.choice(outcomes)
        path.write_bytes(damaged(path.read_bytes(), draw))
    else:
        _json(folder / draw.choice(names), draw)


def _report(folder: Path) -> None:
    content = gather(folder)
    for grid in content.grids():
        latex(grid).encode()
        grid_csv(grid).encode()
    markdown_page(content).encode()
    html_page(content).encode()


def _export(folder: Path) -> None:
    tables, _ = read_tables(folder)
    export(tables, [folder / "a.csv", folder / "b.csv"], "csv")


def _status(folder: Path) -> None:
    found = look(folder)
    json.dumps(as_dict(found))
    "\n".join([sentence(found), *details(found)])


def _harness(folder: Path) -> None:
    lmms(folder, [1.0, 0.0, 1.0])


def _harness_files(folder: Path, draw: random.Random) -> None:
    _json(draw.choice([folder / "20261121_1_results.json"] * 2 + [folder / "20261121_1_samples_pope.jsonl"]), draw)


def _import(folder: Path) -> None:
    found, _ = records_of(read_run(folder / "20261121_1_results.json"))
    described(found)
    store = Store.open(folder / "out", "import")
    for record, outcomes in found:
        store.add(record, outcomes)
    if found:  # nothing that a report would refuse may be taken
        records, warnings = read_records(folder / "out")
        assert warnings == []
        assert len(records) == len({record.id for record, _ in found})
        _report(folder / "out")


TABLE = """# Document

## GQA results

| Token | Head | sum | entropy | norm |
| --- | --- | --- | --- | --- |
| 64 | 4 | 50.1 | **52.5 ± 1.0** | 51.0 % |
| | 8 | 50.0 | 51.5 | - |
| 128 | 4 | 60.1 | 61.5 | **62.0** |

- **norm**: best in 1 of 3 rows
- **GQA**: Token=128, Head=4, Strategy=norm → 62.0

Evaluated tokens: 4000

| Method | Strategy | Perplexity | Effective context | Accuracy | vs uniform |
| --- | --- | --- | --- | --- | --- |
| full | none | 10.1 | 1024 | 50.1 | - |
| K_uniform64 | streaming:window=64 | 11.5 ± 0.1 | 68 | 48.0 | -1.2 % |
| K_uniform128 | streaming:window=128 | 10.9 | 132 | 49.0 | +0.3 % |
| A | head_windows:a=1 | 10.8 | 100 | 49.5 | +1.0 % better than K_uniform64 |
"""


def _tables(folder: Path) -> None:
    (folder / "table.md").write_text(TABLE, encoding="utf-8")


def _recount(folder: Path) -> None:
    for found in (lambda path: recount_contexts(path, None), lambda path: recount(path, {})):
        try:
            counted = found(folder / "table.md")
        except HeadwiseError as error:
            _one_sentence(error)
            continue
        if counted is not None:
            json.dumps(counted.as_dict())
            lines = context_lines if hasattr(counted, "matched") else recount_lines
            "\n".join(lines(counted)).encode("utf-8", "surrogatepass")


def _shipped(package: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for item in (files(package) / "files").iterdir():
            if item.name.endswith(".toml"):
                (folder / item.name).write_bytes(item.read_bytes())

    return write


def _toml_files(folder: Path, draw: random.Random) -> None:
    path = draw.choice(sorted(folder.iterdir()))
    _text(path, draw)
    path.rename(folder / "a.toml")


def _sweeps(folder: Path) -> None:
    read_sweep(str(folder / "a.toml"))


def _spaces(folder: Path) -> None:
    read_space(str(folder / "a.toml"))


def _profile(folder: Path) -> None:
    labels = HeadLabels(
        names=("global", "local"),
        labels=np.array([[0, 1], [1, 1]]),
        confidence=np.array([[0.5, 1.0], [0.7, 0.9]]),
        probabilities=np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.3, 0.7], [0.1, 0.9]]]),
        statistics={"share": np.ones((2, 2))},
    )
    HeadProfile(model="m", labels=labels, windows=(4, 8), mass=np.ones((2, 2, 2)), strategy="s", text="t").save(
        folder / "profile.json"
    )


def _load_profile(folder: Path) -> None:
    found = HeadProfile.load(folder / "profile.json")
    json.dumps(found.plain(), allow_nan=False)
    assert all(isinstance(text, str) for text in (found.model, found.strategy, found.text, *found.labels.names))
    assert all(isinstance(window, int) and window > 0 for window in found.windows)


def _weights(folder: Path) -> None:
    HeadWeights(
        model="m",
        weights=np.ones((2, 2)),
        source={"n": 1, "benchmark": "b", "loss": 1.0},
        statistics={"rise": np.ones((2, 2))},
    ).save(folder / "weights.json")


def _load_weights(folder: Path) -> None:
    found = HeadWeights.load(folder / "weights.json")
    assert all(np.isfinite(layer).all() or np.isnan(layer).all() for layer in found.weights)


@cache
def _configs() -> list[str]:
    root = files("headwise_lab.models")
    text = {"num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 64, "intermediate_size": 128}
    sliding = {**text, "model_type": "mistral", "sliding_window": 8, "num_key_value_heads": 2, "head_dim": 8}
    return [
        (root / "demo-llava" / "config.json").read_text(),
        (root / "demo-pythia" / "config.json").read_text(),
        json.dumps(sliding),
        json.dumps(
            {"model_type": "qwen2_5_vl", **text, "text_config": {**text, "layer_types": ["full_attention"] * 4}}
        ),
        json.dumps({"model_type": "llava", **text, "mm_vision_tower": "x-patch14-336", "mm_hidden_size": 8}),
        json.dumps({"model_type": "gemma3_text", **text, "sliding_window": 8, "sliding_window_pattern": 3}),
        json.dumps({"model_type": "qwen3", **text, "use_sliding_window": True, "max_window_layers": 2}),
        json.dumps(
            {
                "model_type": "llava_next",
                "text_config": {"model_type": "phi", **text},
                "vision_config": {"model_type": "clip_vision_model"},
                "image_grid_pinpoints": [[224, 448], [448, 224]],
            }
        ),
    ]


def _config(folder: Path) -> None:
    for number, text in enumerate(_configs()):
        (folder / f"config{number}.json").write_text(text)


def _config_files(folder: Path, draw: random.Random) -> None:
    path = draw.choice(sorted(folder.iterdir()))
    _json(path, draw)
    path.rename(folder / "config.json")


def _geometry(folder: Path) -> None:
    found = read_geometry(folder)
    counts = (found.layers, found.heads, found.kv_heads, found.head_dim, found.hidden, found.intermediate)
    assert all(isinstance(count, int) and not isinstance(count, bool) and count > 0 for count in counts), found
    assert type(found.visual_tokens) is int, found
    assert len(found.sliding) in (0, found.layers), found
    assert all(window is None or (isinstance(window, int) and window > 0) for window in found.sliding), found


def _only(name: str, damage: Callable[[Path, random.Random], None]) -> Callable[[Path, random.Random], None]:
    return lambda folder, draw: damage(folder / name, draw)


DOORS: dict[str, Door] = {
    "sweep": (_shipped("headwise_lab.sweeps"), _toml_files, _sweeps),
    "space": (_shipped("headwise_lab.tuning"), _toml_files, _spaces),
    "report": (_a, _record_files, _report),
    "kv report": (_kv, _record_files, _report),
    "export": (_a, _record_files, _export),
    "status": (_a, _record_files, _status),
    "import": (_harness, _harness_files, _import),
    "table": (_tables, _only("table.md", _text), _recount),
    "profile": (_profile, _only("profile.json", _json), _load_profile),
    "weights": (_weights, _only("weights.json", _json), _load_weights),
    "config": (_config, _config_files, _geometry),
}


def _one_sentence(error: HeadwiseError) -> None:
    assert len(" ".join(str(error).split())) < 3000, "a sentence without end"


@contextmanager
def _in_time(seconds: int) -> Iterator[None]:
    """An alarm after so many seconds; none for 0."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it took over {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(door: str, seed: int, root: Path, *, seconds: int = 0) -> str | None:
    """Damage what a door reads and let it read; None where that went well, else what went wrong.

    Well is a value that is what it should be, or one sentence; within ``seconds`` if these are given.
    """
    make, damage, read = DOORS[door]
    whole, folder = root / f"{door} whole", root / "damaged"
    if not whole.exists():
        whole.mkdir()
        make(whole)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    draw = random.Random(f"{door} {seed}")
    damage(folder, draw)
    beside = sorted(root.iterdir())
    try:
        with _in_time(seconds):
            read(folder)
    except HeadwiseError as error:
        return None if len(str(error)) < 5000 else f"{door} {seed}: a sentence of {len(str(error))} letters"
    except Exception as error:
        return f"{door} {seed}: {type(error).__name__}: {str(error)[:300]}"
    if sorted(root.iterdir()) != beside:
        return f"{door} {seed}: it wrote beside its folder"
    return None
