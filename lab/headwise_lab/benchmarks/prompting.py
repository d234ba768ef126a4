"""Questions and pictures as a model's processor takes them, and what cannot be asked, named before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from headwise.errors import DataError, HeadwiseError
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.pictures import check, rgb
from headwise_lab.models.checkpoints import first_line

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin


MARKS = ("image_token", "video_token", "audio_token")
"""Attributes of a processor that tell what stands in a prompt for something which is no text."""


def encode(processor: ProcessorMixin, questions: Sequence[Question]) -> BatchFeature:
    """Token ids, attention mask and pixel values of one batch, padded on the left.

    Raises DataError that names the first question which the processor cannot take alone, or all where only the batch
    is too much for it.
    """
    pictures = [picture(question) for question in questions]
    try:
        return _encoded(processor, questions, pictures)
    except Exception as error:  # a processor raises whatever its parts do
        named, cause = failing(questions, lambda one: _encoded(processor, [one], [picture(one)]), error)
        who = type(processor).__name__
        raise DataError(f"{named} cannot be given to the model: its {who} says: {first_line(cause)}") from error


def _encoded(processor: ProcessorMixin, questions: Sequence[Question], pictures: Sequence[Image.Image]) -> BatchFeature:
    return tensors_of(processor, [prompt(processor, question.text) for question in questions], pictures)


def tensors_of(processor: ProcessorMixin, texts: Sequence[str], pictures: Sequence[Image.Image]) -> BatchFeature:
    """Prompts and all of their pictures as the processor has them, padded on the left."""
    return processor(
        text=list(texts),
        images=list(pictures) or None,
        return_tensors="pt",
        padding=True,
        add_special_tokens=not begun(processor.tokenizer, texts),
    )


def begun(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> bool:
    """Whether the texts bring their beginning-of-text token along, as some chat templates write it."""
    start = getattr(tokenizer, "bos_token", None)
    return isinstance(start, str) and all(text.startswith(start) for text in texts)


Attempt = Callable[[Question], object]


def failing(questions: Sequence[Question], attempt: Attempt, error: Exception) -> tuple[str, Exception]:
    """Of questions that failed together with ``error``, the first that fails alone as well, by name, and its error.

    All of them and ``error`` where none does. A HeadwiseError of an attempt, which names the question, is raised.
    """
    for question in questions if len(questions) > 1 else ():
        try:
            attempt(question)
        except HeadwiseError:
            raise
        except Exception as alone:
            questions, error = (question,), alone
            break
    if len(questions) > 1:
        return f"questions {', '.join(question.id for question in questions)}", error
    return f"question {questions[0].id} (picture {questions[0].image})", error


def prompt(processor: ProcessorMixin, text: str) -> str:
    """A question with its picture in the model's chat template, or in that of LLaVA-1.5 where it has none."""
    return prompt_of(processor, [None, text])


def prompt_of(processor: ProcessorMixin, parts: Sequence[str | None]) -> str:
    """Texts and pictures (None) in turn, in the model's chat template, or in that of LLaVA-1.5 where it has none."""
    if not getattr(processor, "chat_template", None):
        body = "".join("<image>\n" if part is None else part for part in parts)
        return f"USER: {body} ASSISTANT:"
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
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


def check_questions(processor: ProcessorMixin, questions: Sequence[Question]) -> None:
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


def _check_sizes(processor: ProcessorMixin, asked: Mapping[tuple[int, int], Question]) -> None:
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
