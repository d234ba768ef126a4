"""What strategies may return, checked in one place: what is wrong becomes one sentence that names its owner.

Each function takes what a strategy returned and gives it back with its type known. ``who`` names the strategy
(:attr:`headwise.registry.Strategy.who`). Limits are asked so that NaN fails them, ``not (x <= limit).all()``, because
every comparison with NaN is False.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from numbers import Integral

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headwise.budget import Budget
from headwise.errors import ContractError, DataError
from headwise.eviction import EvictionPlan, ScorePlan, WindowPlan
from headwise.geometry import Geometry
from headwise.heads import HeadLabels, check_labels
from headwise.hints import number_of, within
from headwise.hookspecs import HOOKS
from headwise.layout import PADDING, Layout
from headwise.plan import UNUSED, Merged, PruningPlan, Queries
from headwise.reading import shown

TOLERANCE = 1e-3
"""How far weights that must sum to 1 may miss it: half precision is allowed, forgetting to normalise is not."""

WANTED = {
    "query_selection": "headwise.plan.Queries",
    "head_scoring": "scores (batch, heads)",
    "head_count": "integers (batch,)",
    "token_pruning": "a headwise.plan.PruningPlan",
    "kv_eviction": "a headwise.eviction.WindowPlan or ScorePlan",
    "head_classification": "headwise.heads.HeadLabels",
}
"""Hook -> what its strategies return, in words."""
assert set(WANTED) == set(HOOKS)


def answer_of(hook: str, answer: object, who: str) -> object:
    """The answer of a hook, whatever it is; raises ContractError where there is none."""
    if answer is None:
        raise ContractError(f"{who} returned None; wanted {WANTED[hook]}")
    return answer


def pruning_plan(answer: object, geometry: Geometry, budget: Budget, who: str) -> PruningPlan:
    """A plan for this geometry that spends this budget: the average within a token, ``keep`` exactly.

    Raises ContractError for anything else.
    """
    if not isinstance(answer, PruningPlan):
        raise ContractError(f"{who} returned {_kind(answer)}; wanted {WANTED['token_pruning']}")
    _check_geometry(answer.geometry, geometry, who)
    if budget.keep is not None and answer.kept != budget.keep:
        raise ContractError(f"{who} was given {budget.text} and leaves {answer.kept} tokens after its last stage")
    if budget.tokens is not None and not abs(answer.average - budget.tokens) <= 1:
        raise ContractError(
            f"{who} was given {budget.text} and plans an average of {answer.average:.4g} per layer; wanted within a"
            " token"
        )
    return answer


def eviction_plan(answer: object, geometry: Geometry, who: str) -> EvictionPlan:
    """A plan of windows or of scores for this geometry; raises ContractError for anything else."""
    if not isinstance(answer, WindowPlan | ScorePlan):
        raise ContractError(f"{who} returned {_kind(answer)}; wanted {WANTED['kv_eviction']}")
    _check_geometry(answer.geometry, geometry, who)
    return answer


def entry_scores(scores: object, positions: Tensor, who: str) -> Tensor:
    """A score for each entry of a cache, (b, kv_heads, n) as ``positions``; raises ContractError, also for NaN."""
    found = _tensor(scores, tuple(positions.shape), who, "entry scores")
    if torch.isnan(found).any():
        raise ContractError(f"{who} returned NaN entry scores; wanted numbers")
    return found


def head_labels(answer: object, geometry: Geometry, who: str) -> HeadLabels:
    """Labels of all heads, (layers, heads), complete and in range; raises ContractError for anything else."""
    if not isinstance(answer, HeadLabels):
        raise ContractError(f"{who} returned {_kind(answer)}; wanted {WANTED['head_classification']}")
    try:
        check_labels(answer, (geometry.layers, geometry.heads))
    except DataError as error:
        raise ContractError(f"{who} returned labels that do not fit: {error}") from error
    return answer


def query_tokens(answer: object, layout: Layout, who: str) -> Queries:
    """Queries of every row of a layout, none of them padding, out of range or named twice.

    Raises ContractError for anything else.
    """
    if not isinstance(answer, Queries):
        raise ContractError(f"{who} returned {_kind(answer)}; wanted {WANTED['query_selection']}")
    positions = answer.positions
    if positions.ndim != 2 or positions.shape[0] != len(layout) or positions.shape[1] == 0:
        raise ContractError(f"{who} returned positions of shape {positions.shape}; wanted ({len(layout)}, queries)")
    for row, found in enumerate(positions):
        _check_row(found[found != UNUSED], row, layout, who)
    if not callable(answer.weights):
        if answer.weights.shape != positions.shape:
            raise ContractError(f"{who} gave weights {answer.weights.shape} for positions {positions.shape}")
        _check_weights(answer.weights, positions, who)
    return answer


def query_weights(weights: object, positions: npt.NDArray[np.int64], who: str) -> Tensor:
    """Weights (b, q) that a function made from attention: shares of 1 per row, 0 where unused.

    Raises ContractError for anything else.
    """
    found = _tensor(weights, positions.shape, who, "query weights")
    _check_weights(found.detach().cpu().double().numpy(), positions, who)
    return found


def head_scores(scores: object, batch: int, heads: int, who: str) -> Tensor:
    """Scores (b, h) as float32, any numbers so far (:func:`comparable`); raises ContractError for anything else."""
    return _tensor(scores, (batch, heads), who, "scores").float()


def comparable(scores: Tensor, who: str) -> Tensor:
    """Head scores (b, h) that can be ranked; raises ContractError for NaN and for plus infinity."""
    if not (scores < float("inf")).all():
        raise ContractError(f"{who} returned NaN or infinite scores; wanted finite ones, or -inf to veto")
    return scores


def head_notes(notes: Mapping[str, Sequence[object]], batch: int, who: str) -> Mapping[str, Sequence[object]]:
    """Notes with one value for each row; raises ContractError for more or fewer."""
    for key, values in notes.items():
        count = len(values) if isinstance(values, Sized) else 0
        if count != batch:
            raise ContractError(f"{who} noted {count} values of {key!r} for {batch} rows; wanted one for each row")
    return notes


def head_target(target: object, heads: int, who: str) -> int | None:
    """The head count that is known beforehand, 1..heads, or None; raises ContractError for anything else."""
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, Integral) or not 1 <= int(target) <= heads:
        raise ContractError(
            f"{who} has target({heads})={shown(target)}; wanted a whole number in {within(1, heads)}, or None"
        )
    return int(target)


def head_counts(counts: object, batch: int, heads: int, who: str) -> Tensor:
    """Integers (b,) in 1..heads; raises ContractError for anything else."""
    found = _tensor(counts, (batch,), who, "head counts")
    if found.is_floating_point():
        raise ContractError(f"{who} returned head counts of dtype {found.dtype}; wanted integers")
    wrong = found[(found < 1) | (found > heads)]
    if wrong.numel():
        raise ContractError(
            f"{who} wants {number_of(int(wrong[0]), 'head')}; this model has {within(1, heads)} to choose from"
        )
    return found


def stage_outcome(outcome: object, batch: int, visual: int, keep: int, who: str) -> Tensor | Merged:
    """Token scores (b, v), kept positions (b, keep) or :class:`headwise.plan.Merged`.

    Raises ContractError for anything else: NaN, positions out of range or repeated, weights that are not finite.
    """
    if isinstance(outcome, Merged):
        _check_merged(outcome, (batch, keep, visual), who)
    elif not isinstance(outcome, Tensor):
        raise ContractError(f"{who} selected with {_kind(outcome)}; wanted token scores, kept positions or Merged")
    elif outcome.is_floating_point():
        _tensor(outcome, (batch, visual), who, "token scores")
        if torch.isnan(outcome).any():
            raise ContractError(f"{who} returned NaN token scores; wanted numbers")
    else:
        _check_positions(outcome, (batch, keep), visual, who, "kept positions")
    return outcome


def _check_geometry(found: Geometry, wanted: Geometry, who: str) -> None:
    if found != wanted:
        raise ContractError(f"{who} planned for {found.name}; wanted {wanted.name}")


def _check_merged(outcome: Merged, shape: tuple[int, int, int], who: str) -> None:
    batch, keep, visual = shape
    _check_positions(outcome.positions, (batch, keep), visual, who, "places of merged tokens")
    weights = _tensor(outcome.weights, shape, who, "merging weights")
    if not weights.is_floating_point() or not torch.isfinite(weights).all():
        raise ContractError(
            f"{who} returned merging weights that are not finite numbers; wanted float ({batch}, {keep}, {visual})"
        )


def _check_positions(positions: object, shape: tuple[int, int], visual: int, who: str, what: str) -> None:
    found = _tensor(positions, shape, who, what)
    if found.is_floating_point():
        raise ContractError(f"{who} kept positions of dtype {found.dtype}; wanted integers")
    ordered = found.sort(dim=-1).values
    wrong = ordered[(ordered < 0) | (ordered >= visual)]
    if wrong.numel():
        raise ContractError(f"{who} kept position {int(wrong[0])}; wanted 0..{visual - 1}")
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ContractError(f"{who} kept a position twice; wanted {shape[-1]} different ones")


def _check_row(used: npt.NDArray[np.int64], row: int, layout: Layout, who: str) -> None:
    """The query tokens of one row: at least one, real tokens, all different."""
    if used.size == 0:
        raise ContractError(f"{who} chose no query token for row {row}; wanted at least one")
    wrong = used[(used < 0) | (used >= layout.length)]
    if wrong.size:
        raise ContractError(f"{who} chose position {wrong[0]} of row {row}; wanted 0..{layout.length - 1}")
    if (layout.kinds[row, used] == PADDING).any():
        raise ContractError(f"{who} chose padding as a query token in row {row}; wanted real tokens")
    if np.unique(used).size != used.size:
        raise ContractError(f"{who} chose a query token of row {row} twice; wanted different ones")


def _check_weights(weights: npt.NDArray[np.float64], positions: npt.NDArray[np.int64], who: str) -> None:
    if not ((weights >= 0) & np.isfinite(weights)).all():
        raise ContractError(f"{who} gave query weights that are negative or not finite")
    if (weights[positions == UNUSED] != 0).any():
        raise ContractError(f"{who} gave weight to an unused query slot")
    if not (abs(weights.sum(axis=1) - 1) <= TOLERANCE).all():
        raise ContractError(f"{who} gave query weights that sum to {weights.sum(axis=1).round(4).tolist()}; wanted 1")


def _tensor(value: object, shape: tuple[int, ...], who: str, what: str) -> Tensor:
    """A tensor of real numbers of this shape."""
    if not isinstance(value, Tensor):
        raise ContractError(f"{who} returned {_kind(value)} as {what}; wanted a tensor of shape {shape}")
    if tuple(value.shape) != shape:
        raise ContractError(f"{who} returned {what} of shape {tuple(value.shape)}; wanted {shape}")
    if value.is_complex() or value.dtype == torch.bool:
        raise ContractError(f"{who} returned {what} of dtype {value.dtype}; wanted real numbers")
    return value


def _kind(value: object) -> str:
    """A value's class with its article: "a list", "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
