"""A benchmark's questions as a model sees them: batches of tensors, boxes as tokens, image features.

None of it depends on a recipe, so the trials of a study share one :class:`Inputs`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch import Tensor

from headwise.attachment import adapter_for
from headwise.errors import DataError
from headwise_adapters.pruning.prefix import Prefix
from headwise_lab.benchmarks import Benchmark, Question
from headwise_lab.benchmarks.pictures import size_of
from headwise_lab.benchmarks.prompting import check_questions, encode
from headwise_lab.metrics.overlap import Box, Mask, token_mask
from headwise_lab.models.load import Loaded
from headwise_lab.models.placing import DTYPES

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin


SAMPLE = 64
"""Image features of so many questions are held, to measure how diverse the kept tokens are."""

ROOM = 2**30  # at most so many bytes of tensors are held for the next trial; others are computed again


@attrs.frozen(eq=False)
class Batch:
    """Consecutive questions: the number of the first, tensors on the CPU, and each row's visual and other tokens."""

    first: int
    tensors: BatchFeature
    visual: tuple[int, ...]
    text: tuple[int, ...]

    def on(self, loaded: Loaded) -> BatchFeature:
        """The tensors on the model's device and in its dtype."""
        return placed(self.tensors, loaded)


def placed(tensors: BatchFeature, loaded: Loaded) -> BatchFeature:
    """A processor's tensors on the model's device and in its dtype."""
    return tensors.to(device=loaded.device, dtype=DTYPES[loaded.dtype])


class Inputs:
    """Questions of a benchmark, ready for one model."""

    def __init__(self, loaded: Loaded, benchmark: Benchmark, questions: Sequence[Question], batch: int) -> None:
        self.loaded, self.benchmark, self.questions, self.batch = loaded, benchmark, tuple(questions), batch
        self._batches: dict[int, Batch] = {}
        self._room = ROOM
        self._checked = False

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def prefix(self) -> Prefix:
        """What the model computes for these questions under every recipe; a batch's key is its first question."""
        return Prefix(self.loaded.model, adapter_for(self.loaded.model).decoder)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of a SHA-256 over all questions and pictures."""
        found = hashlib.sha256()
        for question in self.questions:
            content = attrs.asdict(question) | {"image": question.image.name}
            found.update(json.dumps(content, sort_keys=True).encode())
        for path in sorted({question.image for question in self.questions}):
            found.update(path.name.encode() + _content(path))
        return found.hexdigest()[:16]

    def check(self) -> None:
        """Check every question and picture, once, before the first question is asked.

        Raises DataError, naming question and picture, for one that cannot be given to the model.
        """
        if not self._checked:
            check_questions(self.loaded.processor, self.questions)
            self._checked = True

    def starts(self) -> range:
        """The numbers of the first questions of all batches."""
        return range(0, len(self), self.batch)

    def batches(self) -> Iterator[Batch]:
        """Every question once, in order."""
        return map(self.batch_of, self.starts())

    def batch_of(self, first: int) -> Batch:
        """The batch whose first question has this number."""
        return self._batches.get(first) or self._made(first)

    def _made(self, first: int) -> Batch:
        loaded, questions = self.loaded, self.questions[first : first + self.batch]
        tensors = encode(loaded.processor, questions)
        images = tensors["input_ids"] == loaded.model.config.image_token_id
        visual = tuple(images.sum(dim=1).tolist())
        valid = tensors["attention_mask"].sum(dim=1).tolist()
        text = tuple(length - count for length, count in zip(valid, visual, strict=True))
        batch = Batch(first, tensors, visual, text)
        size = sum(value.nbytes for value in tensors.values())
        if size <= self._room:
            self._batches[first], self._room = batch, self._room - size
        return batch

    @cached_property
    def truths(self) -> list[Mask | None]:
        """The visual tokens under each question's boxes; None without boxes, or where tokens have no known place."""
        side, tokens = crop_side(self.loaded.processor), self.loaded.geometry.visual_tokens
        return [self._truth(question, side, tokens) for question in self.questions]

    @property
    def pictures(self) -> str | None:
        """How a picture becomes a square: ``padded`` or ``cropped``; None where tokens have no known place in it."""
        return made_square(self.loaded.processor)

    def _truth(self, question: Question, side: int | None, tokens: int) -> Mask | None:
        if not question.boxes or side is None or round(tokens**0.5) ** 2 != tokens:
            return None
        size = size_of(question.image)
        if self.pictures == "padded":
            return token_mask(*squared(question.boxes, size), tokens, side)
        return token_mask(question.boxes, size, tokens, side)

    @cached_property
    def features(self) -> list[Tensor]:
        """Projected image features of the first SAMPLE questions: float32 (v, d) each, scaled to length 1."""
        found: list[Tensor] = []
        for batch in self.batches():
            if batch.first >= SAMPLE:
                break
            with self.prefix.remembered(batch.first):
                found += image_features(self.loaded, batch)
        return found[:SAMPLE]


