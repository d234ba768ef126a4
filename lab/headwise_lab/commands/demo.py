"""``headwise demo``: every head-scoring strategy on the model that ships with headwise, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BENCHMARKS = ("shapes-gqa", "shapes-textvqa")
KEEP = 16  # a ninth of demo-llava's 144 visual tokens
LIMIT = 300
BATCH = 25  # the fastest for so small a model; larger ones fall out of the cache
TIMED_BATCHES = 1


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Output folder; trials that are in it already are not run again.")] = Path(
        "headwise-demo"
    ),
    limit: Annotated[int, typer.Option(min=1, help="Questions asked of each benchmark.")] = LIMIT,
    keep: Annotated[int, typer.Option(min=1, help="Visual tokens left after the second layer.")] = KEEP,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the questions.")] = 0,
) -> None:
    """Prune the trained demo model with every head-scoring strategy and report what each is worth.

    Needs no GPU, no download and a few minutes. The unpruned model, all heads (FastV), random heads and tokens dropped
    without looking stand beside them.
    """
    from rich.console import Console

    from headwise_lab.commands.ending import finish
    from headwise_lab.measure import one_thread
    from headwise_lab.models_io import load_model
    from headwise_lab.store import Store
    from headwise_lab.studies import demo as demo_cases
    from headwise_lab.studies import half
    from headwise_lab.sweep import Sweep, sweep

    console = Console(stderr=True)
    store = Store.open(out, "demo")
    for warning in store.warnings:
        console.print(f"warning: {warning}", markup=False)
    loaded = load_model("demo-llava")
    cases = demo_cases(benchmarks=BENCHMARKS, keep=keep, heads=half(loaded.geometry.heads))
    console.print(
        f"{len(cases)} trials of {limit} questions: {loaded.name} keeps {keep} of {loaded.geometry.visual_tokens}"
        " visual tokens after two layers.",
        highlight=False,
        soft_wrap=True,
    )
    study = Sweep(
        loaded=loaded,
        cases=cases,
        store=store,
        study="demo",
        seed=seed,
        limit=limit,
        batch=BATCH,
        timed_batches=TIMED_BATCHES,
    )
    with one_thread():
        tally = sweep(study, console)
    finish(store, tally, "Headwise demo", console)
