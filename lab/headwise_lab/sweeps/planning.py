"""All visual trials of a sweep, each with its identity, checked before the first one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from headwise.errors import HeadwiseError
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise_lab.benchmarks import benchmark, synthetic
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.questions import questions_of
from headwise_lab.models.load import Loaded, load_model
from headwise_lab.models.placing import settled
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.cases import budgets_for, cases
from headwise_lab.sweeps.labels import label
from headwise_lab.sweeps.plan import Head, Plan, check_any_left, plan_of
from headwise_lab.sweeps.schema import SweepFile
from headwise_lab.sweeps.studies import Case, recipes
from headwise_lab.sweeps.trials import Terms, Trial, Work
from headwise_lab.trial.record import Setting, head_of_record, identity
from headwise_lab.trial.run import check

__all__ = ["Plan", "inputs_for", "looked_at", "planned", "setting_of", "terms_of", "trials_on"]

Planned = tuple[Trial, Head]


def planned(
    sweep: SweepFile,
    load: Callable[..., Loaded] = load_model,
    *,
    study: str | None = None,
    may_refuse: type[HeadwiseError] = HeadwiseError,
) -> Plan:
    """Plan a sweep; raises HeadwiseError where a model or data cannot be had, or no trial that prunes is feasible.

    ``study``: what records name as theirs.
    ``may_refuse``: errors of this class are the reason why a trial cannot be run; others are raised.
    """
    terms = terms_of(sweep, study)
    found: list[Planned] = []
    remarks: list[str] = []
    for model in sweep.models:
        loaded = looked_at(model, terms, load)
        remarks += budgets_for(sweep, loaded.geometry)[1]
        for name in sweep.benchmarks or synthetic():
            asked = cases(sweep, name, loaded.geometry)
            found += trials_on(loaded, name, asked, _seeds(sweep, name), terms, may_refuse=may_refuse)
    plan = plan_of(sweep.title or "Sweep", Work(terms=terms), found, remarks)
    check_any_left([plan])
    return plan


def terms_of(sweep: SweepFile, study: str | None) -> Terms:
    """What a sweep file says about all of its trials; ``auto`` is what this machine makes of it, wherever they run."""
    dtype, device = settled(sweep.dtype, sweep.device)
    return Terms(
        limit=sweep.limit,
        batch=sweep.batch,
        timed_batches=sweep.timed_batches,
        timed_in_turns=sweep.timed_in_turns,
        dtype=dtype,
        device=device,
        attention=sweep.attention,
        data=sweep.data,
        study=study,
        settings={name: value for name, value in attrs.asdict(sweep.settings).items() if value is not None},
    )


def looked_at(model: str, terms: Terms, load: Callable[..., Loaded] = load_model) -> Loaded:
    """A model's counts and the digest of its weights: it is loaded once, on the CPU, and let go again."""
    loaded = load(model, dtype=terms.dtype, device="cpu", attention=terms.attention)
    return attrs.evolve(loaded, model=None, processor=None, device=terms.device)


def trials_on(
    loaded: Loaded,
    name: str,
    asked: Sequence[Case],
    seeds: Sequence[int],
    terms: Terms,
    *,
    may_refuse: type[HeadwiseError] = HeadwiseError,
) -> Iterator[Planned]:
    """The trials of cases on one benchmark, seed by seed."""
    built = recipes(asked, **terms.settings)
    outlooks = [_outlook(recipe, loaded, may_refuse) for recipe in built]
    for seed in seeds:
        inputs = inputs_for(loaded, name, seed, terms)
        inputs.check()
        for case, recipe, outlook in zip(asked, built, outlooks, strict=True):
            yield _planned(_trial(case, recipe, outlook, inputs, seed), recipe, terms, inputs)


def setting_of(trial: Trial, terms: Terms, recipe: Recipe) -> Setting:
    """What is tried beside model and questions."""
    return Setting(
        recipe=recipe,
        seed=trial.seed,
        limit=terms.limit,
        study=terms.study,
        data=terms.data,
        timed_batches=terms.timed_batches,
        timed_in_turns=terms.timed_in_turns,
    )


def inputs_for(loaded: Loaded, name: str, seed: int, terms: Terms) -> Inputs:
    """A benchmark's questions for a model."""
    found = benchmark(name)
    return Inputs(loaded, found, questions_of(found, data=terms.data, limit=terms.limit, seed=seed), terms.batch)


def _seeds(sweep: SweepFile, name: str) -> Sequence[int]:
    """Questions that come from files do not depend on a seed, so one is enough for them."""
    fixed = sweep.data is not None or getattr(benchmark(name), "needs_data", False)
    return sweep.seeds[:1] if fixed else sweep.seeds


def _outlook(recipe: Recipe, loaded: Loaded, may_refuse: type[HeadwiseError]) -> PruningPlan | HeadwiseError:
    """What a recipe would do, or why it cannot: a budget out of reach, too many heads."""
    try:
        return check(recipe, loaded.geometry)
    except may_refuse as error:
        return error


def _trial(case: Case, recipe: Recipe, outlook: PruningPlan | HeadwiseError, inputs: Inputs, seed: int) -> Trial:
    refused = str(outlook) if isinstance(outlook, HeadwiseError) else None
    return Trial(
        id="",
        label=label(case.benchmark, recipe, None if isinstance(outlook, HeadwiseError) else outlook),
        model=inputs.loaded.source,
        benchmark=case.benchmark,
        seed=seed,
        strategies=case.strategies,
        recipe=case.recipe,
        tokens=case.budget.tokens,
        keep=case.budget.keep,
        questions=len(inputs),
        refused=refused,
    )


def _planned(trial: Trial, recipe: Recipe, terms: Terms, inputs: Inputs) -> Planned:
    setting = setting_of(trial, terms, recipe)
    named = attrs.evolve(trial, id=identity(setting, inputs))

    def head() -> Record:
        return head_of_record(setting, inputs)

    return named, head
