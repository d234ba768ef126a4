"""The conformance kit: each law catches the fault it is there for, and says whose it is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

import headwise.testing
from headwise.testing import ConformanceError, Sample, cases, laws

FAULTS = """
import random
import attrs
import numpy as np
import torch
from headwise import hookimpl
from headwise.errors import BudgetError
from headwise.layout import IMAGE
from headwise.plan import PruningPlan, Queries, Stage

calls = 0

@attrs.frozen(eq=False)
class Score:
    fault: str = "none"

    @hookimpl
    def head_scoring(self, attention, note):
        global calls
        calls += 1
        scores = attention.float().sum(dim=-1)
        batch, heads, visual = attention.shape
        if self.fault == "shape":
            return scores.T
        if self.fault == "integers":
            return torch.ones(batch, heads, dtype=torch.int64)
        if self.fault == "in_place":
            attention *= 0.5
        if self.fault == "stateful":
            return scores + calls
        if self.fault == "global":
            return scores + 0 * torch.rand(heads)
        if self.fault == "batch":
            return scores - scores.mean(dim=0)
        if self.fault == "by_index":
            return scores + torch.arange(heads)
        if self.fault == "by_place":
            return attention[..., 0].float()
        if self.fault == "half":
            return (attention * attention).sum(dim=-1).float()
        if self.fault == "zeros":
            return (attention / attention.sum(dim=-1, keepdim=True)).amax(dim=-1)
        if self.fault == "deviation":
            return attention.float().std(dim=-1)
        if self.fault == "lonely":
            return scores / (heads - 1)
        if self.fault == "veto":
            return torch.full_like(scores, float("-inf"))
        if self.fault == "note":
            note("mean", [0.0])
        return scores

@attrs.frozen(eq=False)
class Count:
    fault: str = "none"

    def target(self, heads):
        return 2 if self.fault == "target" else 1

    @hookimpl
    def head_count(self, scores):
        batch, heads = scores.shape
        ones = torch.ones(batch, dtype=torch.int64)
        if self.fault == "float":
            return ones.float()
        if self.fault == "zero":
            return (scores > 0).sum(dim=-1)
        if self.fault == "in_place":
            scores.zero_()
        if self.fault == "batch":
            return ones * batch
        if self.fault == "by_place":
            return scores.argmax(dim=-1) + 1
        if self.fault == "veto":
            return (~torch.isinf(scores).any(dim=-1)).long()
        if self.fault == "equal":
            return (scores > scores.amin(dim=-1, keepdim=True)).sum(dim=-1).clamp(max=1)
        return ones

@attrs.frozen(eq=False)
class Ask:
    fault: str = "none"

    @hookimpl
    def query_selection(self, layout):
        rows = [layout.valid(row)[-1:] for row in range(len(layout))]
        if self.fault == "padding":
            rows = [[layout.length - 1]] * len(layout)
        if self.fault == "text":
            rows = [layout.text(row)[-1:] for row in range(len(layout))]
        if self.fault == "sum":
            return Queries.of(rows, [[0.5]] * len(rows))
        if self.fault == "batch":
            count = min(len(layout.valid(row)) for row in range(len(layout)))
            return Queries.of([layout.valid(row)[-count:] for row in range(len(layout))])
        if self.fault == "place":
            rows = [layout.valid(row)[-1 - layout.length % 2 :] for row in range(len(layout))]
        if self.fault == "by_head":
            asked = Queries.of([layout.valid(row)[-2:] for row in range(len(layout))])
            used = torch.from_numpy(asked.positions >= 0)
            return Queries(asked.positions, lambda a: (a[:, 0, :, 0] + 1e-6).masked_fill(~used, -30).softmax(-1))
        if self.fault == "in_place":
            layout.kinds[:] = np.where(layout.kinds == IMAGE, IMAGE, layout.kinds[:, ::-1])
        return Queries.of(rows)

