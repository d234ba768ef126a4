"""The typed facade over one run's pluggy manager: attention -> heads -> kept tokens; scores -> kept entries.

Nothing else calls pluggy. What strategies return is judged in :mod:`headwise.contracts`, and what follows from it is
worked out in :mod:`headwise.selection` and :mod:`headwise.retention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import pluggy
import torch
from torch import Tensor

from headwise import contracts, selection
from headwise.autocast import without_autocast
from headwise.blame import blamed, owned
from headwise.errors import ContractError, StrategyError
from headwise.eviction import CacheEvidence, EvictionPlan, ScorePlan, clamp_to_sliding_window, everything
from headwise.geometry import Geometry
from headwise.heads import HeadLabels, HeadStatistics
from headwise.hookspecs import PROJECT, Specs
from headwise.layout import Layout
from headwise.plan import Embeddings, Evidence, HeadChoice, Kept, PruningPlan, Queries, Selection, Stage
from headwise.recipe import Recipe
from headwise.registry import Strategy
from headwise.retention import retained

_observers: ContextVar[tuple[object, ...]] = ContextVar("headwise_observers", default=())


def watching() -> tuple[object, ...]:
    """The observers of the run whose strategy is at work, so that they see the strategies that it uses, too."""
    return _observers.get()


class Pipeline:
    """One strategy per hook, plus observers, behind typed methods.

    Every method raises StrategyError where the recipe names no strategy for its hook, and ContractError, which names
    the owner, for what a strategy raises and for what it may not return.
    """

    def __init__(self, recipe: Recipe, observers: Sequence[object] = ()) -> None:
        """Register strategies and observers; raises StrategyError for arguments that a hook does not have."""
        self.recipe = recipe
        self._observers = tuple(observers)
        self._watchers = f"an observer ({', '.join(map(_class_of, observers))})" if observers else ""
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
        identity, who = f"{strategy.hook}={strategy.text}", strategy.who
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

    def ask(self, hook: str, **arguments: object) -> object:
        """What the strategy of a hook answers, not judged yet; raises ContractError for None."""
        who = self._who(hook)
        with self._at_work(self._watchers or who):  # an error of the strategy names it already
            answer = getattr(self._manager.hook, hook)(**arguments)
        return contracts.answer_of(hook, answer, who)

    @contextmanager
    def _at_work(self, who: str) -> Iterator[None]:
        """Inside, a strategy's code runs: what it raises names ``who``, and the run's observers watch what it uses."""
        before = _observers.set(self._observers)
        try:
            with blamed(who):
                yield
        finally:
            _observers.reset(before)

    def _who(self, hook: str) -> str:
        if hook not in self.recipe.strategies:
            raise StrategyError(f"no {hook} strategy is named; add one with --strategy NAME")
        return self.recipe.strategies[hook].who

    def _reads(self, hook: str, argument: str) -> bool:
        """Whether anyone registered for a hook takes an argument, so that costly ones are computed only then."""
        return any(argument in impl.argnames for impl in getattr(self._manager.hook, hook).get_hookimpls())

    def plan(self, geometry: Geometry) -> PruningPlan:
        """The pruning plan for one geometry, inspectable before anything runs."""
        budget = self.recipe.budget
        answer = self.ask("token_pruning", geometry=geometry, budget=budget)
        return contracts.pruning_plan(answer, geometry, budget, self._who("token_pruning"))

    def eviction(self, geometry: Geometry) -> EvictionPlan:
        """The eviction plan for one geometry; everything is kept where the recipe names no ``kv_eviction``."""
        if "kv_eviction" not in self.recipe.strategies:
            return clamp_to_sliding_window(everything(geometry))
        if self.recipe.profile is not None:
            self.recipe.profile.check(geometry)
        answer = self.ask("kv_eviction", geometry=geometry, profile=self.recipe.profile)
        return clamp_to_sliding_window(contracts.eviction_plan(answer, geometry, self._who("kv_eviction")))

    def retained(self, plan: ScorePlan, evidence: CacheEvidence) -> Tensor:
        """Entries of one layer that stay, bool (b, kv_heads, n), by the plan's scores and budgets."""
        who = self._who("kv_eviction")
        with self._at_work(who), without_autocast():
            scores = plan.score(evidence)
        scores = contracts.entry_scores(scores, evidence.positions, who)
        return retained(scores, evidence.positions, evidence.seen, plan, evidence.layer)

    def classify(self, statistics: HeadStatistics) -> HeadLabels:
        """Classes of all heads of a model, (layers, heads), complete and in range."""
        answer = self.ask("head_classification", statistics=statistics)
        return contracts.head_labels(answer, statistics.geometry, self._who("head_classification"))

    @property
    def reads_embeddings(self) -> bool:
        """Whether the query tokens are chosen by what the tokens are, not only by where they stand."""
        return self._reads("query_selection", "embeddings")

    def queries(self, layout: Layout, embeddings: Embeddings | None = None) -> Queries:
        """The query tokens for a layout, none of them padding, out of range or named twice in a row."""
        answer = self.ask("query_selection", layout=layout, embeddings=embeddings)
        return contracts.query_tokens(answer, layout, self._who("query_selection"))

    def query_weights(self, rows: Tensor, queries: Queries) -> Tensor:
        """Weights (b, q) of the queries, as they are given or as they follow from attention (b, h, q, v)."""
        if not callable(queries.weights):
            return torch.from_numpy(queries.weights).to(rows)
        who = self._who("query_selection")
        with self._at_work(who):
            weights = queries.weights(rows)
        return contracts.query_weights(weights, queries.positions, who).to(rows)

    def attend(self, rows: Tensor, queries: Queries) -> Tensor:
        """Weighted mean over queries: attention (b, h, q, v) -> (b, h, v)."""
        return torch.einsum("bhqv,bq->bhv", rows, self.query_weights(rows, queries))

    def choose_heads(self, attention: Tensor, share: float, seeds: Callable[[], Tensor]) -> HeadChoice:
        """Score and count the heads of attention (b, h, v), and keep the best; ties go to the lower head index."""
        batch, heads, _ = attention.shape
        who = self._who("head_scoring")
        notes: dict[str, Sequence[object]] = {}
        answer = self.ask(
            "head_scoring",
            attention=selection.without_sinks(attention, self.recipe.sink_share),
            target=self._target(heads),
            share=share,
            seeds=seeds() if self._reads("head_scoring", "seeds") else attention.new_empty(0, dtype=torch.int64),
            note=notes.__setitem__,
        )
        scores = contracts.head_scores(answer, batch, heads, who)
        scores = contracts.comparable(selection.vetoed_below(scores, attention, self.recipe.min_mass), who)
        kept = selection.best_heads(scores, self.count_heads(scores))
        return HeadChoice(scores=scores, kept=kept, notes=contracts.head_notes(notes, batch, who))

    def _target(self, heads: int) -> int | None:
        """How many heads will be kept, where the count is known without looking at scores."""
        who = self._who("head_count")
        with blamed(who):
            target = getattr(self.recipe.strategies["head_count"].plugin, "target", None)
            wanted = target(heads) if target else None
        return contracts.head_target(wanted, heads, who)

    def count_heads(self, scores: Tensor) -> Tensor:
        """How many heads of scores (b, h) to keep, integers (b,) in 1..h."""
        batch, heads = scores.shape
        return contracts.head_counts(self.ask("head_count", scores=scores), batch, heads, self._who("head_count"))

    def token_scores(self, attention: Tensor, choice: HeadChoice) -> Tensor:
        """Attention (b, h, v) of the kept heads, aggregated as the recipe says -> (b, v)."""
        return selection.aggregated(attention, choice, self.recipe.aggregate)

    def select(self, stage: Stage, evidence: Evidence, read: Tensor | None = None) -> Kept:
        """One stage's outcome: kept tokens, ascending, with the scores or the merging weights behind them.

        ``read``: tokens whose output somebody waits for, bool (b, v); they stay as they are. Raises BudgetError where
        there are more of them than the stage keeps.
        """
        who, keep = self._who("token_pruning"), evidence.keep
        if read is not None:
            selection.check_read(read, keep, stage.layer)
        with self._at_work(who), without_autocast():
            outcome = stage.select(evidence)
        return selection.kept(contracts.stage_outcome(outcome, evidence.batch, evidence.visual, keep, who), keep, read)

    def observe(self, selection: Selection) -> None:
        """Show a stage's outcome to the observers; raises ContractError for what one of them raises."""
        with blamed(self._watchers or "an observer"):
            self._manager.hook.selected(selection=selection)


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
