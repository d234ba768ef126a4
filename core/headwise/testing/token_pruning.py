"""Laws of token pruning: plans first, then who stays."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch

from headwise.budget import Budget
from headwise.errors import BudgetError
from headwise.geometry import Geometry
from headwise.plan import READS, PruningPlan, Stage
from headwise.testing.fake_evidence import FakeEvidence
from headwise.testing.geometries import GROUPED, LARGE, LARGER, SMALL
from headwise.testing.samples import Sample
from headwise.testing.subject import Subject, same

GEOMETRIES = (LARGE, LARGER, SMALL, GROUPED)


def plan_is_valid(subject: Subject, sample: Sample) -> None:
    """Every budget gives a plan of that geometry, or a BudgetError that says why not."""
    for geometry in GEOMETRIES:
        for budget in _budgets(sample, geometry):
            plan = _plan(subject, geometry, budget)
            if plan is not None:
                assert plan.geometry == geometry, f"wanted a plan for {geometry.name}, got one for {plan.geometry.name}"


def plan_repeats(subject: Subject, sample: Sample) -> None:
    """The same geometry and budget give the same stages, also from a strategy built anew."""
    again = subject.again()
    for geometry in GEOMETRIES:
        for budget in _budgets(sample, geometry):
            first = _stages(_plan(subject, geometry, budget))
            assert first == _stages(_plan(subject, geometry, budget)), "a second plan differs"
            assert first == _stages(_plan(again, geometry, budget)), "a strategy built anew plans differently"


def budget_is_met(subject: Subject, sample: Sample) -> None:
    """The processed average is within one token of what was asked, and ``keep`` is met exactly.

    A budget may be refused, but not one of more than three quarters of the visual tokens.
    """
    for geometry in GEOMETRIES:
        for budget in _budgets(sample, geometry):
            plan = _plan(subject, geometry, budget)
            if plan is None:
                generous = (budget.tokens or budget.keep or 0) > 0.75 * geometry.visual_tokens
                assert not generous, f"{budget.text} of {geometry.visual_tokens} visual tokens is refused"
                continue
            if budget.tokens is not None:
                assert abs(plan.average - budget.tokens) <= 1, f"asked for {budget.text}, processed {plan.average:.2f}"
            else:
                assert plan.kept == budget.keep, f"asked for {budget.text}, kept {plan.kept}"


def keep_all_is_everything(subject: Subject, sample: Sample) -> None:
    """Keeping all visual tokens drops none, at any stage."""
    for geometry in GEOMETRIES:
        plan = _plan(subject, geometry, Budget(keep=geometry.visual_tokens))
        assert plan is not None, "keeping everything is refused"
        assert plan.average == geometry.visual_tokens, f"processed {plan.average} of {geometry.visual_tokens}"
        for stage in plan.stages:
            evidence = FakeEvidence(sample, stage.layer, geometry.visual_tokens, geometry.visual_tokens)
            kept = subject.pipeline.select(stage, evidence).positions
            wanted = torch.arange(geometry.visual_tokens).expand(sample.rows, -1)
            assert torch.equal(kept, wanted), "a visual token is dropped though all are to be kept"


def kept_tokens_are_valid(subject: Subject, sample: Sample) -> None:
    """Every stage keeps as many tokens as planned, ascending, different, and in range."""
    for stage, evidence in _selections(subject, sample):
        kept = subject.pipeline.select(stage, evidence).positions
        wanted = (sample.rows, evidence.keep)
        assert tuple(kept.shape) == wanted, f"wanted {wanted} kept tokens, got {tuple(kept.shape)}"
        assert bool((kept[:, 1:] > kept[:, :-1]).all()), "kept tokens are not ascending and different"
        assert bool(((kept >= 0) & (kept < evidence.visual)).all()), "a kept token is out of range"


def rows_independent(subject: Subject, sample: Sample) -> None:
    """A row of a batch keeps the tokens it keeps alone."""
    for stage, evidence in _selections(subject, sample):
        together = subject.pipeline.select(stage, evidence)
        for row in range(sample.rows):
            alone = attrs.evolve(evidence, rows=slice(row, row + 1))
            found = subject.pipeline.select(stage, alone)
            assert torch.equal(found.positions[0], together.positions[row]), (
                f"row {row} keeps other tokens alone than in the batch"
            )
            if found.weights is not None and together.weights is not None:
                same(together.weights[row], found.weights[0], f"merging weights of row {row} alone and in the batch")


def deterministic(subject: Subject, sample: Sample) -> None:
    """The same evidence keeps the same tokens, without touching torch's global random state."""
    before = torch.get_rng_state()
    for stage, evidence in _selections(subject, sample):
        first, second = (subject.pipeline.select(stage, evidence) for _ in range(2))
        assert torch.equal(first.positions, second.positions), "a second selection differs"
        if first.weights is not None and second.weights is not None:
            assert torch.equal(first.weights, second.weights), "a second selection merges differently"
    assert torch.equal(before, torch.get_rng_state()), "torch's global random state was used"


