"""How a sweep's worker reads texts: its language model stays loaded from one trial to the next."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch

from headwise.errors import DataError
from headwise.heads import HeadProfile
from headwise_lab.kv.measure import command_line, measure_text
from headwise_lab.kv.profiling import trained_context
from headwise_lab.kv.recipes import eviction_recipe
from headwise_lab.models.load import LoadedLm, load_language_model
from headwise_lab.store.outcome_types import TokenOutcome
from headwise_lab.store.record_types import TextRecord
from headwise_lab.sweeps.runner import loaded_again, threads
from headwise_lab.sweeps.trials import Terms, Trial
from headwise_lab.texts.tokens import Text


class TextRunner:
    """Has one model at a time read the text of ``terms.reading``, which holds the text and the head profile."""

    def __init__(self, terms: Terms) -> None:
        reading = terms.reading
        if reading is None:
            raise DataError("the terms of this sweep have no text to read; plan it with headwise_lab.kv.planning")
        ids = torch.tensor(reading.ids, dtype=torch.int64)
        self._text = Text(reading.name, reading.digest, ids, reading.source)
        self._profile = None if reading.profile is None else HeadProfile.from_plain(reading.profile)
        self._terms, self._reading = terms, reading
        self._model: tuple[str, LoadedLm] | None = None

    def run(self, trial: Trial, advance: Callable[[int], None]) -> tuple[TextRecord, list[TokenOutcome]]:
        """Record and outcomes of one trial."""
        loaded = self._loaded(trial.model)
        (strategy,) = trial.strategies
        recipe = eviction_recipe(strategy, self._profile)
        with threads(self._terms):
            record, outcomes = measure_text(
                loaded,
                self._text,
                recipe,
                name=trial.case,
                group=trial.case_group,
                study=self._terms.study,
                command=command_line(loaded, self._text, recipe, profile=self._reading.profile_path),
                progress=_steps(advance),
            )
        trained = trained_context(loaded.model)
        return attrs.evolve(record, scale=self._reading.scale, trained_context=trained), outcomes

    def _loaded(self, model: str) -> LoadedLm:
        if self._model is None or self._model[0] != model:
            self._model = None  # frees the model before the next is loaded: both may not fit
            self._model = model, loaded_again(load_language_model, model, self._terms)
        return self._model[1]


def _steps(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Turns the number of tokens read so far into the number read since the last call."""
    before = 0

    def reached(tokens: int) -> None:
        nonlocal before
        advance(tokens - before)
        before = tokens

    return reached
