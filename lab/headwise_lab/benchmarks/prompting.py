"""Questions and pictures as a model's processor takes them, and what cannot be asked, named before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from headwise.errors import DataError
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.pictures import check, rgb
from headwise_lab.models.checkpoints import first_line

MARKS = ("image_token", "video_token", "audio_token")
"""Attributes of a processor that tell what stands in a prompt for something which is no text."""


def encode(processor: Any, questions: Sequence[Question]) -> Any:
    """Token ids, attention mask and pixel values of one batch, padded on the left.

    Raises DataError that names the first question which the processor cannot take alone, or all where only the batch
    is too much for it.
    """
    pictures = [picture(question) for question in questions]
    try:
        return _encoded(processor, questions, pictures)
    except Exception as error:  # a processor raises whatever its parts do
        raise _not_taken(processor, questions, pictures, error) from error


def _encoded(processor: Any, questions: Sequence[Question], pictures: Sequence[Image.Image]) -> Any:
    texts = [prompt(processor, question.text) for question in questions]
    start = getattr(processor.tokenizer, "bos_token", None)
    has_start = isinstance(start, str) and all(
        text.startswith(start) for text in texts
    )  # some templates write it themselves
    return processor(
        text=texts,
        images=list(pictures),
        return_tensors="pt",
        padding=True,
        add_special_tokens=not has_start,
    )


def _not_taken(
    processor: Any, questions: Sequence[Question], pictures: Sequence[Image.Image], error: Exception
) -> DataError:
    told = f"questions {', '.join(question.id for question in questions)}"
    for question, shown in zip(questions, pictures, strict=True):
        try:
            _encoded(processor, [question], [shown])
        except Exception as alone:
            told, error = f"question {question.id} (picture {question.image})", alone
            break
    return DataError(f"{told} cannot be given to the model: its {type(processor).__name__} says: {first_line(error)}")


def prompt(processor: Any, text: str) -> str:
    """A question with its picture in the model's chat template, or in that of LLaVA-1.5 where it has none."""
    if not getattr(processor, "chat_template", None):
        return f"USER: <image>\n{text} ASSISTANT:"
    content = [{"type": "image"}, {"type": "text", "text": text}]
    told: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return told


def picture(question: Question) -> Image.Image:
    """The question's picture, upright and in RGB; raises DataError where it cannot be read."""
    with _asked_by(question):
        return rgb(question.image)


@contextmanager
def _asked_by(question: Question) -> Iterator[None]:
    """A DataError inside names the question."""
    try:
        yield
    except DataError as error:
        raise DataError(f"question {question.id}: {error}") from error


def check_questions(processor: Any, questions: Sequence[Question]) -> None:
    """Read every picture and look at every text; raises DataError that names the first question which cannot be asked.

    ``processor`` None: where no model is loaded, pictures alone are looked at.
    """
    marks = [mark for name in MARKS if isinstance(mark := getattr(processor, name, None), str) and mark]
    sizes: dict[Path, tuple[int, int]] = {}
    for question in questions:
        found = next((mark for mark in marks if mark in question.text), None)
        if found is not None:
            raise DataError(
                f"question {question.id} (picture {question.image}) has {found} in its text, which the model takes for"
                " a picture; take it out"
            )
        if question.image not in sizes:
            with _asked_by(question):
                sizes[question.image] = check(question.image)
    if processor is not None and questions:
        _check_sizes(processor, {sizes[question.image]: question for question in reversed(questions)})


def _check_sizes(processor: Any, asked: Mapping[tuple[int, int], Question]) -> None:
    """Ask the processor what becomes of pictures of these sizes, and give it one question in full."""
    for (width, height), question in asked.items():
        try:  # private, and refuses what the processor would refuse once it sees the picture
            processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        except ValueError as error:
            raise DataError(
                f"question {question.id} (picture {question.image}, {width} x {height} pixels) cannot be given to the"
                f" model: {first_line(error)}"
            ) from error
        except Exception:  # a processor without it, or with a fault that shows in the next line
            break
    encode(processor, list(asked.values())[-1:])
