"""Asking a language model for passkeys under a recipe: its answers, the probability of the passkeys, and the record."""

from __future__ import annotations

import copy
import hashlib
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

import attrs
import torch
from torch import Tensor

from headwise.attachment import attach
from headwise.errors import ModelError
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_lab.kv.measure import head_of, identified, reads_profile, strategy_text
from headwise_lab.kv.passkey import Prompt
from headwise_lab.models.generation import greedy
from headwise_lab.models.load import LoadedLm
from headwise_lab.stats.means import mean_and_error
from headwise_lab.store.outcome_types import PasskeyOutcome
from headwise_lab.store.record_types import (
    NEEDLE,
    Loss,
    Metric,
    NeedleRecord,
    PasskeyGrid,
    PasskeyScoreAtDepth,
    PasskeyScoreOfLength,
)

NEW_TOKENS = 12  # room for the passkey and for a few words before it


@attrs.frozen(eq=False)
class PasskeyAnswer:
    """The answer to one prompt, whether the passkey is in it, and the mean log-probability of the passkey's tokens."""

    prompt: Prompt
    text: str
    found: bool
    logprob: float


def find_passkeys(
    loaded: LoadedLm,
    recipe: Recipe,
    prompts: Sequence[Prompt],
    grid: PasskeyGrid,
    *,
    batch: int = 4,
    profile: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[NeedleRecord, list[PasskeyOutcome]]:
    """Ask every prompt under ``recipe``; returns the record and one outcome per prompt.

    ``progress`` is called with the number of prompts answered so far.
    """
    started = time.perf_counter()
    answers: list[PasskeyAnswer] = []
    for asked in batches(prompts, batch):
        answers += ask(loaded, recipe, asked)
        if progress is not None:
            progress(len(answers))
    head = head_of(
        loaded, recipe, identity(loaded, recipe, prompts), command_line(loaded, recipe, grid, batch, profile)
    )
    record = attrs.evolve(head, study=NEEDLE, seed=grid.seed).finished(
        NeedleRecord,
        attention_implementation=None,
        attention=loaded.attention,
        grid=grid,
        **summary(answers),
        lengths=[_of_length(group, recipe, loaded) for group in _grouped(answers, lambda one: one.prompt.length)],
        seconds=round(time.perf_counter() - started, 3),
    )
    return record, [_outcome(answer) for answer in answers]


def identity(loaded: LoadedLm, recipe: Recipe, prompts: Sequence[Prompt]) -> str:
    """The record's id: a hash over everything that can change the answers."""
    found = hashlib.sha256()
    for prompt in prompts:
        found.update(f"{prompt.name} {prompt.key} {prompt.ids.tolist()} {prompt.answer.tolist()}\n".encode())
    return identified(loaded, recipe, {"task": "passkey", "prompts": found.hexdigest(), "new_tokens": NEW_TOKENS})


def batches(prompts: Sequence[Prompt], size: int) -> Iterator[list[Prompt]]:
    """At most ``size`` prompts of one length at a time, so that no row needs padding."""
    for _, group in groupby(prompts, key=lambda prompt: prompt.length):
        same = list(group)
        for first in range(0, len(same), size):
            yield same[first : first + size]


@torch.inference_mode()
def ask(loaded: LoadedLm, recipe: Recipe, prompts: Sequence[Prompt]) -> list[PasskeyAnswer]:
    """Greedy answers to prompts of one length, and the log-probability of their passkeys, both from the same cache."""
    ids = torch.stack([prompt.ids for prompt in prompts]).to(loaded.device)
    with attach(loaded.model, recipe):
        read = loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1)
        last, cache = read.logits[:, -1], read.past_key_values
        forced = _log_probabilities(loaded, last, copy.deepcopy(cache), prompts)
        texts = _generated(loaded, ids, last.argmax(dim=-1), cache)
    if not all(map(math.isfinite, forced)):
        raise ModelError("the model gives probabilities that are not finite numbers; try --dtype float32")
    return [
        PasskeyAnswer(prompt, text, prompt.key in text, logprob)
        for prompt, text, logprob in zip(prompts, texts, forced, strict=True)
    ]


