"""Questions and pictures as a model's processor takes them; what it cannot take is refused before anything is run."""

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
"""Attributes of a processor: the texts that stand in a prompt for a picture, a video or a sound."""


def encode(processor: ProcessorMixin, questions: Sequence[Question]) -> BatchFeature:
    """Token ids, attention mask and pixel values of one batch, padded on the left.

    Raises DataError that names the first question that the processor cannot take alone. Where it takes each question
    alone and not the batch, the error names all of them.
    """
    pictures = [picture(question) for question in questions]
    try:
        return _encoded(processor, questions, pictures)
    except Exception as error:  # the parts of a processor raise errors of any class
        named, cause = failing(questions, lambda one: _encoded(processor, [one], [picture(one)]), error)
        who = type(processor).__name__
        raise DataError(f"{named} cannot be given to the model: its {who} says: {first_line(cause)}") from error


def _encoded(processor: ProcessorMixin, questions: Sequence[Question], pictures: Sequence[Image.Image]) -> BatchFeature:
    return tensors_of(processor, [prompt(processor, question.text) for question in questions], pictures)


def tensors_of(processor: ProcessorMixin, texts: Sequence[str], pictures: Sequence[Image.Image]) -> BatchFeature:
    """Prompts and all of their pictures as tensors, padded on the left."""
    return processor(
        text=list(texts),
        images=list(pictures) or None,
        return_tensors="pt",
        padding=True,
        add_special_tokens=not begun(processor.tokenizer, texts),
    )


def begun(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> bool:
    """Whether all texts already start with the beginning-of-text token, which some chat templates write."""
    start = getattr(tokenizer, "bos_token", None)
    return isinstance(start, str) and all(text.startswith(start) for text in texts)


Attempt = Callable[[Question], object]


def failing(questions: Sequence[Question], attempt: Attempt, error: Exception) -> tuple[str, Exception]:
    """Which of the questions that failed together with ``error`` is at fault: its name, and its own error.

    It is the first that also fails alone; where none does, the answer is all of them and ``error``. A HeadwiseError of
    an attempt names the question already, so it is raised.
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
    """A question with its picture in the model's chat template; a model without one gets LLaVA-1.5's."""
    return prompt_of(processor, [None, text])


def prompt_of(processor: ProcessorMixin, parts: Sequence[str | None]) -> str:
    """Texts and pictures (None) in order, in the model's chat template; a model without one gets LLaVA-1.5's."""
    if not getattr(processor, "chat_template", None):
        body = "".join("<image>\n" if part is None else part for part in parts)
        return f"USER: {body} ASSISTANT:"
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


def picture(question: Question) -> Image.Image:
    """The question's picture, upright and in RGB; raises DataError where it cannot be read."""
    with _asked_by(question):
        return rgb(question.image)


@contextmanager
def _asked_by(question: Question) -> Iterator[None]:
    """A DataError raised inside the block also names the question."""
    try:
        yield
    except DataError as error:
        raise DataError(f"question {question.id}: {error}") from error


def check_questions(processor: ProcessorMixin, questions: Sequence[Question]) -> None:
    """Check every picture and every text; raises DataError that names the first question that cannot be asked.

    ``processor`` is None where no model is loaded; then only pictures are checked.
    """
    marks = [mark for name in MARKS if isinstance(mark := getattr(processor, name, None), str) and mark]
    sizes: dict[Path, tuple[int, int]] = {}
    for question in questions:
        found = next((mark for mark in marks if mark in question.text), None)
        if found is not None:
            raise DataError(
                f"question {question.id} (picture {question.image}) has {found} in its text, which the model takes for"
                " a picture; remove it"
            )
        if question.image not in sizes:
            with _asked_by(question):
                sizes[question.image] = check(question.image)
    if processor is not None and questions:
        _check_sizes(processor, {sizes[question.image]: question for question in reversed(questions)})


def _check_sizes(processor: ProcessorMixin, asked: Mapping[tuple[int, int], Question]) -> None:
    """Ask the processor how many tokens pictures of these sizes become, and encode one question completely."""
    for (width, height), question in asked.items():
        try:  # a private method, which refuses the sizes that the processor refuses
            processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        except ValueError as error:
            raise DataError(
                f"question {question.id} (picture {question.image}, {width} x {height} pixels) cannot be given to the"
                f" model: {first_line(error)}"
            ) from error
        except Exception:  # the processor lacks it, or is at fault otherwise; encoding then shows the fault
            break
    encode(processor, list(asked.values())[-1:])