@attrs.frozen(eq=False)
class Prune:
    fault: str = "none"

    @hookimpl
    def token_pruning(self, geometry, budget):
        if self.fault == "refuses":
            raise BudgetError("no")
        keep = budget.one_stage(geometry, 1)
        if self.fault == "budget":
            keep = max(1, keep // 2)
        if self.fault == "moody":
            keep = random.randint(1, keep)
        reads = () if self.fault == "undeclared" else ("attention",)
        return PruningPlan(geometry, (Stage(1, keep, self._select, reads=reads),))

    def _select(self, evidence):
        scores = evidence.attention()
        if self.fault == "twice":
            return torch.zeros(scores.shape[0], evidence.keep, dtype=torch.int64)
        if self.fault == "batch":
            return scores * torch.arange(1.0, len(scores) + 1)[:, None] - scores.mean(dim=0) * (len(scores) > 1)
        if self.fault == "random":
            return torch.rand(scores.shape)
        return scores
"""


@pytest.fixture
def faults(install, monkeypatch):
    monkeypatch.setattr("headwise.testing.kit._unfit", {})  # each test tries its own
    names = {"head_scoring": "Score", "head_count": "Count", "query_selection": "Ask", "token_pruning": "Prune"}
    install(
        "zebra", "1.2", {hook: {"zebra_fault": f"zebra_mod:{name}"} for hook, name in names.items()}, zebra_mod=FAULTS
    )


def broken_laws(hook, text):
    broken = set()
    for case in cases(hook, [text]):
        try:
            case.values[0]()
        except ConformanceError:
            broken.add(case.id.rpartition("-")[2])
    return broken


@pytest.mark.parametrize("hook", ["head_scoring", "head_count", "query_selection", "token_pruning"])
def test_strategy_without_a_fault_meets_every_law(faults, hook):
    assert broken_laws(hook, "zebra_fault") == set()


@pytest.mark.parametrize(
    ("hook", "fault", "law"),
    [
        ("head_scoring", "shape", "shape_dtype_device"),
        ("head_scoring", "integers", "shape_dtype_device"),
        ("head_scoring", "in_place", "inputs_untouched"),
        ("head_scoring", "stateful", "deterministic"),
        ("head_scoring", "global", "global_randomness_untouched"),
        ("head_scoring", "batch", "rows_independent"),
        ("head_scoring", "by_index", "heads_permute"),
        ("head_scoring", "by_place", "visual_tokens_permute"),
        ("head_scoring", "half", "half_precision"),
        ("head_scoring", "zeros", "no_attention"),
        ("head_scoring", "deviation", "single_visual_token"),
        ("head_scoring", "lonely", "single_head"),
        ("head_scoring", "veto", "finite"),
        ("head_scoring", "note", "notes_per_row"),
        ("head_count", "float", "shape_dtype_device"),
        ("head_count", "zero", "within_the_heads"),
        ("head_count", "in_place", "inputs_untouched"),
        ("head_count", "batch", "rows_independent"),
        ("head_count", "by_place", "heads_permute"),
        ("head_count", "veto", "vetoed_heads"),
        ("head_count", "equal", "equal_scores"),
        ("head_count", "equal", "single_head"),
        ("head_count", "target", "target_is_the_count"),
        ("query_selection", "padding", "real_tokens"),
        ("query_selection", "text", "no_text"),
        ("query_selection", "sum", "weights_sum_to_one"),
        ("query_selection", "batch", "rows_independent"),
        ("query_selection", "place", "padding_side"),
        ("query_selection", "by_head", "heads_and_visual_tokens_permute"),
        ("query_selection", "in_place", "inputs_untouched"),
        ("token_pruning", "refuses", "budget_is_met"),
        ("token_pruning", "refuses", "keep_all_is_everything"),
        ("token_pruning", "budget", "budget_is_met"),
        ("token_pruning", "budget", "keep_all_is_everything"),
        ("token_pruning", "moody", "plan_repeats"),
        ("token_pruning", "twice", "kept_tokens_are_valid"),
        ("token_pruning", "batch", "rows_independent"),
        ("token_pruning", "random", "deterministic"),
        ("token_pruning", "undeclared", "evidence_is_declared"),
    ],
)
def test_law_catches_its_fault(faults, hook, fault, law):
    (case,) = [case for case in cases(hook, [f"zebra_fault:fault={fault}"]) if case.id.endswith(f"-{law}")]
    with pytest.raises(ConformanceError, match=f"breaks the law '{law}'"):
        case.values[0]()


def test_failure_names_strategy_owner_problem_and_how_to_see_it_again(faults):
    with pytest.raises(ConformanceError) as caught:
        headwise.testing.reproduce("head_scoring", "zebra_fault:fault=integers", "shape_dtype_device", Sample(seed=7))
    assert str(caught.value) == (
        "head_scoring strategy 'zebra_fault:fault=integers' (zebra 1.2) breaks the law 'shape_dtype_device':"
        " wanted scores of a floating dtype, got torch.int64\n"
        "again: headwise.testing.reproduce('head_scoring', 'zebra_fault:fault=integers', 'shape_dtype_device',"
        " headwise.testing.Sample(seed=7, rows=2, heads=8, visual=16, kind='diffuse'))"
    )


def test_the_line_a_failure_prints_shows_it_again(faults):
    (case,) = [case for case in cases("head_scoring", ["zebra_fault:fault=by_index"]) if "heads_permute" in case.id]
    with pytest.raises(ConformanceError) as first:
        case.values[0]()
    call = ast.parse(str(first.value).splitlines()[1].removeprefix("again: "), mode="eval").body
    hook, text, law = map(ast.literal_eval, call.args[:3])
    sample = Sample(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.args[3].keywords})
    with pytest.raises(ConformanceError) as second:
        headwise.testing.reproduce(hook, text, law, sample)
    assert str(second.value) == str(first.value)


def test_expected_failures_are_strict_and_carry_their_reason():
    marked = {
        case.id: case.marks
        for case in cases("head_scoring", ["any"], expected_failures={"heads_permute": "on purpose"})
    }
    (mark,) = marked.pop("head_scoring=any-heads_permute")
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "on purpose", "strict": True, "raises": ConformanceError}
    assert not any(marked.values())


def test_parametrize_gives_one_test_per_text_and_law():
    mark = headwise.testing.parametrize("head_count", ["one", "two:k=1"]).mark
    assert mark.args[0] == "check"
    expected = [f"head_count={text}-{law}" for text in ("one", "two:k=1") for law in laws("head_count")]
    assert [case.id for case in mark.args[1]] == expected


def test_expected_failure_of_an_unknown_law_is_refused():
    with pytest.raises(ValueError, match=r"^expected failure of fast: no such law of head_count; its laws are "):
        cases("head_count", ["any"], expected_failures={"fast": "never"})


def test_hook_without_laws_is_refused():
    with pytest.raises(ValueError, match=r"^no laws are known for hook 'observers'; there are some for query"):
        laws("observers")


UNFIT = """
from headwise import hookimpl

class Flat:
    @hookimpl
    def head_scoring(self, attention):
        return attention.sum()
"""

USED = """
import headwise.testing

@headwise.testing.parametrize("head_scoring", ["flat", "lost"])
def test_conformance(check):
    check()
"""


def test_what_is_wrong_at_all_is_one_failure_without_frames_of_the_kit(install, tmp_path):
    install("unfit", "1", {"head_scoring": {"flat": "unfit_mod:Flat", "lost": "unfit_gone:Lost"}}, unfit_mod=UNFIT)
    (tmp_path / "test_mine.py").write_text(USED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "test_mine.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "unfit"), "COLUMNS": "200"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"2 failed, {2 * len(laws('head_scoring')) - 2} skipped" in done.stdout
    assert (
        "not tried: 'lost' from unfit 1 (unfit_gone:Lost) does not import: No module named 'unfit_gone'" in done.stdout
    )
    assert "headwise/testing" not in done.stdout
