"""The hooks: what each kind of strategy is given and must return. The contract stands here, once.

Axes: b batch rows, h attention heads, q query tokens, v visual tokens, l decoder layers. Strategies take only the
arguments they need, leave their inputs untouched, treat batch rows independently, are deterministic, and compute in
float32 whatever dtype they are given. Core checks everything that comes back and names the owner of what is wrong.

Visual tokens are rectangular when a strategy sees them: rows with different numbers of visual tokens are handed over
in separate calls, so no strategy needs a mask over v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:  # torch and numpy take seconds to import, and names must resolve without them
    from torch import Tensor

    from headwise.budget import Budget
    from headwise.eviction import EvictionPlan
    from headwise.geometry import Geometry
    from headwise.heads import HeadLabels, HeadProfile, HeadStatistics
    from headwise.layout import Layout
    from headwise.plan import Embeddings, PruningPlan, Queries, Selection

PROJECT = "headwise"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

CONTRACT = (1, 0)
"""The version of everything below, of what plugins get and return. The second number grows when something is added that
older plugins need not know; the first when one of them could break. A plugin may say what it was written for, with
``hook_contract = "1.0"`` in its class; one that says nothing was written for the first."""

HOOKS = (
    "query_selection",
    "head_scoring",
    "head_count",
    "token_pruning",
    "kv_eviction",
    "head_classification",
)
"""Hook name = entry-point group after ``headwise.`` = folder of the built-in strategies."""


class Specs:
    """Every hook of headwise. One strategy per hook serves a run; observers may wrap any of them.

    A strategy that wants certain queries, scores, counts or settings unless the user names others says so in an
    attribute ``asks``, a :class:`headwise.Preset`: ``asks = Preset("query_selection=raters", positions="compact")``.
    """

    @hookspec(firstresult=True)
    def query_selection(self, layout: Layout, embeddings: Embeddings) -> Queries | None:
        """Which query tokens are asked what they look at.

        ``layout`` says what stands at each position of the prompt, ``embeddings`` what the language model was given
        there (:class:`headwise.plan.Embeddings`). Returns :class:`headwise.plan.Queries`: positions
        (b, q), and their weights, either (b, q) summing to 1 per row, or a function from the attention of those
        queries, float32 (b, h, q, v), to such weights. Padding is never a query.
        """

    @hookspec(firstresult=True)
    def head_scoring(
        self,
        attention: Tensor,
        target: int | None,
        share: float,
        seeds: Tensor,
        note: Callable[[str, Sequence[object]], None],
    ) -> Tensor | None:
        """How much each head deserves to decide what is kept.

        ``attention`` (b, h, v) is softmax attention over *all* keys, cut to the visual tokens and not renormalised: a
        row sums to the mass the head puts on the image. ``target`` is the number of heads that will be kept where it
        is known beforehand, else None. ``share`` is the budget: visual tokens processed per layer on average, as a
        share of all. ``seeds`` (b,) int64 depend on the image alone, for controls that draw at random.
        ``note(key, values)`` puts one value per row into the run's record.

        Returns scores (b, h): higher is better, ``-inf`` vetoes a head. Ties go to the lower head index.
        """

    @hookspec(firstresult=True)
    def head_count(self, scores: Tensor) -> Tensor | None:
        """How many heads to keep.

        ``scores`` (b, h) float32 as ``head_scoring`` gave them; ``-inf`` marks a vetoed head. Returns integers (b,) in
        1..h; heads that were vetoed are never kept, however high the count. A rule that knows its count without
        looking may say so with a method ``target(heads) -> int``, which is what ``head_scoring`` gets as its target.
        """

    @hookspec(firstresult=True)
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan | None:
        """Where visual tokens leave the model, how many stay, and who.

        Called once per run, before anything is computed. Returns a :class:`headwise.plan.PruningPlan` whose stages
        are inspectable; who stays is a function of lazily computed evidence.
        """

    @hookspec(firstresult=True)
    def kv_eviction(self, geometry: Geometry, profile: HeadProfile | None) -> EvictionPlan | None:
        """Which key-value entries each layer and KV head keeps; budgets are options of the strategy.

        Called once per run, before anything is computed. ``profile`` carries head classes where the user gave one.
        Returns a :class:`headwise.eviction.WindowPlan`, sinks and windows per layer and KV head, or a
        :class:`headwise.eviction.ScorePlan`, a score of lazily computed evidence with budgets and protected tokens.
        """

    @hookspec(firstresult=True)
    def head_classification(self, statistics: HeadStatistics) -> HeadLabels | None:
        """A class for every query head of a model and how sure it is.

        ``statistics`` measures what is asked of it, on one text and one model, and nothing else. Returns
        :class:`headwise.heads.HeadLabels` for (layers, heads).
        """

    @hookspec
    def selected(self, selection: Selection) -> None:
        """For observers: called after each stage with what was kept and why. Nothing is returned."""
