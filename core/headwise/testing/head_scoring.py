"""Laws of head scoring."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from headwise.testing.samples import Sample
from headwise.testing.subject import Subject, devices, same


def shape_dtype_device(subject: Subject, sample: Sample) -> None:
    """Scores are real numbers (rows, heads) on the device of the attention."""
    for device in devices():
        scores = _score(subject, sample, sample.attention().to(device))
        wanted = (sample.rows, sample.heads)
        assert tuple(scores.shape) == wanted, f"wanted scores of shape {wanted}, got {tuple(scores.shape)}"
        assert scores.is_floating_point(), f"wanted scores of a floating dtype, got {scores.dtype}"
        assert scores.device.type == device.type, f"wanted scores on {device}, got {scores.device}"


def finite(subject: Subject, sample: Sample) -> None:
    """No score is NaN or plus infinity, and no row has every head vetoed."""
    _check_finite(_score(subject, sample, sample.attention()))


def inputs_untouched(subject: Subject, sample: Sample) -> None:
    """Attention and seeds are as they were."""
    attention, seeds = sample.attention(), sample.seeds()
    _score(subject, sample, attention, seeds=seeds)
    assert torch.equal(sample.attention(), attention), "the attention was changed in place"
    assert torch.equal(sample.seeds(), seeds), "the seeds were changed in place"


def deterministic(subject: Subject, sample: Sample) -> None:
    """The same attention gets the same scores, in a second call and from a strategy built anew."""
    first = _score(subject, sample, sample.attention())
    same(first, _score(subject, sample, sample.attention()), "a second call differs", tolerance=0.0)
    same(first, _score(subject.again(), sample, sample.attention()), "a strategy built anew differs", tolerance=0.0)


def global_randomness_untouched(subject: Subject, sample: Sample) -> None:
    """Random numbers are drawn from the seeds, never from torch's global generator."""
    before = torch.get_rng_state()
    _score(subject, sample, sample.attention())
    assert torch.equal(before, torch.get_rng_state()), "torch's global random state was used"


def rows_independent(subject: Subject, sample: Sample) -> None:
    """A row of a batch gets the scores it gets alone."""
    attention, seeds = sample.attention(), sample.seeds()
    together = _score(subject, sample, attention)
    for row in range(sample.rows):
        alone = _score(subject, sample, attention[row : row + 1], seeds=seeds[row : row + 1])
        same(alone[0], together[row], f"row {row} is scored differently alone")


def heads_permute(subject: Subject, sample: Sample) -> None:
    """Permuting the heads permutes their scores."""
    order = sample.order(sample.heads)
    scores = _score(subject, sample, sample.attention())
    permuted = _score(subject, sample, sample.attention()[:, order])
    same(scores[:, order], permuted, "scores do not follow a permutation of heads")


def visual_tokens_permute(subject: Subject, sample: Sample) -> None:
    """The order of the visual tokens does not matter."""
    order = sample.order(sample.visual)
    scores = _score(subject, sample, sample.attention())
    permuted = _score(subject, sample, sample.attention()[:, :, order])
    same(scores, permuted, "scores depend on the order of the visual tokens")


def half_precision(subject: Subject, sample: Sample) -> None:
    """Half-precision attention is scored like the same values in float32."""
    for dtype in (torch.float16, torch.bfloat16):
        half = sample.attention().to(dtype)
        scores = _score(subject, sample, half)
        same(_score(subject, sample, half.float()), scores.float(), f"{dtype} scores differ from float32")


def no_attention(subject: Subject, sample: Sample) -> None:
    """Heads that do not look at the image get finite scores, also when no head does."""
    blind = sample.attention()
    blind[:, : sample.heads // 2] = 0.0
    _check_finite(_score(subject, sample, blind))
    _check_finite(_score(subject, sample, torch.zeros_like(blind)))


def single_visual_token(subject: Subject, sample: Sample) -> None:
    """One visual token is enough."""
    _check_finite(_score(subject, sample, attrs.evolve(sample, visual=1).attention()))


def single_head(subject: Subject, sample: Sample) -> None:
    """One head is enough."""
    one = attrs.evolve(sample, heads=1)
    scores = _score(subject, one, one.attention())
    assert tuple(scores.shape) == (sample.rows, 1), f"wanted shape {(sample.rows, 1)}, got {tuple(scores.shape)}"
    _check_finite(scores)


def notes_per_row(subject: Subject, sample: Sample) -> None:
    """What is noted has one value per row."""
    notes: dict[str, Sequence[object]] = {}
    _score(subject, sample, sample.attention(), notes=notes)
    for key, values in notes.items():
        assert len(values) == sample.rows, f"note {key!r} has {len(values)} values for {sample.rows} rows"


def _score(
    subject: Subject,
    sample: Sample,
    attention: Tensor,
    *,
    seeds: Tensor | None = None,
    notes: dict[str, Sequence[object]] | None = None,
) -> Tensor:
    """Scores of attention, for a target that is unknown, small or everything, and a share, as the seed says."""
    target = (None, max(1, sample.heads // 2), sample.heads)[sample.seed % 3]
    scores = subject.answer(
        attention=attention,
        target=target,
        share=(0.1, 0.25, 0.5)[sample.seed % 3],
        seeds=(sample.seeds() if seeds is None else seeds).to(attention.device),
        note=({} if notes is None else notes).__setitem__,
    )
    assert isinstance(scores, Tensor), f"wanted a tensor, got {type(scores).__name__}"
    return scores


def _check_finite(scores: Tensor) -> None:
    assert not torch.isnan(scores).any(), "a score is NaN"
    assert not torch.isposinf(scores).any(), "a score is infinite"
    assert not torch.isneginf(scores).all(dim=-1).any(), "every head of a row is vetoed"
