"""``headwise calibrate``: a static weight for every attention head, for token-pruning strategies that use weights."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwise.hints import number_of
from headwise.output import answer
from headwise.reading import given_path
from headwise.verbosity import remark, warn
from headwise_lab.commands.options import AsJson, Attention, Batch, Data, Device, Dtype, Model
from headwise_lab.commands.storing import writing

if TYPE_CHECKING:
    from rich.table import Table

    from headwise.head_weights import HeadWeights
    from headwise_lab.benchmarks import Benchmark, Question
    from headwise_lab.benchmarks.inputs import Inputs

STRONGEST = 10
"""The number of heads that are listed."""


def calibrate(
    *,
    model: Model = "demo-llava",
    benchmark: Annotated[str, typer.Option(help="Name of a benchmark, such as shapes-gqa.")] = "shapes-gqa",
    out: Annotated[Path, typer.Option(callback=given_path, help="The weights, a .json file.")] = Path("weights.json"),
    limit: Annotated[int, typer.Option(min=2, help="Questions asked; with --data, the last of them.")] = 100,
    layers: Annotated[
        str | None,
        typer.Option(help="Decoder layers, separated by commas: 1 for calibrated:layer=2. [default: all]"),
    ] = None,
    mass: Annotated[bool, typer.Option(help="Multiply by the share of attention the question pays the image.")] = True,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the synthetic questions; `headwise run` asks those of 0.")
    ] = 1,
    batch: Batch = 16,
    data: Data = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
    as_json: AsJson = False,
) -> None:
    """Measure how important every attention head is, by leaving it out.

    A head's weight is the rise of the negative log-likelihood of the right answers without it, at least 0, times the
    share of its attention from the question to the image. The weights of a layer sum to 1. The file is for
    token_pruning strategies with an option for it (calibrated:weights=FILE). Calibrate on other questions than you
    evaluate on: synthetic questions get another seed here, and of questions on disk this command takes the last, while
    other commands take the first.
    """
    from headwise.errors import DataError
    from headwise_lab.benchmarks import benchmark as benchmark_called
    from headwise_lab.benchmarks.inputs import Inputs
    from headwise_lab.benchmarks.questions import pinned
    from headwise_lab.models.load import load_model

    asked = benchmark_called(benchmark)
    if out.is_dir():
        raise DataError(f"head weights are a file, and {out} is a folder; give another --out")
    with writing("head weights", out):
        out.parent.mkdir(parents=True, exist_ok=True)
    loaded = load_model(model, dtype=dtype, device=device, attention=attention)
    chosen = _numbers(layers, loaded.geometry.layers)
    inputs = Inputs(loaded, asked, _questions(asked, data, limit, seed), batch)
    inputs.check()
    given = {"model": model, "benchmark": benchmark, "out": out, "limit": limit, "layers": layers, "seed": seed}
    given |= {"batch": batch, "data": pinned(data, asked)}
    words = [word for key, value in given.items() if value is not None for word in (f"--{key}", str(value))]
    command = shlex.join(["headwise", "calibrate", *words, *loaded.options, *([] if mass else ["--no-mass"])])
    found = _with_progress(inputs, chosen, by_mass=mass, source={"seed": None if data else seed, "command": command})
    with writing("head weights", out):
        found.save(out)
    if as_json:
        answer(out.read_text(encoding="utf-8").rstrip())
    else:
        _tell(found, out)


def _questions(asked: Benchmark, data: str | None, limit: int, seed: int) -> list[Question]:
    """Questions that other commands do not ask: of another seed, or the last ones of a folder."""
    from headwise.errors import DataError
    from headwise_lab.benchmarks.questions import questions_of

    if data is None:
        if seed == 0:
            warn("`headwise run` asks the same questions; evaluate with another --seed")
        return questions_of(asked, limit=limit, seed=seed)
    every = questions_of(asked, data=data)
    rest = len(every) - limit
    if rest < 1:
        raise DataError(
            f"{data} has {number_of(len(every), 'question')}, and some have to be left to evaluate on; give a"
            " smaller --limit"
        )
    remark(f"note: these are the last {limit} of {len(every)} questions; evaluate with --limit {rest} at most")
    return every[-limit:]


def _numbers(text: str | None, count: int) -> tuple[int, ...]:
    """The layers in a text such as ``0,1,2``, ascending and each once; all where it is None."""
    from headwise.errors import DataError

    if text is None:
        return tuple(range(count))
    try:
        found = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not 0 <= found[0] <= found[-1] < count:
        raise DataError(f"layers {text!r} are not among 0..{count - 1}, the decoder layers; write them as 0,1,2")
    return found


def _with_progress(inputs: Inputs, layers: tuple[int, ...], **more: Any) -> HeadWeights:
    """Measure with a progress bar on the error stream."""
    from headwise_lab.heads.calibration import calibrate as measure
    from headwise_lab.terminal.progress import counted

    with counted("leaving heads out", len(inputs) * len(layers) * inputs.loaded.geometry.heads) as advance:
        return measure(inputs, layers, advance=advance, **more)


def _tell(found: HeadWeights, out: Path) -> None:
    """Print the strongest heads, and the name of the file."""
    from headwise_lab.terminal import Terminal

    source = found.source
    console = Terminal(soft_wrap=True)
    console.print(
        f"{found.model} on {number_of(source['n'], 'question')} of {source['benchmark']}; the right answers' loss is"
        f" {source['loss']:.3f} nats\n"
    )
    console.print(_table(found))
    console.print(f"\nWeights: {out}")


def _table(found: HeadWeights) -> Table:
    """The heads without which the loss rises most, with their weights in their layer."""
    import numpy as np

    from headwise_lab.terminal.tables import text_table

    rise, error, mass = (found.statistics[name] for name in ("rise", "error", "mass"))
    table = text_table(["Layer", "Head", "Loss without it", "SE", "Attention to image", "Weight in layer"], left=0)
    places = np.argwhere(~np.isnan(rise))
    order = np.argsort([-rise[tuple(place)] for place in places], kind="stable")
    for layer, head in (tuple(places[index]) for index in order[:STRONGEST]):
        figures = f"{rise[layer, head]:+.4f}", f"{error[layer, head]:.4f}", f"{mass[layer, head]:.1%}"
        table.add_row(str(layer), str(head), *figures, f"{found.weights[layer, head]:.3f}")
    return table