def _log_probabilities(loaded: LoadedLm, last: Tensor, cache: Any, prompts: Sequence[Prompt]) -> list[float]:
    """Mean log-probability of each passkey's tokens, each given the tokens before it.

    ``last`` (b, vocabulary): the logits after the prompts that ``cache`` has read.
    """
    longest = max(len(prompt.answer) for prompt in prompts)
    answers = torch.zeros(len(prompts), longest, dtype=torch.int64)  # zeros behind a shorter passkey are not counted
    for row, prompt in enumerate(prompts):
        answers[row, : len(prompt.answer)] = prompt.answer
    answers = answers.to(last.device)
    logits = last.unsqueeze(1)
    if longest > 1:
        further = loaded.model(input_ids=answers[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([logits, further], dim=1)
    found = logits.float().log_softmax(dim=-1).gather(-1, answers.unsqueeze(-1)).squeeze(-1)
    return [float(row[: len(prompt.answer)].mean()) for row, prompt in zip(found, prompts, strict=True)]


def _generated(loaded: LoadedLm, ids: Tensor, first: Tensor, cache: Any) -> list[str]:
    """Greedy answers to prompts (b, n) that ``cache`` has read; ``first`` (b,) are the answers' first tokens."""
    tokenizer = loaded.tokenizer
    chosen = greedy(loaded.model, tokenizer, NEW_TOKENS - 1)
    said = torch.cat([ids, first.unsqueeze(1)], dim=1)
    out = loaded.model.generate(
        input_ids=said, attention_mask=torch.ones_like(said), past_key_values=cache, generation_config=chosen
    )
    ends = chosen.eos_token_id
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    texts: list[str] = tokenizer.batch_decode(
        [_until(row, stops) for row in out[:, ids.shape[1] :].tolist()], skip_special_tokens=True
    )
    return texts


def _until(tokens: list[int], stops: set[int]) -> list[int]:
    """The tokens before the first stop."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in stops), len(tokens))]


class Figures(TypedDict):
    """Figures over the answers to all prompts, or to some of them."""

    n: int
    metric: Metric
    logprob: Loss


def summary(answers: Sequence[PasskeyAnswer]) -> Figures:
    """Share of passkeys found with its binomial standard error, and the mean log-probability of their tokens."""
    count, share = len(answers), fmean(answer.found for answer in answers)
    logprob, error = mean_and_error([answer.logprob for answer in answers])
    return {
        "n": count,
        "metric": Metric(name="passkeys found", value=share, se=math.sqrt(share * (1 - share) / count)),
        "logprob": Loss(mean=logprob, se=error if count > 1 else None),
    }


def _of_length(answers: Sequence[PasskeyAnswer], recipe: Recipe, loaded: LoadedLm) -> PasskeyScoreOfLength:
    """Figures of one length: over all its prompts, and by depth."""
    length = answers[0].prompt.length
    return PasskeyScoreOfLength(
        length=length,
        **summary(answers),
        context=Pipeline(recipe).eviction(loaded.geometry).context(length),
        depths=[
            PasskeyScoreAtDepth(depth=group[0].prompt.depth, **summary(group))
            for group in _grouped(answers, lambda one: one.prompt.depth)
        ],
    )


def _grouped(answers: Sequence[PasskeyAnswer], key: Callable[[PasskeyAnswer], float]) -> list[list[PasskeyAnswer]]:
    return [list(group) for _, group in groupby(answers, key=key)]


def _outcome(answer: PasskeyAnswer) -> PasskeyOutcome:
    prompt = answer.prompt
    return PasskeyOutcome(
        id=prompt.name,
        score=float(answer.found),
        right=answer.found,
        logprob=answer.logprob,
        length=prompt.length,
        depth=prompt.depth,
        key=prompt.key,
        answer=answer.text,
    )


def command_line(loaded: LoadedLm, recipe: Recipe, grid: PasskeyGrid, batch: int, profile: Path | None) -> str:
    """The ``headwise needle`` command that makes only this record."""
    words = ["needle", "--model", loaded.source, "--strategy", strategy_text(recipe)]
    if recipe.profile is not None and reads_profile(recipe):
        words += ["--profile", str(profile or "PROFILE")]
    words += ["--lengths", ",".join(map(str, grid.lengths)), "--depths", str(grid.depths)]
    words += ["--repeats", str(grid.repeats), "--filler", grid.filler, "--seed", str(grid.seed), "--batch", str(batch)]
    return shlex.join(["headwise", *words, *loaded.options])