def crop_side(processor: ProcessorMixin) -> int | None:
    """Pixels per side of the square that the vision tower sees; None for a processor that does not crop as CLIP's.

    CLIP's processor makes the shortest side as long as the square that it cuts out. A processor that cuts a picture
    into several crops (LLaVA-NeXT) shows several squares.
    """
    images = processor.image_processor
    if not (getattr(images, "do_center_crop", False) and getattr(images, "do_resize", False)):
        return None
    sides = {images.size.get("shortest_edge"), images.crop_size["height"], images.crop_size["width"]}
    if len(sides) > 1 or getattr(images, "image_grid_pinpoints", None):
        return None
    return int(images.crop_size["height"])


def made_square(processor: ProcessorMixin) -> str | None:
    """How a picture becomes a square: ``padded`` or ``cropped``; None where tokens have no known place in it."""
    if crop_side(processor) is None:
        return None
    images = processor.image_processor
    padded = hasattr(images, "pad_to_square") and getattr(images, "do_pad", False)
    return "padded" if padded else "cropped"


def squared(boxes: Sequence[Box], size: tuple[int, int]) -> tuple[list[Box], tuple[int, int]]:
    """Boxes and size of a picture after borders made it square; of an odd border, the last pixel is right or below."""
    width, height = size
    side = max(size)
    right, down = (side - width) // 2, (side - height) // 2
    return [(x0 + right, y0 + down, x1 + right, y1 + down) for x0, y0, x1, y1 in boxes], (side, side)


@torch.inference_mode()
def image_features(loaded: Loaded, batch: Batch) -> list[Tensor]:
    """The features of each row's visual tokens as the language model gets them: float32 (v, d) on the CPU, of length 1.

    The model gets every argument that it takes for pictures, such as their sizes. ``v`` differs from row to row. Raises
    DataError where the model returns more or fewer features than the rows have visual tokens.
    """
    tensors, wanted = batch.on(loaded), inspect.signature(loaded.model.get_image_features).parameters
    features = loaded.model.get_image_features(**{name: tensors[name] for name in tensors if name in wanted})
    features = getattr(features, "pooler_output", features)
    tokens = torch.cat([row.reshape(-1, row.shape[-1]) for row in features]).float().cpu()
    if len(tokens) != sum(batch.visual):
        raise DataError(f"the model has {len(tokens)} image features for {sum(batch.visual)} visual tokens")
    return list(torch.split(torch.nn.functional.normalize(tokens, dim=-1), list(batch.visual)))


def diversity(features: Sequence[Tensor], kept: Sequence[Sequence[int]]) -> float | None:
    """1 - mean pairwise cosine of each row's kept tokens, averaged over rows; None where no row keeps two.

    Of k unit vectors with sum s, the mean over pairs is (|s|^2 - k) / (k (k - 1)).
    """
    values = []
    for row, tokens in zip(features, kept, strict=False):
        count = len(tokens)
        if count > 1:
            total = float(row[list(tokens)].sum(dim=0).square().sum())
            values.append(1 - (total - count) / (count * (count - 1)))
    return float(np.mean(values)) if values else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the picture {path} cannot be read: {error.strerror}") from error
