"""A static weight for every attention head, measured on questions with known answers.

The method follows HAWK (CVPR 2026, arXiv 2604.07812): heads are left out one at a time, the cost of that is the head's
importance, and importances are normalised to sum 1. HAWK's cost is the drop of benchmark scores; it has one weight per
head number for all layers, and averages over benchmarks. Here the cost is the rise of the answer's negative
log-likelihood, because it tells heads apart on a hundred questions, where a score does not. Every layer has weights of
its own, and all questions are from one benchmark. A head may also be needed for work that has nothing to do with the
picture; therefore the rise is by default multiplied by the share of the head's attention that goes to the image.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headwise.errors import DataError
from headwise.head_weights import HeadWeights
from headwise.heads import Floats
from headwise_adapters.heads.ablation import Ablation, ablate
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.inputs import Inputs, placed
from headwise_lab.benchmarks.prompting import encode, prompt
from headwise_lab.cost.environment import versions

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def calibrate(
    inputs: Inputs,
    layers: Sequence[int],
    *,
    by_mass: bool = True,
    source: dict[str, object] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> HeadWeights:
    """Weights of the heads of some ``layers``, measured on all questions of ``inputs``.

    ``by_mass``: multiply by attention to the image. ``source`` is added to the weights' own source. ``advance`` is
    called with the number of questions after every head that was left out. Raises DataError for fewer than two
    questions, or an answer without a token.
    """
    if len(inputs) < 2:
        raise DataError("calibration needs at least two questions, because errors come from how they differ")
    loaded, geometry, parts = inputs.loaded, inputs.loaded.geometry, []
    for first in range(0, len(inputs), inputs.batch):
        questions = inputs.questions[first : first + inputs.batch]
        tensors, answer = answered(loaded.processor, questions)
        tensors = placed(tensors, loaded)
        done = partial(advance, len(questions))
        parts.append(ablate(loaded.model, tensors, answer.to(loaded.device), layers, done))
    found = Ablation.joined(parts)
    measured = {"weights": weights_of(found, by_mass=by_mass), **_statistics(found)}
    full = {name: _all_layers(values, layers, geometry.layers) for name, values in measured.items()}
    return HeadWeights(
        model=loaded.name,
        weights=full.pop("weights"),
        statistics=full,
        source={**_source(inputs), "loss": float(found.loss.mean()), "by_mass": by_mass, **(source or {})},
    )


def weights_of(found: Ablation, *, by_mass: bool = True) -> Floats:
    """Mean rise of the loss, at least 0, times mean attention to the image, divided by the layer's sum: (k, h).

    Where the sum of a layer is 0, its heads have equal weights.
    """
    worth = found.rise.mean(axis=0).clip(min=0)
    if by_mass:
        worth = worth * found.mass.mean(axis=0)
    total = worth.sum(axis=1, keepdims=True)
    even = np.full_like(worth, 1 / worth.shape[1])
    weights: Floats = np.divide(worth, total, out=even, where=total > 0)
    return weights


def answered(processor: ProcessorMixin, questions: Sequence[Question]) -> tuple[Any, Tensor]:
    """A model's inputs for questions and their answers, and which tokens are answers, bool (b, n).

    Of several answers to a question, the most frequent is taken. Questions are padded on the left, answers on the
    right.
    """
    tensors = encode(processor, questions)
    ids = [_answer_ids(processor, question) for question in questions]
    width = max(map(len, ids))
    real = torch.tensor([[place < len(own) for place in range(width)] for own in ids])
    padded = torch.tensor([own + [processor.tokenizer.pad_token_id] * (width - len(own)) for own in ids])
    shape = tensors["input_ids"].shape
    for name in [name for name, value in tensors.items() if getattr(value, "shape", None) == shape]:
        more = {"input_ids": padded, "attention_mask": real.to(tensors[name].dtype)}.get(name, torch.zeros_like(padded))
        tensors[name] = torch.cat([tensors[name], more], dim=1)
    return tensors, torch.cat([torch.zeros(shape, dtype=torch.bool), real], dim=1)


def _answer_ids(processor: ProcessorMixin, question: Question) -> list[int]:
    """The answer's tokens after the prompt; raises DataError where they merge with the prompt's."""
    (answer, _), *_ = Counter(question.answers).most_common(1)
    asked = prompt(processor, question.text)
    between = "" if asked[-1:].isspace() else " "
    before, after = (processor.tokenizer(text).input_ids for text in (asked, f"{asked}{between}{answer}"))
    ids: list[int] = after[len(before) :]
    if not ids or after[: len(before)] != before:
        raise DataError(f"answer {answer!r} of question {question.id} has no tokens of its own after the prompt")
    return ids


def _statistics(found: Ablation) -> dict[str, Floats]:
    """Means over questions, and the standard error of the rise: (k, h) each."""
    return {
        "rise": found.rise.mean(axis=0),
        "error": found.rise.std(axis=0, ddof=1) / math.sqrt(len(found.rise)),
        "mass": found.mass.mean(axis=0),
    }


def _all_layers(values: Floats, layers: Sequence[int], count: int) -> Floats:
    """Rows (k, h) at their layers (count, h), the others NaN."""
    full = np.full((count, values.shape[1]), np.nan)
    full[list(layers)] = values
    return full


def _source(inputs: Inputs) -> dict[str, object]:
    """Where the weights were measured."""
    return {
        "benchmark": inputs.benchmark.name,
        "questions": inputs.digest,
        "n": len(inputs),
        "weights": inputs.loaded.weights,
        "dtype": inputs.loaded.dtype,
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
