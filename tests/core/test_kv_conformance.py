"""The laws of KV eviction: each catches the fault it is there for, in a strategy or in how entries are retained."""

from __future__ import annotations

import pytest

import headwise.retention
from headwise.testing import ConformanceError, cases, laws

FAULTS = """
import random
import attrs
import torch
from headwise import ScorePlan, WindowPlan, hookimpl
from headwise.errors import BudgetError

calls = 0

@attrs.frozen(eq=False)
class Evict:
    fault: str = "none"

    @hookimpl
    def kv_eviction(self, geometry, profile):
        if self.fault == "refuses":
            raise BudgetError("no")
        if self.fault == "window":
            return WindowPlan.uniform(geometry, 4, random.randint(1, 10**6))
        if self.fault == "profile":
            assert profile.labels
        budget = random.randint(10, 10**6) if self.fault == "moody" else 10
        plan = ScorePlan(geometry=geometry, score=self.score, budget=budget, sinks=1, recent=2, queries=3, every=8)
        return attrs.evolve(plan, accumulates=self.fault == "unused")

    def score(self, evidence):
        global calls
        calls += 1
        keys = evidence.keys.float()
        group = evidence.attention(4 if self.fault == "undeclared" else 3).float().sum(dim=2)
        scores = group.unflatten(1, (keys.shape[1], -1)).mean(dim=2) + keys.norm(dim=-1)
        if self.fault == "interleaved":
            scores = group.unflatten(1, (-1, keys.shape[1])).mean(dim=1)
        if self.fault == "shape":
            return scores[:, :1]
        if self.fault == "integers":
            return (1000 * scores).long()
        if self.fault == "zeros":
            return (keys / keys.norm(dim=-1, keepdim=True)).sum(dim=-1)
        if self.fault == "lonely":
            return scores / scores.std(dim=-1, keepdim=True)
        if self.fault == "slots":
            return scores + torch.arange(scores.shape[-1]) / scores.shape[-1]
        if self.fault == "batch":
            return scores - keys.mean(dim=(0, 1, 2, 3)) * len(keys)
        if self.fault == "by_index":
            return scores + torch.arange(keys.shape[1])[:, None]
        if self.fault == "stateful":
            return scores + calls
        if self.fault == "global":
            return scores + 0 * torch.rand(())
        if self.fault == "in_place":
            evidence.keys.mul_(0.5)
        if self.fault == "half":
            return (evidence.keys * evidence.keys).sum(dim=-1)
        return scores
"""


@pytest.fixture
def _faults(install):
    install("zebra", "1.2", {"kv_eviction": {"zebra_fault": "zebra_mod:Evict"}}, zebra_mod=FAULTS)


def hold(law, text="zebra_fault"):
    (case,) = [case for case in cases("kv_eviction", [text]) if case.id.endswith(f"-{law}")]
    case.values[0]()


@pytest.mark.usefixtures("_faults")
@pytest.mark.parametrize("law", laws("kv_eviction"))
def test_strategy_without_a_fault_meets_every_law(law):
    hold(law)


@pytest.mark.usefixtures("_faults")
@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("refuses", "plan_is_valid"),
        ("moody", "plan_repeats"),
        ("window", "plan_repeats"),
        ("profile", "missing_profile_is_told"),
        ("shape", "scores_are_numbers"),
        ("integers", "scores_are_numbers"),
        ("zeros", "scores_are_numbers"),
        ("lonely", "scores_are_numbers"),
        ("slots", "empty_entries_do_not_matter"),
        ("batch", "rows_independent"),
        ("by_index", "heads_permute"),
        ("interleaved", "heads_permute"),
        ("stateful", "deterministic"),
        ("global", "deterministic"),
        ("in_place", "inputs_untouched"),
        ("half", "half_precision"),
        ("undeclared", "needs_are_declared"),
        ("unused", "needs_are_declared"),
    ],
)
def test_law_catches_its_fault(fault, law):
    with pytest.raises(ConformanceError, match=f"breaks the law '{law}'"):
        hold(law, f"zebra_fault:fault={fault}")


@pytest.mark.usefixtures("_faults")
@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (lambda kept, positions, plan: kept | (positions >= 0), "budget_is_met"),
        (lambda kept, positions, plan: kept & (positions >= plan.sinks), "protected_tokens_stay"),
        (lambda kept, positions, plan: kept & (positions > 3), "all_stay_where_there_is_room"),
        (lambda kept, positions, plan: kept | (positions < 0), "empty_entries_do_not_matter"),
    ],
)
def test_law_catches_a_fault_in_what_is_retained(monkeypatch, fault, law):
    def faulty(scores, positions, seen, plan, layer):
        return fault(headwise.retention.retained(scores, positions, seen, plan, layer), positions, plan)

    monkeypatch.setattr("headwise.pipeline.retained", faulty)
    with pytest.raises(ConformanceError, match=f"breaks the law '{law}'"):
        hold(law)
