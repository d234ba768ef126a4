"""The typed facade over one run's pluggy manager: attention -> heads -> kept tokens; scores -> kept entries.

Nothing else calls pluggy. Everything a strategy returns is checked here, once, and what is wrong names its owner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pluggy
import torch
from torch import Tensor

from headwise.autocast import without_autocast
from headwise.blame import blamed, owned
from headwise.budget import Budget
from headwise.errors import BudgetError, ContractError, DataError, StrategyError
from headwise.eviction import CacheEvidence, EvictionPlan, ScorePlan, WindowPlan, everything, within
from headwise.geometry import Geometry
from headwise.heads import HeadLabels, HeadStatistics, check_labels
from headwise.hookspecs import HOOKS, PROJECT, Specs
from headwise.layout import PADDING, Layout
from headwise.plan import UNUSED, Embeddings, Evidence, HeadChoice, Kept, Merged, PruningPlan, Queries, Selection, Stage
from headwise.recipe import Recipe
from headwise.registry import Strategy
from headwise.retention import retained

_TOLERANCE = 1e-3  # of weights that must sum to 1: half precision is allowed, forgetting to normalise is not


class Pipeline:
    """One strategy per hook, plus observers, behind typed methods."""

    def __init__(self, recipe: Recipe, observers: Sequence[object] = ()) -> None:
        self.recipe = recipe
        self._observers = f"an observer ({', '.join(map(_class_of, observers))})" if observers else ""
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Specs)
        try:
            for strategy in recipe.strategies.values():
                self._register(strategy)
            for observer in observers:
                self._manager.register(observer)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise StrategyError(str(error).replace("\n", " ")) from error

    def _register(self, strategy: Strategy) -> None:
        identity = f"{strategy.hook}={strategy.text}"
        who = strategy.who
        try:
            with blamed(who):
                self._manager.register(strategy.plugin, name=identity)
        except ContractError as error:
            if not isinstance(error.__cause__, pluggy.PluginValidationError):
                raise
            reason = str(error.__cause__).strip().splitlines()[-1]
            raise StrategyError(f"{who} does not fit its hook: {reason}") from error
        for caller in self._manager.get_hookcallers(strategy.plugin) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is strategy.plugin:
                    impl.function = owned(impl.function, who)  # type: ignore[misc]  # before its first call

    def _call(self, hook: str, **arguments: Any) -> tuple[Any, Strategy]:
        """One hook's answer and the strategy that gave it; an exception of a strategy gets its owner's name."""
        if hook not in self.recipe.strategies:
            raise StrategyError(f"no {hook} strategy is named; add one with --strategy NAME")
        strategy = self.recipe.strategies[hook]
        with blamed(self._observers or strategy.who):  # what a strategy raises has its name already
            result = getattr(self._manager.hook, hook)(**arguments)
        if result is None:
            raise ContractError(f"{strategy.who} returned None; wanted {_WANTED[hook]}")
        return result, strategy

    def _reads(self, hook: str, argument: str) -> bool:
        """Whether anyone registered for a hook takes an argument, so that costly ones are computed only then."""
        return any(argument in impl.argnames for impl in getattr(self._manager.hook, hook).get_hookimpls())

    def plan(self, geometry: Geometry) -> PruningPlan:
        """The pruning plan for one geometry, inspectable before anything runs."""
        plan, strategy = self._call("token_pruning", geometry=geometry, budget=self.recipe.budget)
        if not isinstance(plan, PruningPlan):
            raise ContractError(f"{strategy.who} returned {_kind(plan)}; wanted {_WANTED['token_pruning']}")
        if plan.geometry != geometry:
            raise ContractError(f"{strategy.who} planned for {plan.geometry.name}; wanted {geometry.name}")
        _check_spending(plan, self.recipe.budget, strategy.who)
        return plan

    def eviction(self, geometry: Geometry) -> EvictionPlan:
        """The eviction plan for one geometry; everything is kept where the recipe names no ``kv_eviction``."""
        if "kv_eviction" not in self.recipe.strategies:
            return within(everything(geometry))
        if self.recipe.profile is not None:
            self.recipe.profile.check(geometry)
        plan, strategy = self._call("kv_eviction", geometry=geometry, profile=self.recipe.profile)
        if not isinstance(plan, WindowPlan | ScorePlan):
            raise ContractError(f"{strategy.who} returned {_kind(plan)}; wanted {_WANTED['kv_eviction']}")
        if plan.geometry != geometry:
            raise ContractError(f"{strategy.who} planned for {plan.geometry.name}; wanted {geometry.name}")
        return within(plan)

    def retained(self, plan: ScorePlan, evidence: CacheEvidence) -> Tensor:
        """Entries of one layer that stay, bool (b, kv_heads, n), by the plan's scores and budgets."""
        who = self.recipe.strategies["kv_eviction"].who
        with blamed(who), without_autocast():
            scores = plan.score(evidence)
        _check_tensor(scores, tuple(evidence.positions.shape), who, "entry scores")
        if torch.isnan(scores).any():
            raise ContractError(f"{who} returned NaN entry scores; wanted numbers")
        return retained(scores, evidence.positions, evidence.seen, plan, evidence.layer)

    def classify(self, statistics: HeadStatistics) -> HeadLabels:
        """Classes of all heads of a model, complete and in range."""
        labels, strategy = self._call("head_classification", statistics=statistics)
        if not isinstance(labels, HeadLabels):
            raise ContractError(f"{strategy.who} returned {_kind(labels)}; wanted {_WANTED['head_classification']}")
        try:
            check_labels(labels, (statistics.geometry.layers, statistics.geometry.heads))
        except DataError as error:
            raise ContractError(f"{strategy.who} returned labels that do not fit: {error}") from error
        return labels

    @property
    def reads_embeddings(self) -> bool:
        """Whether the query tokens are chosen by what the tokens are, not only by where they stand."""
        return self._reads("query_selection", "embeddings")

    def queries(self, layout: Layout, embeddings: Embeddings | None = None) -> Queries:
        """The query tokens for a layout, none of them padding, out of range or named twice in a row."""
        queries, strategy = self._call("query_selection", layout=layout, embeddings=embeddings)
        if not isinstance(queries, Queries):
            raise ContractError(f"{strategy.who} returned {_kind(queries)}; wanted {_WANTED['query_selection']}")
        _check_queries(queries, layout, strategy.who)
        return queries

    def attend(self, rows: Tensor, queries: Queries) -> Tensor:
        """Weighted mean over queries: attention (b, h, q, v) -> (b, h, v)."""
        strategy = self.recipe.strategies["query_selection"]
        if callable(queries.weights):
            with blamed(strategy.who):
                weights = queries.weights(rows)
            _check_tensor(weights, (rows.shape[0], rows.shape[2]), strategy.who, "query weights")
            _check_weights(weights.detach().cpu().numpy(), queries.positions, strategy.who)
            weights = weights.to(rows)
        else:
            weights = torch.from_numpy(queries.weights).to(rows)
        return torch.einsum("bhqv,bq->bhv", rows, weights)

    def choose_heads(self, attention: Tensor, share: float, seeds: Callable[[], Tensor]) -> HeadChoice:
        """Score and count the heads of attention (b, h, v), and keep the best; ties go to the lower head index."""
        batch, heads, _ = attention.shape
        counter = self.recipe.strategies["head_count"]
        with blamed(counter.who):
            target = getattr(counter.plugin, "target", None)
            wanted = target(heads) if target else None
        notes: dict[str, Sequence[Any]] = {}
        scores, scorer = self._call(
            "head_scoring",
            attention=self._without_sinks(attention),
            target=wanted,
            share=share,
            seeds=seeds() if self._reads("head_scoring", "seeds") else attention.new_empty(0, dtype=torch.int64),
            note=notes.__setitem__,
        )
        _check_tensor(scores, (batch, heads), scorer.who, "scores")
        scores = self._veto(scores.float(), attention)
        if torch.isnan(scores).any() or torch.isposinf(scores).any():
            raise ContractError(f"{scorer.who} returned NaN or infinite scores; wanted finite ones, or -inf to veto")
        counts, rule = self._call("head_count", scores=scores)
        _check_counts(counts, batch, heads, rule.who)
        return HeadChoice(scores=scores, kept=_best(scores, counts), notes=notes)

    def _without_sinks(self, attention: Tensor) -> Tensor:
        """Attention with sink tokens zeroed, for head scoring only: a head should not win by staring at a sink."""
        if self.recipe.sink_share >= 1:
            return attention
        shares = attention / attention.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)
        sink = shares.mean(dim=1, keepdim=True) > self.recipe.sink_share
        return attention.masked_fill(sink, 0.0)

    def _veto(self, scores: Tensor, attention: Tensor) -> Tensor:
        """Heads below the wanted image mass drop out, unless a row has no head above it."""
        if self.recipe.min_mass <= 0:
            return scores
        dim = attention.sum(dim=-1) < self.recipe.min_mass
        dim &= ~(dim | torch.isneginf(scores)).all(dim=-1, keepdim=True)
        return scores.masked_fill(dim, float("-inf"))

    def token_scores(self, attention: Tensor, choice: HeadChoice) -> Tensor:
        """Attention (b, h, v) of the kept heads, aggregated as the recipe says -> (b, v)."""
        if self.recipe.aggregate == "normalised":
            mass = attention.sum(dim=-1, keepdim=True)
            attention = attention / mass.clamp_min(torch.finfo(attention.dtype).tiny)
        if self.recipe.aggregate == "weighted":
            weights = choice.scores.masked_fill(~choice.kept, float("-inf")).softmax(dim=-1)
        else:
            weights = choice.kept / choice.kept.sum(dim=-1, keepdim=True)
        return torch.einsum("bhv,bh->bv", attention, weights.to(attention))

    def select(self, stage: Stage, evidence: Evidence, read: Tensor | None = None) -> Kept:
        """One stage's outcome: kept tokens, ascending, with the scores or the merging weights behind them.

        ``read``: tokens whose output somebody waits for, bool (b, v); they stay as they are.
        """
        who = self.recipe.strategies["token_pruning"].who
        batch, visual, keep = evidence.batch, evidence.visual, evidence.keep
        if read is not None:
            check_read(read, keep, stage.layer)
        with blamed(who), without_autocast():
            outcome = stage.select(evidence)
        if isinstance(outcome, Merged):
            return _merged(outcome, (batch, keep, visual), who, read)
        if not isinstance(outcome, Tensor):
            raise ContractError(f"{who} selected with {_kind(outcome)}; wanted token scores, kept positions or Merged")
        if outcome.is_floating_point():
            _check_tensor(outcome, (batch, visual), who, "token scores")
            if torch.isnan(outcome).any():
                raise ContractError(f"{who} returned NaN token scores; wanted numbers")
            return Kept(top(outcome, keep, read), scores=outcome)
        _check_tensor(outcome, (batch, keep), who, "kept positions")
        _check_positions(outcome, visual, who)
        return Kept(_with_read(outcome, read).sort(dim=-1).values)

    def observe(self, selection: Selection) -> None:
        """Show a stage's outcome to the observers."""
        with blamed(self._observers or "an observer"):
            self._manager.hook.selected(selection=selection)


