"""``headwise demo``: head scoring and KV eviction on the models that ship with headwise, in minutes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.hints import number_of
from headwise.verbosity import warn

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Plan

BENCHMARKS = ("shapes-gqa", "shapes-textvqa")
KEEP = 16  # a ninth of demo-llava's 144 visual tokens
LIMIT = 300
BATCH = 25  # the fastest for so small a model; larger batches do not fit into the processor's cache
TIMED_BATCHES = 1
TEXT = "kjv"  # which language models read
TOKENS = {"demo-pythia": 512, "smollm2": 600}
CLASSIFY_ON = 512


def demo(
    *,
    out: Annotated[
        str, typer.Option(help="Output folder or URL; trials that are in it already are not run again.")
    ] = "headwise-demo",
    limit: Annotated[int, typer.Option(min=1, help="Questions asked of each benchmark.")] = LIMIT,
    keep: Annotated[int, typer.Option(min=1, help="Visual tokens left after the second layer.")] = KEEP,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the questions.")] = 0,
) -> None:
    """Prune visual tokens and evict KV entries of the models that ship, and report how good each strategy is.

    Needs a few minutes, no GPU and no download. demo-llava is pruned with every head-scoring strategy, and compared
    with the unpruned model, all heads (FastV), random heads, and tokens dropped without attention. demo-pythia, and
    smollm2 if its wheel is installed, read a text with a full KV cache and with smaller ones.
    """
    from headwise_lab.commands.sweeping import carry_out
    from headwise_lab.terminal import beside

    def plans(folder: Path) -> list[Plan]:
        pruning = _pruning(keep, limit, seed)
        readings = (_reading(name, folder) for name in _language_models())
        return [pruning, *(plan for plan in readings if plan is not None)]

    carry_out(plans, out, "demo", beside(), title="Headwise demo")


def _pruning(keep: int, limit: int, seed: int) -> Plan:
    """demo-llava, pruned with every head-scoring strategy. It runs on one thread, because it is so small."""
    import attrs

    from headwise_lab.sweeps.plan import check_any_left, plan_of
    from headwise_lab.sweeps.planning import looked_at, trials_on
    from headwise_lab.sweeps.studies import demo as demo_cases
    from headwise_lab.sweeps.studies import half
    from headwise_lab.sweeps.trials import Terms, Work

    terms = Terms(limit=limit, batch=BATCH, timed_batches=TIMED_BATCHES, study="demo", one_thread=True)
    loaded = looked_at("demo-llava", terms)
    cases = demo_cases(benchmarks=BENCHMARKS, keep=keep, heads=half(loaded.geometry.heads))
    asked = {name: [case for case in cases if case.benchmark == name] for name in BENCHMARKS}
    found = (trial for name in BENCHMARKS for trial in trials_on(loaded, name, asked[name], (seed,), terms))
    plan = plan_of("Headwise demo", Work(terms=terms), found)
    check_any_left([plan])
    message = (
        f"{len(plan.trials)} trials of {number_of(limit, 'question')}: {loaded.name} keeps {keep} of"
        f" {loaded.geometry.visual_tokens} visual tokens after two layers."
    )
    return attrs.evolve(plan, remarks=(message,))


def _language_models() -> list[str]:
    """demo-pythia, and smollm2 if its wheel is installed."""
    from headwise_lab.models.smollm2 import installed

    return ["demo-pythia", *(["smollm2"] if installed() else [])]


def _reading(name: str, folder: Path) -> Plan | None:
    """A small KV study on one language model; None, after a warning, where the model cannot be loaded."""
    import attrs

    from headwise.errors import ModelError
    from headwise_lab.cost.environment import one_thread
    from headwise_lab.kv.planning import loaded_for_planning, plan_reading
    from headwise_lab.kv.preparing import KvOptions
    from headwise_lab.kv.study import demo_kv, demo_real
    from headwise_lab.sweeps.trials import Terms

    given = KvOptions(text=TEXT, tokens=TOKENS[name], classify_on=CLASSIFY_ON)
    terms = Terms(study="demo", one_thread=name == "demo-pythia")  # so small that several threads would be slower
    try:
        loaded = loaded_for_planning(name, terms)
    except ModelError as error:
        warn(f"{name} is left out: {error}")
        return None
    cases = demo_real() if name == "smollm2" else demo_kv(given.scale_of(loaded))
    with one_thread() if terms.one_thread else nullcontext():
        plan = plan_reading(loaded, given, cases, terms, folder)
    message = (
        f"{len(plan.trials)} runs over {given.tokens} tokens: {loaded.name} reads {TEXT} with a full KV cache and with"
        " smaller ones."
    )
    return attrs.evolve(plan, remarks=(message,))
