"""Laws of query selection."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
import torch

from headwise.layout import IMAGE, SYSTEM, TEXT, Layout
from headwise.plan import UNUSED, Queries
from headwise.testing.samples import Sample, padded
from headwise.testing.subject import Subject, same

WIDTH = 8


def real_tokens(subject: Subject, sample: Sample) -> None:
    """Queries are tokens of the row, each once, and never padding, with one image or several."""
    for left in (True, False):
        _queries(subject, sample, sample.layout(left=left))


def weights_sum_to_one(subject: Subject, sample: Sample) -> None:
    """Weights are not negative, sum to 1 over a row, and are 0 where a query is unused."""
    layout = sample.layout()
    weights = _weights(subject, sample, layout, _queries(subject, sample, layout))
    assert bool((weights >= 0).all()), "a weight is negative"
    same(torch.ones(sample.rows).double(), weights.double().sum(dim=-1), "weights of a row")


def inputs_untouched(subject: Subject, sample: Sample) -> None:
    """Layout and attention are as they were."""
    layout = sample.layout()
    queries = _queries(subject, sample, layout)
    assert np.array_equal(sample.layout().kinds, layout.kinds), "the layout was changed in place"
    rows = _rows(sample, layout, queries)
    subject.pipeline.attend(rows, queries)
    assert torch.equal(_rows(sample, layout, queries), rows), "the attention was changed in place"


def deterministic(subject: Subject, sample: Sample) -> None:
    """The same layout gets the same queries, in a second call and from a strategy built anew."""
    first = _asked(subject, sample, sample.layout())
    assert first == _asked(subject, sample, sample.layout()), "a second call differs"
    assert first == _asked(subject.again(), sample, sample.layout()), "a strategy built anew differs"


def rows_independent(subject: Subject, sample: Sample) -> None:
    """A row of a batch asks the tokens it asks alone, at the same weights."""
    layout = sample.layout()
    together = _asked(subject, sample, layout)
    for row in range(sample.rows):
        alone = _asked(subject, sample, layout.rows([row]), first_row=row)
        assert alone[0] == together[row], f"row {row} alone asks {alone[0]}, in the batch {together[row]}"


def padding_side(subject: Subject, sample: Sample) -> None:
    """Padding on the left, on the right or nowhere leaves the queries where they are among the tokens."""
    for row, prompt in enumerate(sample.prompts()):
        bare = _asked(subject, sample, Layout(np.array([prompt], dtype=np.uint8)), first_row=row)[0]
        for left in (True, False):
            asked = _asked(subject, sample, padded([prompt], left=left), first_row=row, offset=int(left))[0]
            assert asked == bare, f"padded on the {'left' if left else 'right'} it asks {asked}, unpadded {bare}"


def no_text(subject: Subject, sample: Sample) -> None:
    """A prompt that ends with its image, or has no image at all, still has a query."""
    ends_with_image = [SYSTEM, SYSTEM] + [IMAGE] * sample.visual
    for prompts in ([ends_with_image, [SYSTEM] * 4], [[SYSTEM], [IMAGE] * sample.visual]):
        layout = padded(prompts, left=bool(sample.seed % 2))
        queries = _queries(subject, sample, layout)
        subject.pipeline.attend(_rows(sample, layout, queries), queries)


def short_text(subject: Subject, sample: Sample) -> None:
    """Any number of text tokens will do, from one up."""
    prompts = [[SYSTEM] + [IMAGE] * sample.visual + [TEXT] * length for length in (1, 2, 3, 11)]
    layout = padded(prompts, left=bool(sample.seed % 2))
    queries = _queries(subject, sample, layout)
    subject.pipeline.attend(_rows(sample, layout, queries), queries)


def tokens_alike(subject: Subject, sample: Sample) -> None:
    """Tokens that are all zero, or all alike, still have queries among them, whose weights are numbers."""
    layout = sample.layout()
    for alike in (torch.zeros, torch.ones):
        tokens = [alike(layout.valid(row).size, WIDTH) for row in range(sample.rows)]
        queries = subject.pipeline.queries(layout, FakeEmbeddings(layout, tokens))
        subject.pipeline.attend(_rows(sample, layout, queries), queries)


def heads_and_visual_tokens_permute(subject: Subject, sample: Sample) -> None:
    """Weights that are made from attention do not depend on the order of heads or visual tokens."""
    layout = sample.layout()
    queries = _queries(subject, sample, layout)
    rows = _rows(sample, layout, queries)
    attended = subject.pipeline.attend(rows, queries)
    heads, visual = sample.order(sample.heads), sample.order(sample.visual)
    permuted = subject.pipeline.attend(rows[:, heads][..., visual], queries)
    same(attended[:, heads][..., visual], permuted, "attended attention does not follow a permutation")


@attrs.frozen(eq=False)
class FakeEmbeddings:
    """Made-up :class:`headwise.plan.Embeddings`: the ``tokens`` (n, 8) of each row of a layout, padding left out."""

    layout: Layout
    tokens: list[torch.Tensor]

    @classmethod
    def of(cls, sample: Sample, layout: Layout, *, first_row: int = 0) -> FakeEmbeddings:
        """Random ones, the same for a token of a row whatever the padding and the batch."""
        seeds = [sample.seed + 1009 * (first_row + row) for row in range(len(layout))]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return cls(
            layout,
            [torch.randn(layout.valid(row).size, WIDTH, generator=made) for row, made in enumerate(generators)],
        )

    def visual(self, row: int) -> torch.Tensor:
        """(v, 8)."""
        return self.at(row, self.layout.image(row))

    def at(self, row: int, positions: npt.NDArray[np.int64]) -> torch.Tensor:
        """(n, 8); asking for padding is an error."""
        valid = self.layout.valid(row)
        assert np.isin(positions, valid).all(), f"embeddings of padding are asked for in row {row}"
        return self.tokens[row][np.searchsorted(valid, positions)]


Asked = list[list[tuple[int, float]]]


def _asked(subject: Subject, sample: Sample, layout: Layout, *, first_row: int = 0, offset: int = 0) -> Asked:
    """(position, weight) of the used queries of each row, ascending; ``offset`` is taken off the positions."""
    queries = _queries(subject, sample, layout, first_row=first_row)
    weights = _weights(subject, sample, layout, queries, first_row=first_row)
    return [
        sorted(
            (int(position) - offset, round(float(weight), 5))
            for position, weight in zip(positions, row, strict=True)
            if position != UNUSED
        )
        for positions, row in zip(queries.positions, weights, strict=True)
    ]


def _queries(subject: Subject, sample: Sample, layout: Layout, *, first_row: int = 0) -> Queries:
    return subject.pipeline.queries(layout, FakeEmbeddings.of(sample, layout, first_row=first_row))


def _weights(subject: Subject, sample: Sample, layout: Layout, queries: Queries, *, first_row: int = 0) -> torch.Tensor:
    """Weights as a tensor, made from attention where they are a function of it; attending checks them."""
    rows = _rows(sample, layout, queries, first_row=first_row)
    subject.pipeline.attend(rows, queries)
    return queries.weights(rows) if callable(queries.weights) else torch.from_numpy(queries.weights)


def _rows(sample: Sample, layout: Layout, queries: Queries, *, first_row: int = 0) -> torch.Tensor:
    """Attention of the queries (rows, heads, queries, visual).

    It depends on the row and on where the token stands among the tokens of its row, so that it does not change with
    the padding or the batch. Unused queries and tokens in front of the image have none.
    """
    rows, width = queries.positions.shape
    attention = torch.zeros(rows, sample.heads, width, sample.visual)
    for row in range(rows):
        valid = layout.valid(row).tolist()
        image = layout.image(row)
        for query, position in enumerate(queries.positions[row].tolist()):
            if position == UNUSED or not image.size or position < image[0]:
                continue
            seed = sample.seed + 1009 * (first_row + row) + 31 * valid.index(position)
            attention[row, :, query] = Sample(seed, 1, sample.heads, sample.visual, sample.kind).attention()[0]
    return attention
