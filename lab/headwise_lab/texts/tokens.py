"""Token ids of the text that a language model reads: a file of the user, or a text that ships with headwise."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from headwise.errors import DataError
from headwise.reading import local_path, text_of
from headwise_lab.texts import TEXTS, shipped_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


LARGEST = 2**30  # bytes; the whole text is tokenized at once
FEWEST = 2  # tokens: one to read, one to predict


@attrs.frozen(eq=False)
class Text:
    """A text in the tokens of one tokenizer.

    ``ids`` int64 (n,): its first n tokens, including a beginning-of-text token where there is one. ``digest``: the
    first 16 hexadecimal digits of a SHA-256 over the whole text in UTF-8. ``source``: what the user gave; ``name``: the
    name in records.
    """

    name: str
    digest: str
    ids: Tensor
    source: str = ""


def tokens_of(tokenizer: PreTrainedTokenizerBase, source: str | Path, count: int | None = None) -> Text:
    """The first ``count`` tokens of a UTF-8 file or a shipped text; all where ``count`` is None.

    They begin with the beginning-of-text token where the tokenizer adds one to every text (those of Llama and
    demo-pythia do, those of Pythia and SmolLM2 do not). Raises DataError for a file that is missing, not UTF-8, or too
    short.
    """
    name, content = content_of(source)
    encoded = tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"]
    begin = beginning(tokenizer)
    ids = encoded if begin and encoded[:1] == begin else [*begin, *encoded]  # some texts contain it already
    wanted = FEWEST if count is None else count
    if wanted < FEWEST:
        raise DataError(f"{count} tokens leave nothing to predict; give at least {FEWEST}")
    if len(ids) < wanted:
        raise DataError(f"text {name} has {len(ids)} tokens and {wanted} are wanted; give fewer or a longer text")
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Text(name, digest, torch.tensor(ids[:count], dtype=torch.int64), str(source))


def beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-text token, as a list, where the tokenizer adds it to every text; else an empty list."""
    empty = tokenizer("", add_special_tokens=True)["input_ids"]
    return [tokenizer.bos_token_id] if empty[:1] == [tokenizer.bos_token_id] else []


def content_of(source: str | Path) -> tuple[str, str]:
    """Name and content of a UTF-8 file or a shipped text; raises DataError where it cannot be read."""
    ours = str(source) in TEXTS
    path = shipped_text(str(source)) if ours else local_path(source)
    hint = f"give a UTF-8 text file or one of the shipped texts: {', '.join(TEXTS)}"
    try:
        content = text_of(path, largest=LARGEST)
    except DataError as error:
        raise DataError(f"text {error}; {hint}") from error
    return (str(source) if ours else path.name), content
