"""``headwise demo``: head scoring and KV eviction on the models that ship with headwise, in minutes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from headwise_lab.store import Store
    from headwise_lab.tally import Tally

BENCHMARKS = ("shapes-gqa", "shapes-textvqa")
KEEP = 16  # a ninth of demo-llava's 144 visual tokens
LIMIT = 300
BATCH = 25  # the fastest for so small a model; larger ones fall out of the cache
TIMED_BATCHES = 1
TEXT = "kjv"  # what language models read
TOKENS = {"demo-pythia": 512, "smollm2": 600}
CLASSIFY_ON = 512


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Output folder; trials that are in it already are not run again.")] = Path(
        "headwise-demo"
    ),
    limit: Annotated[int, typer.Option(min=1, help="Questions asked of each benchmark.")] = LIMIT,
    keep: Annotated[int, typer.Option(min=1, help="Visual tokens left after the second layer.")] = KEEP,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the questions.")] = 0,
) -> None:
    """Prune visual tokens and evict KV entries of the models that ship, and report what each strategy is worth.

    Needs no GPU, no download and a few minutes. demo-llava is pruned with every head-scoring strategy; the unpruned
    model, all heads (FastV), random heads and tokens dropped without looking stand beside them. demo-pythia, and
    smollm2 where its wheel is installed, read a text with a full cache and with less of it.
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
    for name in _language_models():
        tally = _joined(tally, _read(name, store, console))
    finish(store, tally, "Headwise demo", console)


def _language_models() -> list[str]:
    """demo-pythia, and smollm2 where its wheel is here."""
    from headwise_lab.models.smollm2 import installed

    return ["demo-pythia", *(["smollm2"] if installed() else [])]


def _read(name: str, store: Store, console: Console) -> Tally:
    """The KV study in miniature on one language model; one that cannot be loaded is left out, and that is said."""
    from headwise.errors import ModelError
    from headwise_lab.kv.ablation import KvOptions, run_kv
    from headwise_lab.kv.study import demo_kv, demo_real
    from headwise_lab.measure import one_thread
    from headwise_lab.models_io import load_language_model
    from headwise_lab.tally import Tally

    given = KvOptions(text=TEXT, tokens=TOKENS[name], classify_on=CLASSIFY_ON)
    try:
        loaded = load_language_model(name)
    except ModelError as error:
        console.print(f"warning: {name} is left out: {error}", markup=False, highlight=False, soft_wrap=True)
        return Tally()
    scale = given.scale_of(loaded)
    cases = demo_real() if name == "smollm2" else demo_kv(scale)
    console.print(
        f"{len(cases)} runs over {given.tokens} tokens: {loaded.name} reads {TEXT} with a full KV cache and with less.",
        highlight=False,
        soft_wrap=True,
    )
    with one_thread() if loaded.name == "demo-pythia" else nullcontext():  # so small that threads wait for each other
        return run_kv(loaded, given, store, cases, console, study="demo", scale=scale)


def _joined(ours: Tally, more: Tally) -> Tally:
    from headwise_lab.tally import Tally

    return Tally(ours.ran + more.ran, ours.found + more.found, ours.failed + more.failed)