_WANTED = {
    "query_selection": "headwise.plan.Queries",
    "head_scoring": "scores (batch, heads)",
    "head_count": "integers (batch,)",
    "token_pruning": "a headwise.plan.PruningPlan",
    "kv_eviction": "a headwise.eviction.WindowPlan or ScorePlan",
    "head_classification": "headwise.heads.HeadLabels",
}
assert set(_WANTED) == set(HOOKS)


def top(scores: Tensor, keep: int, read: Tensor | None = None) -> Tensor:
    """Positions of the ``keep`` highest scores, ascending; equal scores go to the lower position: (b, v) -> (b, keep).

    Those that are ``read``, bool (b, v), come before all others. A stable sort, because the order ``topk`` gives equal
    entries is undefined and differs between devices.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    if read is not None:
        first = read.to(order.device).gather(1, order).sort(dim=-1, descending=True, stable=True).indices
        order = order.gather(1, first)
    return order[:, :keep].sort(dim=-1).values


def check_read(read: Tensor, keep: int, layer: int) -> None:
    """Refuse a stage that would have to drop what the caller reads."""
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


def _merged(outcome: Merged, shape: tuple[int, int, int], who: str, read: Tensor | None) -> Kept:
    """A merging outcome of ``shape`` (batch, keep, visual), checked, with its places in ascending order."""
    batch, keep, visual = shape
    _check_tensor(outcome.positions, (batch, keep), who, "places of merged tokens")
    _check_positions(outcome.positions, visual, who)
    _check_tensor(outcome.weights, (batch, keep, visual), who, "merging weights")
    if not outcome.weights.is_floating_point() or not torch.isfinite(outcome.weights).all():
        raise ContractError(
            f"{who} returned merging weights that are not finite numbers; wanted float ({batch}, {keep}, {visual})"
        )
    positions, order = _with_read(outcome.positions, read).sort(dim=-1)
    weights = outcome.weights.gather(1, order.unsqueeze(-1).expand(-1, -1, visual))
    if read is not None:  # who is read stays as it is, whatever was to be merged into it
        itself = torch.nn.functional.one_hot(positions.long(), visual).to(weights)
        weights = torch.where(read.to(positions.device).gather(1, positions.long()).unsqueeze(-1), itself, weights)
    return Kept(positions, weights=weights)


def _best(scores: Tensor, counts: Tensor) -> Tensor:
    """The ``counts`` best heads of each row that are not vetoed, at least one: bool (b, h)."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    rank = order.argsort(dim=-1)
    kept = (rank < counts.to(scores.device).unsqueeze(-1)) & ~torch.isneginf(scores)
    return kept | ((rank == 0) & ~kept.any(dim=-1, keepdim=True))


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _check_spending(plan: PruningPlan, budget: Budget, who: str) -> None:
    """An average is met within a token, and ``keep`` exactly (:meth:`headwise.budget.Budget.staged`)."""
    if budget.keep is not None and plan.kept != budget.keep:
        raise ContractError(f"{who} was given {budget.text} and leaves {plan.kept} tokens after its last stage")
    if budget.tokens is not None and abs(plan.average - budget.tokens) > 1:
        raise ContractError(
            f"{who} was given {budget.text} and plans an average of {plan.average:.4g} per layer; wanted within a token"
        )


