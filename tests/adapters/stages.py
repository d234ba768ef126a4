"""What tests of model families share: one stage that looks at the evidence, what was kept, rows of a batch alone."""

from __future__ import annotations

import attrs
from tests.adapters.vision_models import IMAGE, batch

import headwise
from headwise.plan import PruningPlan, Stage
from headwise.recipe import Recipe
from headwise.registry import Strategy

SAMPLED = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "suppress_tokens": [IMAGE]}


@attrs.frozen
class OneStage:
    """A token-pruning strategy that is one stage, choosing by any function of the evidence."""

    stage: Stage

    @headwise.hookimpl
    def token_pruning(self, geometry):
        return PruningPlan(geometry, (self.stage,))


def one_stage(select, keep, layer=0, **settings) -> Recipe:
    strategy = Strategy("token_pruning", "one_stage", "this test", OneStage(Stage(layer, keep, select, **settings)))
    strategies = {**Recipe.of("token_pruning=none").strategies, "token_pruning": strategy}
    return Recipe(strategies=strategies, budget=headwise.Budget(keep=keep))


class Watch:
    """Observes every selection, in a list of its own or in ``kept``."""

    def __init__(self, kept: list | None = None):
        self.kept = [] if kept is None else kept

    @headwise.hookimpl
    def selected(self, selection):
        self.kept.append(selection)


def check_rows_of_a_batch_equal_single_rows(model, recipe, prompts):
    """Generated tokens of padded prompts are those of each prompt alone."""
    together = batch(prompts, "left")
    with headwise.attach(model, recipe):
        found = model.generate(**together, **SAMPLED)[:, together["input_ids"].shape[1] :]
        for row, prompt in zip(found, prompts, strict=True):
            alone = model.generate(**prompt.inputs, **SAMPLED)[0, prompt.ids.shape[1] :]
            assert row.tolist() == alone.tolist()
