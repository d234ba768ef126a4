"""What a sweep saves: trials that share a prefix against the same trials one by one, and two workers against one.

    python benchmarks/sweep.py [--sweep ablation_a] [--benchmark shapes-gqa] [--limit 500] [--every 1] [--threads 1]

*One by one*: every trial prepares its questions and pictures, and runs the whole model, for itself; the model stays
loaded, so what a fresh process would cost on top is left out. *Shared*: as sweeps do it, the vision tower and the
layers before the first stage run once per batch and benchmark. Both take turns, trial by trial. Costs (prefill times
and the like) are measured in both for every trial, and nothing of them is shared.

The workers run the same trials through ``headwise sweep``'s local executor, its start-up included.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
import transformers

from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.models.load import load_model
from headwise_lab.sweeps.executor import Ended, Event
from headwise_lab.sweeps.local import Local
from headwise_lab.sweeps.planning import Plan, inputs_for, planned, setting_of
from headwise_lab.sweeps.reading import read
from headwise_lab.sweeps.trials import Terms, Trial
from headwise_lab.trial.run import run_trial

MEASURED = ("cost", "timing", "created", "command", "hardware")
"""Parts of a record that may differ between two runs of one trial."""

Result = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    sweep = attrs.evolve(read(options.sweep), benchmarks=tuple(options.benchmark), limit=options.limit)
    plan = planned(sweep)
    trials = [trial for trial in plan.trials if not trial.refused][:: options.every]
    print(_header(options, len(trials)))
    print(_sharing(plan.work.terms, trials))
    print(_workers(plan, trials))


def _sharing(terms: Terms, trials: Sequence[Trial]) -> str:
    """Every trial alone and sharing, in turns."""
    loaded = load_model(trials[0].model, dtype=terms.dtype, device=terms.device, attention=terms.attention)
    shared: dict[Any, Inputs] = {}
    alone_s, shared_s, pruned = [], [], []
    for trial in trials:
        start = time.perf_counter()
        before = _run(terms, trial, inputs_for(loaded, trial.benchmark, trial.seed, terms))
        alone_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        if trial.group not in shared:
            shared[trial.group] = inputs_for(loaded, trial.benchmark, trial.seed, terms)
        after = _run(terms, trial, shared[trial.group])
        shared_s.append(time.perf_counter() - start)
        pruned.append(trial.prunes)
        _check(trial, before, after)
    ratios = [one / other for one, other, prunes in zip(alone_s, shared_s, pruned, strict=True) if prunes]
    return (
        "\n| trials | one by one, s | shared, s | speed-up | median of a pruned trial | equal results |"
        "\n|---|---|---|---|---|---|"
        f"\n| {len(trials)} | {sum(alone_s):.1f} | {sum(shared_s):.1f} | {sum(alone_s) / sum(shared_s):.2f} |"
        f" {statistics.median(ratios):.2f} | all |"
    )


def _run(terms: Terms, trial: Trial, inputs: Inputs) -> Result:
    recipe = Recipe.of(*trial.strategies, name=trial.recipe, tokens=trial.tokens, keep=trial.keep, **terms.settings)
    return run_trial(setting_of(trial, terms, recipe), inputs)


def _workers(plan: Plan, trials: Sequence[Trial]) -> str:
    """One worker and two, with what they share of the cores."""
    seconds, found = {}, {}
    for workers in (1, 2):
        start = time.perf_counter()
        found[workers] = _by_executor(plan, trials, workers)
        seconds[workers] = time.perf_counter() - start
    for trial in trials:
        _check(trial, found[1][trial.id], found[2][trial.id])
    return (
        "\n| trials | one worker, s | two workers, s | speed-up | equal results |\n|---|---|---|---|---|"
        f"\n| {len(trials)} | {seconds[1]:.1f} | {seconds[2]:.1f} | {seconds[1] / seconds[2]:.2f} | all |"
    )


def _by_executor(plan: Plan, trials: Sequence[Trial], workers: int) -> dict[str, Result]:
    results: dict[str, Result] = {}

    def hear(event: Event) -> bool:
        if isinstance(event, Ended):
            if event.result.record is None:
                raise RuntimeError(event.result.error or event.result.refused)
            results[event.id] = event.result.record, event.result.outcomes
        return False

    Local(workers).run(plan.work, trials, hear)
    return results


def _check(trial: Trial, one: Result, other: Result) -> None:
    """Everything but times is equal, down to the kept tokens of every question."""
    records = [{key: value for key, value in record.items() if key not in MEASURED} for record, _ in (one, other)]
    if records[0] != records[1] or list(one[1]) != list(other[1]):
        raise RuntimeError(f"{trial.label}: two runs differ")


def _header(options: argparse.Namespace, trials: int) -> str:
    return (
        f"{options.sweep}, {', '.join(options.benchmark)}, {options.limit} questions, {trials} trials,"
        f" {options.threads} threads; {platform.processor() or platform.machine()}, {os.cpu_count()} cores,"
        f" torch {torch.__version__}, transformers {transformers.__version__}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweep", default="ablation_a", help="a sweep file, or the name of one that ships")
    parser.add_argument("--benchmark", action="append", help="repeat; default: shapes-gqa")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--every", type=int, default=1, help="every so manieth trial only")
    parser.add_argument("--threads", type=int, default=1, help="of the sharing part; workers share the cores")
    found = parser.parse_args()
    found.benchmark = found.benchmark or ["shapes-gqa"]
    return found


if __name__ == "__main__":
    main()