def _check_tensor(value: object, shape: tuple[int, ...], who: str, what: str) -> None:
    if not isinstance(value, Tensor):
        raise ContractError(f"{who} returned {_kind(value)} as {what}; wanted a tensor of shape {shape}")
    if tuple(value.shape) != shape:
        raise ContractError(f"{who} returned {what} of shape {tuple(value.shape)}; wanted {shape}")
    if value.is_complex() or value.dtype == torch.bool:
        raise ContractError(f"{who} returned {what} of dtype {value.dtype}; wanted real numbers")


def _check_counts(counts: object, batch: int, heads: int, who: str) -> None:
    _check_tensor(counts, (batch,), who, "head counts")
    assert isinstance(counts, Tensor)
    if counts.is_floating_point():
        raise ContractError(f"{who} returned head counts of dtype {counts.dtype}; wanted integers")
    low, high = int(counts.min()), int(counts.max())
    if low < 1 or high > heads:
        wrong = low if low < 1 else high
        raise ContractError(f"{who} wants {wrong} heads; this model has 1..{heads} to choose from")


def _check_positions(positions: Tensor, visual: int, who: str) -> None:
    if positions.is_floating_point():
        raise ContractError(f"{who} kept positions of dtype {positions.dtype}; wanted integers")
    ordered = positions.sort(dim=-1).values
    wrong = ordered[(ordered < 0) | (ordered >= visual)]
    if wrong.numel():
        raise ContractError(f"{who} kept position {int(wrong[0])}; wanted 0..{visual - 1}")
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ContractError(f"{who} kept a position twice; wanted {positions.shape[-1]} different ones")


