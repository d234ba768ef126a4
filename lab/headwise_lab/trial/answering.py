"""Asking a model the questions of a benchmark under a recipe. No answer is lost, and errors name the bad question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from headwise.attachment import Attachment, attach
from headwise.errors import DataError, HeadwiseError
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Batch, Inputs, placed
from headwise_lab.benchmarks.prompting import encode, failing
from headwise_lab.cost.timing import generate
from headwise_lab.models.checkpoints import first_line
from headwise_lab.trial.answers import Answer, Answers

NEW_TOKENS = 16  # benchmark answers are a word or a phrase
INSIDE_THE_TOWER = ("vision", "clip")
"""Evidence that a stage can read only while the vision tower runs."""


@attrs.frozen
class Shared:
    """What trials of other recipes compute in the same way: the first ``layers`` layers, and the vision ``tower``."""

    layers: int = 0
    tower: bool = True


def shared_by(attached: Attachment) -> Shared:
    """What an attached recipe does not change: the layers before its first stage, unless it evicts KV entries.

    The tower runs again where a strategy reads evidence inside it. A recipe without stages shares no layers.
    """
    stages = attached.plan.stages
    return Shared(
        layers=stages[0].layer if stages and attached.eviction.keeps_everything else 0,
        tower=not any(reads in stage.reads for stage in stages for reads in INSIDE_THE_TOWER),
    )


def new_tokens(inputs: Inputs) -> int:
    """The most tokens of an answer: what the benchmark says, or enough for a phrase."""
    return int(getattr(inputs.benchmark, "new_tokens", NEW_TOKENS))


def answered(
    recipe: Recipe,
    inputs: Inputs,
    answers: Answers,
    recorder: Any,
    *,
    observers: Sequence[Any] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[Answer], Attachment]:
    """An answer to every question, in order, and the attachment under which they were given.

    Questions whose answers are in ``answers`` are not asked again, and the answers of every batch are added to it.
    Raises DataError, with id and picture, for a question that the model cannot be asked; if the check beforehand shows
    it, nothing is asked.
    """
    inputs.check()
    found = answers.held(inputs.questions)
    with attach(inputs.loaded.model, recipe, observers=[recorder, *observers]) as attached:
        shared = shared_by(attached)
        for first in inputs.starts():
            numbers = range(first, min(first + inputs.batch, len(inputs)))
            if any(number not in found for number in numbers):
                said = ask(inputs, inputs.batch_of(first), recorder, shared)
                answers.add(first, inputs.questions[first : first + inputs.batch], said)
                found |= dict(zip(numbers, said, strict=True))
            advance(len(numbers))
    return [found[number] for number in range(len(inputs))], attached


@torch.inference_mode()
def ask(inputs: Inputs, batch: Batch, recorder: Any, shared: Shared = Shared()) -> list[Answer]:
    """The model's answers to one batch, each with the tokens that were kept."""
    loaded = inputs.loaded
    try:
        with inputs.prefix.remembered(batch.first, shared.layers, tower=shared.tower):
            ids = generate(loaded, batch.on(loaded), new_tokens(inputs))
    except (HeadwiseError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _named(inputs, batch, error) from error
    predictions = loaded.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    seen = recorder.take()
    rows = zip(predictions, batch.visual, batch.text, strict=True)
    return [_answer(said.strip(), visual, text, seen.get(row)) for row, (said, visual, text) in enumerate(rows)]


def _answer(prediction: str, visual: int, text: int, seen: Any) -> Answer:
    """The answer of one row; ``seen`` is None where nothing was chosen, so that every token stayed."""
    if seen is None:
        return Answer(prediction=prediction, kept=list(range(visual)), visual=visual, text=text)
    choices = {name: getattr(seen, name) for name in ("kept", "stages", "heads", "notes", "concentration", "entropy")}
    return Answer(prediction=prediction, visual=visual, text=text, **choices)


def _named(inputs: Inputs, batch: Batch, error: Exception) -> DataError:
    """The error for a batch that the model failed on: it names the first question that also fails alone, else all."""
    loaded, questions = inputs.loaded, inputs.questions[batch.first : batch.first + len(batch.visual)]
    named, cause = failing(
        questions, lambda one: generate(loaded, placed(encode(loaded.processor, [one]), loaded), 1), error
    )
    return DataError(f"the model cannot answer {named}: {type(cause).__name__}: {first_line(cause)}")
