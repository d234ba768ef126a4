"""Prompts and padded batches for a harness's questions to a vision-language model, with any number of pictures."""

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
"""Marks the place of a picture in a task's text; if a text has no marks, its pictures come before it."""


@attrs.frozen(eq=False)
class HarnessRequest:
    """One request of a harness: its text, its pictures in RGB, and its source for error messages."""

    text: str
    pictures: tuple[Image.Image, ...] = ()
    source: str = "a request"


def pictures_of(found: Iterable[object] | None, source: str) -> tuple[Image.Image, ...]:
    """The pictures of a question, in RGB; there may be none. Raises DataError for videos and sounds."""
    pictures = []
    for picture in found or ():
        if not isinstance(picture, Image.Image):
            raise DataError(f"{source} has a {type(picture).__name__}, but headwise supports only pictures")
        pictures.append(picture.convert("RGB"))
    return tuple(pictures)


def encode(loaded: Loaded, asked: Sequence[HarnessRequest]) -> BatchFeature:
    """The tensors of one batch, padded on the left, on the model's device and in its dtype."""
    texts = [prompt(loaded.processor, one) for one in asked]
    pictures = [picture for one in asked for picture in one.pictures]
    return placed(tensors_of(loaded.processor, texts, pictures), loaded)


def prompt(processor: ProcessorMixin, asked: HarnessRequest) -> str:
    """The request in the model's chat template; a model without one gets LLaVA-1.5's."""
    return prompt_of(processor, _parts(asked))


def _parts(asked: HarnessRequest) -> list[str | None]:
    """The parts of a request in order: texts, and None for each picture.

    Raises DataError where the numbers of marks and pictures differ.
    """
    pieces = asked.text.split(MARK)
    marks, pictures = len(pieces) - 1, len(asked.pictures)
    if not marks:
        return [*[None] * pictures, asked.text]
    if marks != pictures:
        raise DataError(f"{asked.source} has {marks} marks {MARK} in its text, but {pictures} pictures")
    turns: list[str | None] = []
    for piece in pieces:
        turns += [piece, None]
    return [part for part in turns[:-1] if part is None or part.strip()]


def continuation(loaded: Loaded, asked: HarnessRequest, text: str) -> list[int]:
    """The tokens of an answer after the request's prompt, with a blank between them unless the prompt ends with one."""
    tokenizer, before = loaded.processor.tokenizer, prompt(loaded.processor, asked)
    blank = "" if before[-1:].isspace() else " "
    special = not begun(tokenizer, [before])
    read = tokenizer(before, add_special_tokens=special)["input_ids"]
    whole: list[int] = tokenizer(before + blank + text.lstrip(), add_special_tokens=special)["input_ids"]
    if len(whole) <= len(read):
        raise DataError(f"{asked.source} has an answer that is no token long: {text!r}")
    return whole[len(read) :]
