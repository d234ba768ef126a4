"""textvqa: what is written in a picture, scored softly against ten people's answers (Singh et al. 2019,
arXiv:1904.08920).

``TextVQA_0.5.1_val.json`` and ``train_images/``, which also holds the validation pictures. LLaVA-1.5's published figure
is for ``textvqa-ocr``: its prompt tells the model what an OCR system read. The plain prompt is the harder test.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question
from headwise_lab.benchmarks.files import Entry, QuestionRow, distinct, json_members
from headwise_lab.benchmarks.official.common import SoftVqa
from headwise_lab.benchmarks.official.reading import PEOPLE, first_existing, in_file_order

FILE = "TextVQA_0.5.1_val.json"
OCR_FILE = "TextVQA_Rosetta_OCR_v0.2_val.json"
IMAGES = "train_images"
KIND = "text"


class TextVqa(SoftVqa):
    """TextVQA's validation split, by soft VQA accuracy; no OCR tokens in the prompt."""

    name = "textvqa"
    files = f"{FILE} and {IMAGES}/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        path, images = folder / FILE, first_existing(folder, IMAGES, "train_val_images/train_images")
        hints = self.hints(folder)
        entries = distinct(path, [(entry.text("question_id"), entry) for entry in json_members(path, "data")])
        return in_file_order([_row(name, entry, images, hints) for name, entry in entries.items()], limit)

    def hints(self, folder: Path) -> dict[str, str] | None:
        """Picture -> line of the prompt that says what an OCR system read; None where the prompt has no such line."""
        return None


class TextVqaOcr(TextVqa):
    """TextVQA's validation split with Rosetta's OCR tokens in the prompt, as LLaVA-1.5 is evaluated."""

    name = "textvqa-ocr"
    files = f"{FILE}, {OCR_FILE} and {IMAGES}/"

    def hints(self, folder: Path) -> dict[str, str] | None:
        """Picture -> a line with its tokens in the file's order, separated by commas."""
        entries = json_members(folder / OCR_FILE, "data")
        return {entry.text("image_id"): f"\nReference OCR token: {', '.join(_tokens(entry))}" for entry in entries}


def _tokens(entry: Entry) -> list[str]:
    tokens = entry.field("ocr_tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise entry.wrong("'ocr_tokens' should be a list of texts")
    return tokens


def _row(name: str, entry: Entry, images: Path, hints: dict[str, str] | None) -> QuestionRow:
    """One question. The file has lower-case letters only; LLaVA-1.5 begins a question with a capital letter."""
    image = entry.text("image_id")
    if hints is not None and image not in hints:
        raise entry.wrong(f"picture {image!r} has no entry in {OCR_FILE}")
    text = entry.text("question").capitalize() + (hints[image] if hints else "") + SUFFIX
    question = Question(name, name, images / image, text, entry.texts("answers", PEOPLE), KIND)
    return QuestionRow(question, entry, (".jpg", ".png"))