def evidence_is_declared(subject: Subject, sample: Sample) -> None:
    """What a stage asks for of ``headwise.plan.READS`` stands in its ``reads``, and nothing else does."""
    for stage, evidence in _selections(subject, sample):
        subject.pipeline.select(stage, evidence)
        asked = tuple(name for name in READS if name in evidence.asked)
        declared = tuple(name for name in READS if name in stage.reads)
        assert asked == declared, f"reads {', '.join(declared) or 'nothing'} by its own word, asked for {asked}"


def odd_images_survive(subject: Subject, sample: Sample) -> None:
    """Images without contrast (zero features, all tokens alike, no attention) keep as many tokens as planned."""
    for stage, evidence in _selections(subject, sample):
        for kind in ("zero", "alike"):
            found = subject.pipeline.select(stage, attrs.evolve(evidence, kind=kind))
            wanted = (sample.rows, evidence.keep)
            assert tuple(found.positions.shape) == wanted, f"of {kind} tokens it keeps {tuple(found.positions.shape)}"


def merging_leaves_equal_tokens_alone(subject: Subject, sample: Sample) -> None:
    """Where tokens are merged, tokens that are all alike come out as they were: weights of each sum to 1."""
    for stage, evidence in _selections(subject, sample):
        weights = subject.pipeline.select(stage, evidence).weights
        if weights is not None:
            same(torch.ones(weights.shape[:2]), weights.float().sum(dim=-1), "sum of merging weights")


def _budgets(sample: Sample, geometry: Geometry) -> list[Budget]:
    """A budget of each kind, from nearly nothing to everything."""
    visual = geometry.visual_tokens
    share = float(sample.rng.uniform(0.05, 1.0))
    return [Budget(tokens=max(1.0, share * visual)), Budget(keep=max(1, int(share * visual))), Budget(keep=1)]


def _plan(subject: Subject, geometry: Geometry, budget: Budget) -> PruningPlan | None:
    """The plan, or None where the strategy refuses the budget."""
    try:
        plan = subject.answer(geometry=geometry, budget=budget)
    except BudgetError:
        return None
    assert isinstance(plan, PruningPlan), f"wanted a PruningPlan, got {type(plan).__name__}"
    return plan


def _stages(plan: PruningPlan | None) -> list[tuple[int, int]] | None:
    return None if plan is None else [(stage.layer, stage.keep) for stage in plan.stages]


def _selections(subject: Subject, sample: Sample) -> Iterator[tuple[Stage, FakeEvidence]]:
    """Each stage of a plan that keeps a third, for images with as many visual tokens as usual, and with more."""
    for geometry in (SMALL, GROUPED):
        plan = _plan(subject, geometry, Budget(keep=geometry.visual_tokens // 3))
        for images in (1, 2) if plan else ():
            visual = whole = images * geometry.visual_tokens
            for stage in plan.stages if plan else ():
                keep = stage.keep_of(whole, geometry)
                yield stage, FakeEvidence(sample, stage.layer, visual, keep)
                visual = keep
