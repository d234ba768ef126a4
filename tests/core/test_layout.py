"""Layouts: every position has one kind, and padding is never taken for a token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.layout import IMAGE, PADDING, SYSTEM, TEXT, Layout

laws = settings(deadline=None, max_examples=50, derandomize=True)
masks = st.integers(1, 4).flatmap(
    lambda rows: st.integers(1, 12).flatmap(
        lambda width: st.tuples(
            *[st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=rows, max_size=rows)] * 2
        )
    )
)


def slow_kinds(image, valid):
    """One position after the other."""
    kinds, seen = [], False
    for is_image, is_valid in zip(image, valid, strict=True):
        seen = seen or (is_image and is_valid)
        if not is_valid:
            kinds.append(PADDING)
        elif is_image:
            kinds.append(IMAGE)
        else:
            kinds.append(TEXT if seen else SYSTEM)
    return kinds


@laws
@given(masks)
def test_kinds_are_those_found_by_walking_over_the_prompt(both):
    image, valid = (np.array(mask, dtype=bool) for mask in both)
    expected = [slow_kinds(*row) for row in zip(image.tolist(), valid.tolist(), strict=True)]
    assert expected == Layout.of(image, valid).kinds.tolist()


@laws
@given(masks)
def test_every_position_that_is_not_padding_is_of_exactly_one_kind(both):
    image, valid = (np.array(mask, dtype=bool) for mask in both)
    layout = Layout.of(image, valid)
    for row in range(len(layout)):
        parts = [*layout.system(row), *layout.image(row), *layout.text(row)]
        assert np.flatnonzero(valid[row]).tolist() == sorted(parts) == layout.valid(row).tolist()


def test_text_between_and_after_images_is_text_and_before_the_first_is_system():
    image = np.array([[0, 0, 1, 1, 0, 1, 1, 0, 0]], dtype=bool)
    layout = Layout.of(image, np.ones_like(image))
    assert [found.tolist() for found in (layout.system(0), layout.image(0), layout.text(0))] == [
        [0, 1],
        [2, 3, 5, 6],
        [4, 7, 8],
    ]


def test_prompt_without_an_image_is_all_system():
    layout = Layout.of(np.zeros((1, 3), dtype=bool), np.ones((1, 3), dtype=bool))
    assert layout.system(0).tolist() == [0, 1, 2]
    assert layout.image_counts == (0,)


def test_image_counts_do_not_count_padding():
    image = np.array([[1, 1, 1, 0], [0, 1, 1, 0]], dtype=bool)
    valid = np.array([[0, 1, 1, 1], [1, 1, 1, 1]], dtype=bool)
    assert Layout.of(image, valid).image_counts == (2, 2)


def test_gather_keeps_kinds_and_pads_what_is_not_valid():
    layout = Layout(np.array([[SYSTEM, IMAGE, IMAGE, TEXT], [PADDING, SYSTEM, IMAGE, TEXT]], dtype=np.uint8))
    taken = layout.take(np.array([[0, 2, 3], [0, 1, 3]]), np.array([[True, True, True], [False, True, True]]))
    assert taken.kinds.tolist() == [[SYSTEM, IMAGE, TEXT], [PADDING, SYSTEM, TEXT]]


def test_rows_come_in_the_order_asked_for():
    layout = Layout(np.array([[SYSTEM, TEXT], [IMAGE, TEXT], [IMAGE, IMAGE]], dtype=np.uint8))
    assert layout.rows([2, 0]).kinds.tolist() == [[IMAGE, IMAGE], [SYSTEM, TEXT]]
    assert (len(layout.rows([2, 0])), layout.length) == (2, 2)


def test_layout_has_two_axes():
    with pytest.raises(ValueError, match=r"^a layout has two axes \(rows, positions\), not 1$"):
        Layout(np.zeros(3, dtype=np.uint8))
