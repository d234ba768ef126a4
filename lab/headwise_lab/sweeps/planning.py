"""All trials of a sweep, each with its identity, checked before the first one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import BudgetError, DataError, HeadwiseError
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise_lab.benchmarks import benchmark, synthetic
from headwise_lab.data import questions_of
from headwise_lab.inputs import Inputs
from headwise_lab.models_io import Loaded, load_model
from headwise_lab.studies import Case, recipes
from headwise_lab.sweep import Job
from headwise_lab.sweeps.cases import budgets_for, cases
from headwise_lab.sweeps.schema import SweepFile
from headwise_lab.sweeps.trials import Terms, Trial
from headwise_lab.trial import Setting, check, head_of_record, identity


@attrs.frozen(eq=False)
class Plan:
    """The trials of a sweep in the order they run, and ``told``: what there is to say about them.

    ``heads`` gives the part of a trial's record that is known before it is run, by its identity.
    """

    title: str
    terms: Terms
    trials: tuple[Trial, ...]
    heads: dict[str, Callable[[], dict[str, Any]]]
    told: tuple[str, ...] = ()

    def head(self, trial: Trial) -> dict[str, Any]:
        """What a record says about a trial that gave no result."""
        return self.heads[trial.id]()


def planned(sweep: SweepFile, load: Callable[..., Loaded] = load_model) -> Plan:
    """Plan a sweep; raises HeadwiseError where a model or data cannot be had, or no trial that prunes is feasible.

    Every model is loaded once, on the CPU, for its counts and the digest of its weights, and let go again.
    """
    terms = terms_of(sweep)
    trials: dict[str, Trial] = {}
    heads: dict[str, Callable[[], dict[str, Any]]] = {}
    told: list[str] = []
    for model in sweep.models:
        loaded = attrs.evolve(
            load(model, dtype=terms.dtype, device="cpu", attention=terms.attention),
            model=None,
            processor=None,
            device=terms.device,
        )
        told += budgets_for(sweep, loaded.geometry)[1]
        for trial, head in _of_model(sweep, terms, loaded):
            if trial.id not in trials:  # two ways to write the same trial
                trials[trial.id], heads[trial.id] = trial, head
    _check_any_left(list(trials.values()))
    return Plan(sweep.title or "Sweep", terms, tuple(trials.values()), heads, tuple(dict.fromkeys(told)))


def terms_of(sweep: SweepFile) -> Terms:
    """What a sweep file says about all of its trials."""
    return Terms(
        limit=sweep.limit,
        batch=sweep.batch,
        timed_batches=sweep.timed_batches,
        dtype=sweep.dtype,
        device=sweep.device,
        attention=sweep.attention,
        data=sweep.data,
        study=sweep.study or ("sweep" if sweep.grids else "methods"),
        settings={name: value for name, value in attrs.asdict(sweep.settings).items() if value is not None},
    )


def setting_of(trial: Trial, terms: Terms, recipe: Recipe) -> Setting:
    """What is tried beside model and questions."""
    return Setting(
        recipe=recipe,
        seed=trial.seed,
        limit=terms.limit,
        study=terms.study,
        data=Path(terms.data) if terms.data else None,
        timed_batches=terms.timed_batches,
    )


def inputs_for(loaded: Loaded, name: str, seed: int, terms: Terms) -> Inputs:
    """A benchmark's questions for a model."""
    found = benchmark(name)
    data = Path(terms.data) if terms.data else None
    return Inputs(loaded, found, questions_of(found, data=data, limit=terms.limit, seed=seed), terms.batch)


Planned = tuple[Trial, Callable[[], dict[str, Any]]]


def _of_model(sweep: SweepFile, terms: Terms, loaded: Loaded) -> Iterator[Planned]:
    for name in sweep.benchmarks or synthetic():
        asked = cases(sweep, name, loaded.geometry)
        built = recipes(asked, **terms.settings)
        outlooks = [_outlook(recipe, loaded) for recipe in built]
        for seed in _seeds(sweep, name):
            inputs = inputs_for(loaded, name, seed, terms)
            for case, recipe, outlook in zip(asked, built, outlooks, strict=True):
                yield _planned(_trial(case, recipe, outlook, inputs, seed), recipe, terms, inputs)


def _seeds(sweep: SweepFile, name: str) -> Sequence[int]:
    """Questions that come from files do not depend on a seed, so one is enough for them."""
    fixed = sweep.data is not None or getattr(benchmark(name), "needs_data", False)
    return sweep.seeds[:1] if fixed else sweep.seeds


def _outlook(recipe: Recipe, loaded: Loaded) -> PruningPlan | HeadwiseError:
    """What a recipe would do, or why it cannot: a budget out of reach, too many heads."""
    try:
        return check(recipe, loaded.geometry)
    except HeadwiseError as error:
        return error


def _trial(case: Case, recipe: Recipe, outlook: PruningPlan | HeadwiseError, inputs: Inputs, seed: int) -> Trial:
    refused = outlook if isinstance(outlook, HeadwiseError) else None
    label = Job(case.benchmark, recipe, BudgetError() if isinstance(outlook, HeadwiseError) else outlook).label
    return Trial(
        id="",
        label=label,
        model=inputs.loaded.source,
        benchmark=case.benchmark,
        seed=seed,
        strategies=case.strategies,
        recipe=case.recipe,
        tokens=case.budget.tokens,
        keep=case.budget.keep,
        questions=len(inputs),
        refused=None if refused is None else str(refused),
    )


def _planned(trial: Trial, recipe: Recipe, terms: Terms, inputs: Inputs) -> Planned:
    setting = setting_of(trial, terms, recipe)
    named = attrs.evolve(trial, id=identity(setting, inputs))
    return named, lambda: head_of_record(setting, inputs)


def _check_any_left(trials: Sequence[Trial]) -> None:
    """Raise the reason why nothing can be pruned, where no trial can meet its budget."""
    reasons = [trial.refused for trial in trials if trial.refused]
    if reasons and not any(trial.prunes and trial.refused is None for trial in trials):
        raise BudgetError(reasons[0])
    if not trials:
        raise DataError("the sweep has no trial; give recipes, grids, or unpruned = true")
