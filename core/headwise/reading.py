"""Text and JSON from outside, read with limits: a value, or a sentence that says why there is none.

Text is UTF-8, with or without a byte-order mark, or UTF-16 or UTF-32 with one. JSON may be nested as deep as Python's
parser goes, its numbers are finite, and its texts are text: no half of a surrogate pair.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from headwise.errors import DataError

JsonObject = Mapping[str, Any]
"""A JSON object as it was read: whoever takes a field says what it must be."""

LARGEST = 2**33  # bytes: more than the largest benchmark has in one file
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, as filesystems have it
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),  # first: one begins like UTF-16
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
"""Byte-order marks, and the encoding that each announces."""


def local_path(name: str | Path) -> Path:
    """The path that a user named, ``~`` being the home folder; raises DataError for what no file can be called."""
    shown = shortened(str(name))
    try:
        path = Path(name).expanduser()
        pieces = [os.fsencode(piece) for piece in path.parts]
    except RuntimeError as error:
        raise DataError(f"{shown} names the home folder of a user who is not known here") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{shown!r} is no name of a file: it has half of a surrogate pair") from error
    if b"\x00" in b"".join(pieces):
        raise DataError(f"{shown!r} is no name of a file: it has a null byte")
    if max(map(len, pieces), default=0) > LONGEST_NAME or sum(map(len, pieces)) + len(pieces) > LONGEST_PATH:
        raise DataError(f"{shown} is too long for the name of a file")
    return path


def given_path(value: Path | None) -> Path | None:
    """As ``local_path``, for an option of a command that may be left out."""
    return None if value is None else local_path(value)


def shortened(text: str, most: int = 200) -> str:
    """A text as a sentence can hold it: of one longer than ``most`` characters, both ends."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def shown(value: object, most: int = 80) -> str:
    """A value as a sentence can hold it: as Python writes it, shortened to ``most`` characters."""
    try:
        return shortened(repr(value), most)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def text_of(path: Path, *, largest: int = LARGEST) -> str:
    """The text of a file, every line ended by a line feed alone.

    Raises DataError where it is no text, is larger than ``largest`` bytes, or can be read without end.
    """
    try:
        with path.open("rb") as stream:
            content = b"" if stat.S_ISCHR(path.stat().st_mode) else stream.read(largest + 1)
            endless = stat.S_ISCHR(path.stat().st_mode) and bool(stream.read(1))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if endless or len(content) > largest:
        raise DataError(f"{path} is too large to be read: more than {largest} bytes")
    return decoded(content, str(path)).replace("\r\n", "\n").replace("\r", "\n")


def decoded(content: bytes, what: str) -> str:
    """Bytes as text, without a byte-order mark; raises DataError, which says ``what``, where they are none."""
    encoding = next((encoding for mark, encoding in MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(f"{what} is not {name} text: {error.reason} at byte {error.start}") from error


def json_of(text: str, what: str, *, first_line: int = 1) -> Any:
    """The value of a JSON text; raises DataError, which says ``what`` and the line, for what is no such value.

    ``first_line``: the line of a file on which the text begins.
    """
    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise DataError(f"{what}, line {first_line + error.lineno - 1}: not JSON, {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{what}, line {first_line}: JSON that is nested too deep") from error
    except ValueError as error:
        raise DataError(f"{what}, line {first_line}: {error}") from error
    if _is_torn(text, found):
        raise DataError(f"{what}, line {first_line}: a text has half of a surrogate pair")
    return found


def json_in(path: Path, *, largest: int = LARGEST) -> Any:
    """The JSON value in a file; raises DataError as ``text_of`` and ``json_of`` do."""
    return json_of(text_of(path, largest=largest), str(path))


def json_within(content: bytes, what: str, *, deepest: int, torn: bool = False) -> Any:
    """The value of JSON that other programs write, whose numbers may be NaN or infinite.

    Raises DataError, which says ``what``, where it is not JSON, has more than ``deepest`` lists and objects within each
    other, or a text that is none: half of a surrogate pair, which ``torn`` lets pass.
    """
    try:
        text = content.decode(json.detect_encoding(content), "surrogatepass" if torn else "strict")
        found = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not JSON: {shortened(str(error))}") from error
    if is_deep(found, deepest):
        raise DataError(f"{what} is not JSON that can be read: it is nested too deep")
    if not torn and _is_torn(text, found):
        raise DataError(f"{what} is not JSON that can be read: a text has half of a surrogate pair")
    return found


def _is_torn(text: str, found: object) -> bool:
    """Whether half of a surrogate pair is in a value that was read from ``text``."""
    if "\\ud" not in text.lower():
        return False
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def is_deep(value: object, most: int) -> bool:
    """Whether more than ``most`` lists and objects are within each other."""
    level = [value]
    for _ in range(most + 1):
        holders = [one for one in level if isinstance(one, list | dict)]
        if not holders:
            return False
        level = [inner for one in holders for inner in (one.values() if isinstance(one, dict) else one)]
    return True


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value
