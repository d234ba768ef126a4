"""Kept tokens against boxes: geometry by counting pixels, figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headwise.errors import DataError
from headwise_lab.metrics.overlap import (
    SHARE,
    Box,
    TokenOverlap,
    after_crop,
    covered,
    grid_side,
    mean_overlap,
    overlap,
    token_mask,
)
from headwise_lab.scenes import held_out

LAWS = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[list[Box], tuple[int, int], int, int, int]:
    """(boxes, size, tokens per side, side after processing, pixels of the picture per processed pixel)."""
    per_side, patch, shrink = draw(st.integers(1, 5)), draw(st.integers(2, 6)), draw(st.integers(1, 3))
    side = per_side * patch
    longer = (side + draw(st.integers(0, 9))) * shrink
    size = draw(st.permutations([side * shrink, longer]))
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        x0, y0 = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
        x1, y1 = draw(st.integers(x0 + 1, size[0])), draw(st.integers(y0 + 1, size[1]))
        boxes.append((float(x0), float(y0), float(x1), float(y1)))
    return boxes, (size[0], size[1]), per_side, side, shrink


@LAWS
@given(pictures())
def test_token_mask_equals_counting_pixels(picture: tuple[list[Box], tuple[int, int], int, int, int]) -> None:
    boxes, (width, height), per_side, side, shrink = picture
    left, top = (width // shrink - side) // 2 * shrink, (height // shrink - side) // 2 * shrink
    patch = side // per_side * shrink
    expected = np.zeros((per_side, per_side), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        painted = np.zeros((height, width), dtype=bool)
        painted[int(y0) : int(y1), int(x0) : int(x1)] = True
        seen = painted[top : top + side * shrink, left : left + side * shrink]
        for row, column in np.ndindex(per_side, per_side):
            here = seen[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].sum()
            expected[row, column] |= bool(10 * here > min(patch * patch, seen.sum()))  # share 0.1 without rounding
    assert SHARE == 0.1
    found = token_mask(boxes, (width, height), per_side**2, side, share=0.1 + 1e-9)
    np.testing.assert_array_equal(expected.reshape(-1), found)


def test_boxes_of_scenes_cover_exactly_their_cells() -> None:
    for example in held_out(5, 3):
        expected = np.isin(np.arange(144), example.question.cells)
        np.testing.assert_array_equal(expected, token_mask(example.question.boxes, (144, 144), 144, 144))


def test_a_wide_picture_is_resized_and_cut_at_the_sides() -> None:
    boxes: list[Box] = [(80, 0, 160, 480), (0, 0, 80, 480), (600, 240, 640, 480)]
    expected = [[0, 0, 56, 336], [0, 0, 0, 336], [336, 168, 336, 336]]  # x 0.7, less 56 on either side
    np.testing.assert_allclose(expected, after_crop(boxes, (640, 480), 336), atol=1e-9)


def test_a_tall_picture_is_cut_above_and_below() -> None:
    expected = [[0, 0, 336, 336 * 333 // 100 * 150 / 333 - 391]]  # 1118 high, less 391 above
    np.testing.assert_allclose(expected, after_crop([(0, 50, 100, 150)], (100, 333), 336))


@pytest.mark.parametrize("size", [(100, 63), (63, 100), (61, 61), (40, 133)])
def test_boxes_move_as_clips_processor_moves_pixels(size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}, do_normalize=False, resample=0
    )
    width, height = size
    x0, y0, x1, y1 = box = (width // 2 - 11, height // 2 - 9, width // 2 + 8, height // 2 + 13)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    seen = np.asarray(processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"])[0, 0] > 0.5
    rows, columns = np.nonzero(seen)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(expected, after_crop([box], size, 96)[0], atol=1)


def test_a_box_smaller_than_the_share_of_a_token_still_counts() -> None:
    assert covered([(1, 1, 2, 2)], 28, 4).tolist() == [True, False, False, False]


def test_a_rim_does_not_count() -> None:
    assert covered([(0, 0, 15, 14)], 28, 4).tolist() == [True, False, False, False]


def test_a_box_outside_the_crop_covers_nothing() -> None:
    assert not token_mask([(0, 0, 10, 100)], (300, 100), 16, 100).any()


def test_overlap_figures_by_hand() -> None:
    truth = np.zeros(16, dtype=bool)
    truth[[1, 2, 3, 4, 5]] = True
    found = overlap([0, 1, 2, 8], truth)
    assert TokenOverlap(recall=0.4, precision=0.5, iou=2 / 7, expected=0.25) == found
    assert found is not None
    assert pytest.approx(found.lift) == 1.6


def test_overlap_of_a_question_without_boxes_is_none() -> None:
    assert overlap([0, 1], np.zeros(16, dtype=bool)) is None


def test_overlap_of_nothing_kept_is_no_better_than_chance() -> None:
    found = overlap([], np.ones(4, dtype=bool))
    assert TokenOverlap(0.0, 0.0, 0.0, 0.0) == found
    assert found is not None
    assert found.lift == 1.0


@LAWS
@given(st.sets(st.integers(0, 15)), st.sets(st.integers(0, 15), min_size=1))
def test_overlap_equals_set_arithmetic(kept: set[int], wanted: set[int]) -> None:
    truth = np.isin(np.arange(16), sorted(wanted))
    found = overlap(sorted(kept), truth)
    assert found is not None
    assert len(kept & wanted) / len(wanted) == found.recall
    assert (len(kept & wanted) / len(kept) if kept else 0.0) == found.precision
    assert len(kept & wanted) / len(kept | wanted) == found.iou


def test_random_keeping_has_lift_one_on_average() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(144) < 3
    many = [overlap(rng.choice(144, 16, replace=False).tolist(), truth) for _ in range(4000)]
    figures = mean_overlap(many)
    assert figures is not None
    assert pytest.approx(figures["lift"], abs=0.08) == 1.0


def test_means_leave_out_questions_without_boxes() -> None:
    one, other = TokenOverlap(1.0, 0.5, 0.5, 0.25), TokenOverlap(0.5, 0.25, 0.25, 0.5)
    expected = {"recall": 0.75, "precision": 0.375, "iou": 0.375, "lift": 2.0, "n": 2}
    assert expected == pytest.approx(mean_overlap([one, None, other]))
    assert mean_overlap([None]) is None


@pytest.mark.parametrize("tokens", [0, 2, 143, 577])
def test_tokens_that_are_no_square_are_refused(tokens: int) -> None:
    with pytest.raises(DataError, match=f"^{tokens} visual tokens do not form a square grid"):
        grid_side(tokens)


def test_llavas_576_tokens_are_24_a_side() -> None:
    assert grid_side(576) == 24
