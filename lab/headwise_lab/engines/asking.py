"""Questions of a harness to a vision-language model: any number of pictures each, also none, in padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
from PIL import Image

from headwise.errors import DataError
from headwise_lab.benchmarks.inputs import placed
from headwise_lab.benchmarks.prompting import begun, prompt_of, tensors_of
from headwise_lab.models.load import Loaded

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin


MARK = "<image>"
"""Where a task's text wants a picture; a text without marks gets its pictures ahead of it."""


@attrs.frozen(eq=False)
class Asked:
    """One request: its text, its pictures in RGB, and where it comes from, for errors."""

    text: str
    pictures: tuple[Image.Image, ...] = ()
    source: str = "a request"


def pictures_of(found: Iterable[object] | None, source: str) -> tuple[Image.Image, ...]:
    """The pictures a task gives with a question, which may be none; raises DataError for videos and sounds."""
    pictures = []
    for picture in found or ():
        if not isinstance(picture, Image.Image):
            raise DataError(f"{source} comes with a {type(picture).__name__}; headwise looks at pictures only")
        pictures.append(picture.convert("RGB"))
    return tuple(pictures)


def encode(loaded: Loaded, asked: Sequence[Asked]) -> BatchFeature:
    """Tensors of one batch, padded on the left, where the model is and in its dtype."""
    texts = [prompt(loaded.processor, one) for one in asked]
    pictures = [picture for one in asked for picture in one.pictures]
    return placed(tensors_of(loaded.processor, texts, pictures), loaded)


def prompt(processor: ProcessorMixin, asked: Asked) -> str:
    """The request in the model's chat template, or in that of LLaVA-1.5 where it has none."""
    return prompt_of(processor, _parts(asked))


def _parts(asked: Asked) -> list[str | None]:
    """Text and pictures (None) in turn; raises DataError where marks and pictures differ in number."""
    pieces = asked.text.split(MARK)
    marks, pictures = len(pieces) - 1, len(asked.pictures)
    if not marks:
        return [*[None] * pictures, asked.text]
    if marks != pictures:
        raise DataError(f"{asked.source} has {marks} marks {MARK} in its text and {pictures} pictures")
    turns: list[str | None] = []
    for piece in pieces:
        turns += [piece, None]
    return [part for part in turns[:-1] if part is None or part.strip()]


def continuation(loaded: Loaded, asked: Asked, text: str) -> list[int]:
    """The tokens of an answer ``text`` after the request's prompt, one blank between them unless a line ends there."""
    tokenizer, before = loaded.processor.tokenizer, prompt(loaded.processor, asked)
    blank = "" if before[-1:].isspace() else " "
    special = not begun(tokenizer, [before])
    read = tokenizer(before, add_special_tokens=special)["input_ids"]
    whole: list[int] = tokenizer(before + blank + text.lstrip(), add_special_tokens=special)["input_ids"]
    if len(whole) <= len(read):
        raise DataError(f"{asked.source} has an answer without a token: {text!r}")
    return whole[len(read) :]
