"""DART: pivots by the length of their keys, and what resembles them least, shared out equally."""

from __future__ import annotations

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tests.plugins import in_llm
from tests.reference import dart as reference

from headwise import BudgetError, Pipeline, Recipe, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True)


@attrs.frozen
class Prompts:
    """Evidence of prompts: states (b, v, d) and keys (b, v, k) of visual tokens, and of text, with what is real."""

    states: torch.Tensor
    visual_keys: torch.Tensor
    words: torch.Tensor
    word_keys: torch.Tensor
    real: torch.Tensor
    keep: int

    @property
    def batch(self):
        return self.states.shape[0]

    @property
    def visual(self):
        return self.states.shape[1]

    def hidden(self):
        return self.states

    def keys(self):
        return self.visual_keys

    def text(self):
        return self.words, self.real

    def text_keys(self):
        return self.word_keys, self.real

    def row(self, row):
        """One prompt alone, with its real words only."""
        real = self.real[row]
        return attrs.evolve(
            self,
            states=self.states[row : row + 1],
            visual_keys=self.visual_keys[row : row + 1],
            words=self.words[row, real][None],
            word_keys=self.word_keys[row, real][None],
            real=real[real][None],
        )


def prompts(seed, visual, words, keep, *, batch=1, exact=False):
    """Random prompts; ``exact``: of few different vectors of length 2, so that many are alike and cosines are exact."""
    generator = torch.Generator().manual_seed(seed)

    def states(count):
        if not exact:
            return torch.randn(batch, count, 5, generator=generator)
        return torch.randint(0, 2, (batch, count, 4), generator=generator) * 2.0 - 1

    def keys(count):
        drawn = torch.randint(-3, 4, (batch, count, 6), generator=generator).float()
        return drawn if exact else drawn + torch.rand(batch, count, 6, generator=generator)

    real = torch.ones(batch, words, dtype=torch.bool)
    return Prompts(states(visual), keys(visual), states(words), keys(words), real, keep)


def kept(evidence, options=""):
    return in_llm.kept(f"dart:{options}".rstrip(":"), evidence)


def expected(evidence, **pivots):
    return reference.kept(
        evidence.states[0].tolist(), evidence.visual_keys[0].tolist(),
        evidence.words[0].tolist(), evidence.word_keys[0].tolist(), evidence.keep, **pivots,
    )  # fmt: skip


@pytest.mark.parametrize("exact", [False, True])
@laws
@given(
    st.integers(0, 2**20), st.integers(1, 25), st.integers(0, 7), st.integers(1, 6), st.integers(0, 6), st.data()
)  # fmt: skip
def test_kept_are_those_of_the_paper(exact, seed, visual, words, image_pivots, text_pivots, data):
    evidence = prompts(seed, visual, words, data.draw(st.integers(1, visual)), exact=exact)
    found = kept(evidence, f"image_pivots={image_pivots},text_pivots={text_pivots}")
    assert [expected(evidence, image_pivots=image_pivots, text_pivots=text_pivots)] == found


def test_four_and_four_pivots_are_the_default():
    evidence = prompts(1, 40, 9, 20)
    assert [expected(evidence, image_pivots=4, text_pivots=4)] == kept(evidence)


@laws
@given(st.integers(0, 2**20), st.integers(1, 12))
def test_padding_among_the_words_and_neighbours_in_the_batch_change_nothing(seed, keep):
    evidence = prompts(seed, 12, 6, keep, batch=3)
    real = torch.tensor([[True] * 6, [False] * 5 + [True], [True, True, False, False, False, False]])
    evidence = attrs.evolve(evidence, real=real)
    evidence.word_keys[~real] = 1e4  # padding would be a pivot if it were looked at
    alone = [kept(evidence.row(row))[0] for row in range(3)]
    assert alone == kept(evidence)


@pytest.mark.parametrize("real", [torch.zeros(1, 6, dtype=torch.bool), None])
def test_visual_pivots_do_it_alone_where_there_is_no_text(real):
    evidence = prompts(2, 30, 6, 13)
    if real is None:
        evidence = attrs.evolve(evidence, words=evidence.words[:, :0], word_keys=evidence.word_keys[:, :0],
                                real=evidence.real[:, :0])  # fmt: skip
    else:
        evidence = attrs.evolve(evidence, real=real)
    without = attrs.evolve(evidence, words=evidence.words[:, :0], word_keys=evidence.word_keys[:, :0])
    assert [expected(without)] == kept(evidence)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_with_few_tokens_to_keep_the_longest_keys_stay(keep):
    evidence = prompts(3, 11, 3, keep)
    assert [sorted(reference.longest(evidence.visual_keys[0].tolist(), keep))] == kept(evidence)


@pytest.mark.parametrize("keep", [1, 5, 8, 9])
def test_first_positions_stay_of_tokens_that_are_all_alike_or_empty(keep):
    evidence = prompts(4, 9, 3, keep)
    alike = attrs.evolve(
        evidence, states=evidence.states[:, :1].expand(1, 9, 5), visual_keys=evidence.visual_keys[:, :1].expand(1, 9, 6)
    )
    empty = attrs.evolve(
        evidence, states=torch.zeros(1, 9, 5), visual_keys=torch.zeros(1, 9, 6), words=torch.zeros(1, 3, 5)
    )
    assert [list(range(keep))] == kept(alike) == kept(empty)


def test_a_token_that_resembles_no_pivot_stays_and_duplicates_of_pivots_go():
    axes = torch.eye(5)
    states = torch.stack([axes[0], axes[0], axes[0], axes[0], -axes[0], axes[0]])[None]
    keys = torch.ones(1, 6, 2)
    keys[0, 2] = 5.0  # the pivot
    evidence = Prompts(states, keys, axes[None, :1], torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), 2)
    assert kept(evidence, "image_pivots=1,text_pivots=0") == [[2, 4]]


def test_half_precision_is_compared_in_float32():
    evidence = prompts(5, 200, 8, 100)
    halves = [evidence.states, evidence.visual_keys, evidence.words, evidence.word_keys]
    states, keys, words, word_keys = (tensor.to(torch.bfloat16) for tensor in halves)
    short = Prompts(states, keys, words, word_keys, evidence.real, 100)
    long = Prompts(states.float(), keys.float(), words.float(), word_keys.float(), evidence.real, 100)
    assert kept(long) == kept(short)
    assert kept(long, "image_pivots=60") == kept(short, "image_pivots=60")


def test_plan_keeps_the_published_counts_and_reads_keys():
    stages = [Pipeline(Recipe.of("dart", tokens=tokens)).plan(shape("llava-1.5-7b")).stages for tokens in (192, 64)]
    assert [(s.layer, s.keep, s.reads) for (s,) in stages] == [(2, 166, ("keys",)), (2, 30, ("keys",))]


def test_budgets_below_the_full_layers_are_refused():
    with pytest.raises(BudgetError, match=r"smallest feasible budget is tokens=36\.94"):
        Pipeline(Recipe.of("dart", tokens=20)).plan(shape("llava-1.5-7b"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [("layer=0", "'layer' must be >= 1: 0"), ("image_pivots=0", "'image_pivots' must be >= 1: 0"),
     ("text_pivots=-1", "'text_pivots' must be >= 0: -1")],
)  # fmt: skip
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(f"dart:{options}")
    assert str(caught.value).endswith(f"refuses 'dart:{options}': {reason}")
