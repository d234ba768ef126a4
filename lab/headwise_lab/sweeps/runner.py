"""Runs the trials of a worker, and keeps model and inputs from one trial to the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.cost.environment import one_thread
from headwise_lab.models.load import Loaded, LoadedLm, load_model
from headwise_lab.store.locations import place
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_types import VisualRecord
from headwise_lab.sweeps.planning import inputs_for, setting_of
from headwise_lab.sweeps.trials import Terms, Trial
from headwise_lab.trial.run import run_trial

L = TypeVar("L", Loaded, LoadedLm)


class ModelRunner:
    """Runs trials; it holds one model at a time, and the inputs of one benchmark at a time."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._model: tuple[str, Loaded] | None = None
        self._inputs: tuple[tuple[str, str, int], Inputs] | None = None

    def run(self, trial: Trial, advance: Callable[[int], None]) -> tuple[VisualRecord, list[QuestionOutcome]]:
        """Record and outcomes of one trial."""
        recipe = Recipe.of(
            *trial.strategies, name=trial.recipe, tokens=trial.tokens, keep=trial.keep, **self._terms.settings
        )
        with threads(self._terms):
            setting, out = setting_of(trial, self._terms, recipe), self._terms.out
            return run_trial(setting, self._inputs_of(trial), None if out is None else place(out), advance)

    def _inputs_of(self, trial: Trial) -> Inputs:
        if self._inputs is None or self._inputs[0] != trial.group:
            self._inputs = None  # freed first: the tensors of two benchmarks may not fit into memory
            inputs = inputs_for(self._loaded(trial.model), trial.benchmark, trial.seed, self._terms)
            self._inputs = trial.group, inputs
        return self._inputs[1]

    def _loaded(self, model: str) -> Loaded:
        if self._model is None or self._model[0] != model:
            self._model = None  # freed first: two models may not fit into memory
            self._model = model, loaded_again(load_model, model, self._terms)
        return self._model[1]


def loaded_again(load: Callable[..., L], model: str, terms: Terms) -> L:
    """The model of a planned trial. Planning has loaded it before, so a ModelError now is a failure, not a refusal."""
    try:
        return load(model, dtype=terms.dtype, device=terms.device, attention=terms.attention)
    except ModelError as error:
        raise RuntimeError(f"the model could not be loaded: {error}") from error


def threads(terms: Terms) -> AbstractContextManager[None]:
    """A context in which torch uses one thread, or as many as it likes."""
    return one_thread() if terms.one_thread else nullcontext()
