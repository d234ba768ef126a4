"""Which heads decide and which tokens stay, given scores: ties, vetoes, tokens that must stay. One place, one rule."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headwise.attention_math import ranking
from headwise.errors import BudgetError
from headwise.plan import HeadChoice, Kept, Merged


def without_sinks(attention: Tensor, sink_share: float) -> Tensor:
    """Attention (b, h, v) in which the sink tokens get none: a head should not win by staring at a sink.

    A sink draws more than ``sink_share`` (0..1) of a row's attention to the image, averaged over heads; 1 hides none.
    """
    if sink_share >= 1:
        return attention
    shares = attention / attention.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)
    return attention.masked_fill(shares.mean(dim=1, keepdim=True) > sink_share, 0.0)


def vetoed_below(scores: Tensor, attention: Tensor, min_mass: float) -> Tensor:
    """Scores (b, h) with -inf for heads that put less than ``min_mass`` (0..1) of their attention on the image.

    ``attention`` (b, h, v). A row in which no head has that much keeps its scores.
    """
    if min_mass <= 0:
        return scores
    dim = attention.sum(dim=-1) < min_mass
    dim &= ~(dim | torch.isneginf(scores)).all(dim=-1, keepdim=True)
    return scores.masked_fill(dim, float("-inf"))


def best_heads(scores: Tensor, counts: Tensor) -> Tensor:
    """The ``counts`` (b,) best heads of scores (b, h) that are not vetoed, at least one: bool (b, h).

    Of equal scores the lower head index is kept.
    """
    order = ranking(scores)
    rank = order.argsort(dim=-1)
    kept = (rank < counts.to(scores.device).unsqueeze(-1)) & ~torch.isneginf(scores)
    return kept | ((rank == 0) & ~kept.any(dim=-1, keepdim=True))


def aggregated(attention: Tensor, choice: HeadChoice, aggregate: str) -> Tensor:
    """Attention (b, h, v) of the kept heads as one score per token (b, v); ``aggregate`` as in ``Recipe``."""
    if aggregate == "normalised":
        mass = attention.sum(dim=-1, keepdim=True)
        attention = attention / mass.clamp_min(torch.finfo(attention.dtype).tiny)
    if aggregate == "weighted":
        weights = choice.scores.masked_fill(~choice.kept, float("-inf")).softmax(dim=-1)
    else:
        weights = choice.kept / choice.kept.sum(dim=-1, keepdim=True)
    return torch.einsum("bhv,bh->bv", attention, weights.to(attention))


def kept(outcome: Tensor | Merged, keep: int, read: Tensor | None) -> Kept:
    """The tokens that stay by a stage's outcome: scores (b, v), positions (b, keep) best first, or ``Merged``.

    ``read``, bool (b, v): tokens whose output the caller waits for; they stay as they are.
    """
    if isinstance(outcome, Merged):
        return _merged(outcome, read)
    if outcome.is_floating_point():
        return Kept(top(outcome, keep, read), scores=outcome)
    return Kept(_with_read(outcome, read).sort(dim=-1).values)


def top(scores: Tensor, keep: int, read: Tensor | None = None) -> Tensor:
    """Positions of the ``keep`` highest scores, ascending; equal scores go to the lower position: (b, v) -> (b, keep).

    Those that are ``read``, bool (b, v), come before all others.
    """
    order = ranking(scores)
    if read is not None:
        first = ranking(read.to(order.device).gather(1, order))
        order = order.gather(1, first)
    return order[:, :keep].sort(dim=-1).values


def check_read(read: Tensor, keep: int, layer: int) -> None:
    """Raise BudgetError for a stage before ``layer`` that keeps fewer tokens than are ``read``, bool (b, v)."""
    most = int(read.sum(dim=-1).max())
    if most > keep:
        raise BudgetError(
            f"{most} visual tokens of a prompt are read (its last token, what logits_to_keep names, or what labels"
            f" supervise) and the stage before layer {layer} keeps {keep}; keep more, or read fewer: a text behind the"
            " image, labels of -100 on it"
        )


def _with_read(positions: Tensor, read: Tensor | None) -> Tensor:
    """Positions (b, keep), best first, in which tokens that are ``read`` take the places of the last that are not."""
    if read is None:
        return positions
    positions = positions.clone()
    for row, wanted in zip(positions, read.cpu(), strict=True):
        missing = sorted(set(wanted.nonzero().flatten().tolist()) - set(row.tolist()))
        free = [place for place in range(len(row) - 1, -1, -1) if not wanted[row[place]]]
        for place, token in zip(free, missing, strict=False):
            row[place] = token
    return positions


def _merged(outcome: Merged, read: Tensor | None) -> Kept:
    """A merging outcome with its places in ascending order; a token that is read stays as it is."""
    visual = outcome.weights.shape[-1]
    positions, order = _with_read(outcome.positions, read).sort(dim=-1)
    weights = outcome.weights.gather(1, order.unsqueeze(-1).expand(-1, -1, visual))
    if read is not None:
        itself = one_hot(positions.long(), visual).to(weights)
        weights = torch.where(read.to(positions.device).gather(1, positions.long()).unsqueeze(-1), itself, weights)
    return Kept(positions, weights=weights)
