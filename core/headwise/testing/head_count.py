"""Laws of head counts."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise.testing.samples import Sample
from headwise.testing.subject import Subject, devices, same


def shape_dtype_device(subject: Subject, sample: Sample) -> None:
    """Counts are integers (rows,) on the device of the scores."""
    for device in devices():
        counts = _count(subject, sample.scores().to(device))
        assert counts.device.type == device.type, f"wanted counts on {device}, got {counts.device}"


def within_the_heads(subject: Subject, sample: Sample) -> None:
    """Counts are in 1..heads, for scores of any sign and size."""
    for scores in (sample.scores(), -sample.scores(), sample.scores() * 1e-6, sample.scores() * 1e6):
        _count(subject, scores)


def inputs_untouched(subject: Subject, sample: Sample) -> None:
    """The scores are as they were."""
    scores = sample.scores()
    _count(subject, scores)
    assert torch.equal(sample.scores(), scores), "the scores were changed in place"


def deterministic(subject: Subject, sample: Sample) -> None:
    """The same scores get the same counts, in a second call and from a strategy built anew."""
    first = _count(subject, sample.scores())
    same(first, _count(subject, sample.scores()), "a second call differs", tolerance=0.0)
    same(first, _count(subject.again(), sample.scores()), "a strategy built anew differs", tolerance=0.0)


def rows_independent(subject: Subject, sample: Sample) -> None:
    """A row of a batch gets the count it gets alone."""
    scores = sample.scores()
    together = _count(subject, scores)
    for row in range(sample.rows):
        same(_count(subject, scores[row : row + 1])[0], together[row], f"row {row} is counted differently alone")


def heads_permute(subject: Subject, sample: Sample) -> None:
    """The order of the heads does not matter."""
    scores = sample.scores()
    permuted = _count(subject, scores[:, sample.order(sample.heads)])
    same(_count(subject, scores), permuted, "counts depend on the order of the heads")


def equal_scores(subject: Subject, sample: Sample) -> None:
    """Heads that score the same, or nothing at all, are counted."""
    _count(subject, torch.full((sample.rows, sample.heads), 0.25))
    _count(subject, torch.zeros(sample.rows, sample.heads))


def vetoed_heads(subject: Subject, sample: Sample) -> None:
    """Heads vetoed with -inf do no harm, up to all but one."""
    for vetoed in (1, sample.heads // 2, sample.heads - 1):
        scores = sample.scores()
        scores[:, :vetoed] = float("-inf")
        _count(subject, scores)


def single_head(subject: Subject, sample: Sample) -> None:
    """Of one head, one is kept."""
    counts = _count(subject, attrs.evolve(sample, heads=1).scores())
    assert bool((counts == 1).all()), f"wanted 1, got {counts.tolist()}"


def target_is_the_count(subject: Subject, sample: Sample) -> None:
    """A rule that says its count beforehand keeps to it."""
    target = getattr(subject.strategy.plugin, "target", None)
    if target is None:
        return
    counts, wanted = _count(subject, sample.scores()), target(sample.heads)
    assert bool((counts == wanted).all()), f"target({sample.heads}) is {wanted}, but the counts are {counts.tolist()}"


def _count(subject: Subject, scores: Tensor) -> Tensor:
    """Counts of scores, in range and of integer dtype: what every law may rely on."""
    counts = subject.answer(scores=scores)
    rows, heads = scores.shape
    assert isinstance(counts, Tensor), f"wanted a tensor, got {type(counts).__name__}"
    assert tuple(counts.shape) == (rows,), f"wanted shape {(rows,)}, got {tuple(counts.shape)}"
    is_integer = not (counts.is_floating_point() or counts.dtype == torch.bool)
    assert is_integer, f"wanted integers, got {counts.dtype}"
    assert bool(((counts >= 1) & (counts <= heads)).all()), f"wanted counts in 1..{heads}, got {counts.tolist()}"
    return counts
