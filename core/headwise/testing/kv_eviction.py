"""Laws of KV eviction: plans first, then the scores of entries and who stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from headwise.errors import BudgetError, ContractError, HeadwiseError
from headwise.eviction import EvictionPlan, ScorePlan, WindowPlan
from headwise.geometry import Geometry
from headwise.testing.fake_cache import FakeCacheEvidence, fake_profile
from headwise.testing.geometries import GROUPED, LARGE, SMALL
from headwise.testing.samples import Sample
from headwise.testing.subject import Subject, same

GEOMETRIES = (LARGE, SMALL, GROUPED)
BOTH = (SMALL, GROUPED)
"""Heads with keys of their own, and heads that share them."""

HALVES = (torch.float16, torch.bfloat16)


def plan_is_valid(subject: Subject, sample: Sample) -> None:
    """A model gets a plan of its geometry, or a BudgetError that says why not; at least one model is served."""
    served = [_plan(subject, sample, geometry) for geometry in GEOMETRIES]
    assert any(plan is not None for plan in served), "every model is refused"
    for geometry, plan in zip(GEOMETRIES, served, strict=True):
        found = plan.geometry.name if plan else geometry.name
        assert found == geometry.name, f"wanted a plan for {geometry.name}, got one for {found}"


def plan_repeats(subject: Subject, sample: Sample) -> None:
    """The same model and profile give the same plan, also from a strategy built anew."""
    again = subject.again()
    for geometry in GEOMETRIES:
        first = _facts(_plan(subject, sample, geometry))
        assert first == _facts(_plan(subject, sample, geometry)), "a second plan differs"
        assert first == _facts(_plan(again, sample, geometry)), "a strategy built anew plans differently"


def missing_profile_is_told(subject: Subject, sample: Sample) -> None:
    """Without a head profile there is a plan, or an error that the user can read."""
    for geometry in GEOMETRIES:
        try:
            plan = subject.answer(geometry=geometry, profile=None)
        except ContractError:  # the strategy failed; any other HeadwiseError is its own refusal
            raise
        except HeadwiseError:
            continue
        assert isinstance(plan, EvictionPlan), f"wanted a plan, got {type(plan).__name__}"


def scores_are_numbers(subject: Subject, sample: Sample) -> None:
    """Every entry has a score of a floating dtype and none is NaN, in half precision and on odd caches, too."""
    for evidence in _caches(subject, sample):
        _scores(evidence)
        half = attrs.evolve(evidence, dtype=HALVES[sample.rows % 2])
        for odd in (half, _Alike(**_fields(half)), _Zero(**_fields(half)), attrs.evolve(half, tokens=1)):
            _scores(odd)


def budget_is_met(subject: Subject, sample: Sample) -> None:
    """Each head, or all heads of a layer that compete, keep as many entries as planned, if they have as many."""
    for evidence in _caches(subject, sample):
        kept = _kept(subject, evidence).sum(dim=-1)
        filled = (evidence.positions >= 0).sum(dim=-1)
        capacity = [int(evidence.plan.per_layer(seen)[evidence.layer]) for seen in evidence.seen.tolist()]
        wanted = torch.minimum(filled, torch.tensor(capacity)[:, None])
        if evidence.plan.pooled:
            most = torch.tensor(capacity) * filled.shape[1]
            wanted, kept = torch.minimum(filled.sum(dim=-1), most), kept.sum(dim=-1)
        assert torch.equal(wanted, kept), f"wanted {wanted.tolist()} entries to stay, got {kept.tolist()}"


def protected_tokens_stay(subject: Subject, sample: Sample) -> None:
    """Sinks and recent tokens that are held stay."""
    for evidence in _caches(subject, sample):
        places, plan = evidence.positions, evidence.plan
        recent = places >= (evidence.seen - plan.recent)[:, None, None]
        protected = (places >= 0) & ((places < plan.sinks) | recent)
        lost = protected & ~_kept(subject, evidence)
        assert not bool(lost.any()), f"protected tokens {places[lost].tolist()[:8]} are evicted"


def all_stay_where_there_is_room(subject: Subject, sample: Sample) -> None:
    """Nothing is evicted where everything may be kept."""
    for evidence in _caches(subject, sample):
        evidence.plan = attrs.evolve(evidence.plan, budget=None, ratio=1.0)
        filled = evidence.positions >= 0
        assert torch.equal(_kept(subject, evidence), filled), "an entry is evicted though all are to be kept"


def empty_entries_do_not_matter(subject: Subject, sample: Sample) -> None:
    """Empty entries never stay, and more of them change nothing."""
    for evidence in _caches(subject, sample):
        wider = attrs.evolve(evidence, empty=3)
        filled, entries = evidence.positions >= 0, evidence.positions.shape[-1]
        assert not bool((_kept(subject, wider) & (wider.positions < 0)).any()), "an empty entry stays"
        found = _scores(wider)[..., :entries]
        same(_scores(evidence)[filled], found[filled], "scores change with the number of empty entries")


def rows_independent(subject: Subject, sample: Sample) -> None:
    """A row of a batch gets the scores it gets alone."""
    for evidence in _caches(subject, sample):
        together = _scores(evidence)
        for row in range(sample.rows):
            single = attrs.evolve(evidence, rows=slice(row, row + 1))
            alone, filled = _scores(single)[0], single.positions[0] >= 0
            entries = filled.shape[-1]
            same(alone[filled], together[row, :, :entries][filled], f"row {row} is scored differently alone")


def heads_permute(subject: Subject, sample: Sample) -> None:
    """Permuting the KV heads, with the query heads that share them, permutes their scores."""
    for evidence in _caches(subject, sample):
        order = sample.order(evidence.geometry.kv_heads).tolist()
        permuted = attrs.evolve(evidence, order=tuple(order))
        filled = permuted.positions >= 0
        same(_scores(evidence)[:, order][filled], _scores(permuted)[filled], "scores do not follow their heads")


def deterministic(subject: Subject, sample: Sample) -> None:
    """The same cache gets the same scores, also from a strategy built anew, and global randomness is left alone."""
    states = _random_states()
    for first, second in zip(_caches(subject, sample), _caches(subject.again(), sample), strict=True):
        scores = _scores(first)
        same(scores, _scores(first), "a second call differs", tolerance=0.0)
        same(scores, _scores(second), "a strategy built anew differs", tolerance=0.0)
    assert states == _random_states(), "a global random state was used"


def inputs_untouched(subject: Subject, sample: Sample) -> None:
    """Keys, values, positions and counts are as they were."""
    for evidence in _caches(subject, sample):
        _scores(evidence)
        fresh = attrs.evolve(evidence)
        for name in ("keys", "values", "positions", "seen"):
            assert torch.equal(getattr(fresh, name), getattr(evidence, name)), f"{name} were changed in place"


def half_precision(subject: Subject, sample: Sample) -> None:
    """Half-precision keys and values are scored like the same numbers in float32."""
    for evidence in _caches(subject, sample):
        dtype = HALVES[sample.rows % 2]
        half, exact = (attrs.evolve(evidence, dtype=dtype, exact=exact) for exact in (False, True))
        filled = half.positions >= 0
        same(_scores(exact)[filled], _scores(half)[filled].float(), f"{dtype} scores differ from float32")


def needs_are_declared(subject: Subject, sample: Sample) -> None:
    """What a score looks at is in its plan, ``queries`` and ``accumulates``, and what is in the plan is looked at."""
    for evidence in _caches(subject, sample):
        _scores(evidence)
        declared = {"queries": evidence.plan.queries > 0, "accumulated_attention": evidence.plan.accumulates}
        unused = ", ".join(what for what, needed in declared.items() if needed and what not in evidence.asked)
        assert not unused, f"the plan has the model remember {unused}, and the score never asks for it"


class _Alike(FakeCacheEvidence):
    """A cache of one token, many times."""

    def _held(self, states: Tensor) -> Tensor:
        return super()._held(states[:, :, :1].expand_as(states))


class _Zero(FakeCacheEvidence):
    """A cache whose keys and values are all zero."""

    def _held(self, states: Tensor) -> Tensor:
        return super()._held(torch.zeros_like(states))


def _fields(evidence: FakeCacheEvidence) -> dict[str, Any]:
    return {field.name: getattr(evidence, field.name) for field in attrs.fields(FakeCacheEvidence)}


def _plan(subject: Subject, sample: Sample, geometry: Geometry) -> EvictionPlan | None:
    """The plan with a made-up head profile, or None where the strategy refuses the model."""
    try:
        plan = subject.answer(geometry=geometry, profile=fake_profile(sample, geometry))
    except BudgetError:
        return None
    assert isinstance(plan, EvictionPlan), f"wanted a WindowPlan or a ScorePlan, got {type(plan).__name__}"
    return plan


def _facts(plan: EvictionPlan | None) -> object:
    """What two equal plans have in common."""
    if plan is None:
        return None
    if isinstance(plan, WindowPlan):
        return plan.sinks.tolist(), plan.windows.tolist(), plan.positions
    settings = attrs.asdict(plan, recurse=False, filter=lambda field, _: field.name not in ("score", "shares"))
    return settings, [plan.per_layer(seen).tolist() for seen in (1, 40, 1000)]


def _caches(subject: Subject, sample: Sample) -> Iterator[FakeCacheEvidence]:
    """A short whole cache of the first layer and a longer one with gaps of the last; none for a WindowPlan."""
    geometry = BOTH[sample.seed % 2]
    plan = _plan(subject, sample, geometry)
    if isinstance(plan, ScorePlan):
        yield FakeCacheEvidence(sample, geometry, plan, layer=0, tokens=sample.visual)
        last = geometry.layers - 1
        yield FakeCacheEvidence(sample, geometry, plan, layer=last, tokens=2 * sample.visual, held=0.7)


def _scores(evidence: FakeCacheEvidence) -> Tensor:
    """Scores, one number for each entry: what every law may rely on."""
    scores = evidence.plan.score(evidence)
    assert isinstance(scores, Tensor), f"wanted a tensor of scores, got {type(scores).__name__}"
    wanted = tuple(evidence.positions.shape)
    assert tuple(scores.shape) == wanted, f"wanted scores of shape {wanted}, got {tuple(scores.shape)}"
    assert scores.is_floating_point(), f"wanted scores of a floating dtype, got {scores.dtype}"
    assert not bool(torch.isnan(scores).any()), "a score is NaN"
    return scores


def _kept(subject: Subject, evidence: FakeCacheEvidence) -> Tensor:
    return subject.pipeline.retained(evidence.plan, evidence)


def _random_states() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
