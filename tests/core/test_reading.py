"""Text and JSON from outside: marks, encodings, and every limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise import DataError
from headwise.reading import decoded, json_of, text_of

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")  # the last two write a mark
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff")).filter(
    lambda text: not text.startswith("\0")  # in UTF-16 its first bytes are the mark of UTF-32
)


@given(PLAIN, st.sampled_from(ENCODINGS))
def test_text_is_what_was_written_without_its_mark(text, encoding):
    assert decoded(text.encode(encoding), "it") == text


def test_both_orders_of_bytes_are_read():
    for order in ("le", "be"):
        for width in ("16", "32"):
            mark = "\ufeff".encode(f"utf-{width}-{order}")
            assert decoded(mark + "größer\n".encode(f"utf-{width}-{order}"), "it") == "größer\n"


@given(st.binary())
def test_any_bytes_are_text_or_one_sentence(content):
    try:
        told = decoded(content, "it").encode() and ""
    except DataError as error:
        told = str(error)
    assert not told or (told.startswith("it is not UTF-") and "\n" not in told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("größer".encode("latin-1"), r"is not UTF-8 text: .+ at byte 2$"),
        (b"\xff\xfea", r"is not UTF-16 text: .+ at byte"),
    ],
)
def test_other_encodings_are_one_sentence(content, told, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'a'} {told}"):
        text_of(tmp_path / "a")


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    for path, told in (
        (tmp_path / "none", "is missing"),
        (tmp_path, "cannot be read (Is a directory)"),
        (tmp_path / ("n" * 5000), "cannot be read (File name too long)"),
        (tmp_path / "a\0b", "cannot be read (embedded null byte)"),
    ):
        with pytest.raises(DataError) as caught:
            text_of(path)
        assert str(caught.value).endswith(told)


def test_what_has_no_end_is_refused_and_what_is_empty_is_not(tmp_path):
    with pytest.raises(DataError, match=r"^/dev/zero is too large to be read"):
        text_of(Path("/dev/zero"))
    assert text_of(Path("/dev/null")) == ""
    (tmp_path / "a").write_bytes(b"12345")
    assert text_of(tmp_path / "a", largest=5) == "12345"
    with pytest.raises(DataError, match=r"a is too large to be read: more than 4 bytes$"):
        text_of(tmp_path / "a", largest=4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: not JSON, Expecting value"),
        ("[1,\n2,]", "line 2: not JSON, "),
        ("[" * 100_000, "line 1: JSON that is nested too deep"),
        ('{"a":' * 100_000, "line 1: JSON that is nested too deep"),
        ("1" * 10_000, "line 1: Exceeds the limit"),
        ("NaN", "line 1: NaN is no JSON number"),
        ("[-Infinity]", "line 1: -Infinity is no JSON number"),
        ("[1e400]", "line 1: the number 1e400 is too large"),
        (r'["\ud800"]', "line 1: a text has half of a surrogate pair"),
        (r'{"\uDC00": 1}', "line 1: a text has half of a surrogate pair"),
    ],
)
def test_what_is_no_json_of_ours_is_one_sentence(text, told):
    with pytest.raises(DataError) as caught:
        json_of(text, "it")
    assert str(caught.value).startswith(f"it, {told}")
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
)


@given(JSON, st.booleans())
def test_json_is_what_was_written(value, ascii_only):
    assert json_of(json.dumps(value, ensure_ascii=ascii_only), "it") == value


def test_a_pair_of_surrogates_is_a_letter():
    assert json_of(r'"\ud83d\ude00"', "it") == "😀"


def test_lines_are_counted_from_where_the_text_begins():
    with pytest.raises(DataError, match=r"^it, line 8: not JSON"):
        json_of("[1,\n?]", "it", first_line=7)