def _check_queries(queries: Queries, layout: Layout, who: str) -> None:
    positions = queries.positions
    if positions.ndim != 2 or positions.shape[0] != len(layout) or positions.shape[1] == 0:
        raise ContractError(f"{who} returned positions of shape {positions.shape}; wanted ({len(layout)}, queries)")
    for row, found in enumerate(positions):
        used = found[found != UNUSED]
        if used.size == 0:
            raise ContractError(f"{who} chose no query token for row {row}; wanted at least one")
        wrong = used[(used < 0) | (used >= layout.length)]
        if wrong.size:
            raise ContractError(f"{who} chose position {wrong[0]} of row {row}; wanted 0..{layout.length - 1}")
        if (layout.kinds[row, used] == PADDING).any():
            raise ContractError(f"{who} chose padding as a query token in row {row}; wanted real tokens")
        if np.unique(used).size != used.size:
            raise ContractError(f"{who} chose a query token of row {row} twice; wanted different ones")
    if not callable(queries.weights):
        if queries.weights.shape != positions.shape:
            raise ContractError(f"{who} gave weights {queries.weights.shape} for positions {positions.shape}")
        _check_weights(queries.weights, positions, who)


def _check_weights(weights: npt.NDArray[Any], positions: npt.NDArray[np.int64], who: str) -> None:
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ContractError(f"{who} gave query weights that are negative or not finite")
    if (weights[positions == UNUSED] != 0).any():
        raise ContractError(f"{who} gave weight to an unused query slot")
    if (abs(weights.sum(axis=1) - 1) > _TOLERANCE).any():
        raise ContractError(f"{who} gave query weights that sum to {weights.sum(axis=1).round(4).tolist()}; wanted 1")
