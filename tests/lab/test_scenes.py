"""The synthetic world: determinism, truth of every answer, balance, evidence."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from random import Random

import numpy as np
import pytest

from headwise_lab.scenes import (
    COLORS,
    DIGITS,
    GRID,
    KINDS,
    PATCH,
    QUADRANTS,
    SHAPES,
    SIZE,
    TOKENS,
    WORDS,
    Scene,
    SceneQuestion,
    Thing,
    ask,
    draw,
    draw_batch,
    held_out,
    sample_scene,
)
from headwise_lab.scenes.world import FORMS, HUES, SPRITES, form_of, hue_of


def seen(scene: Scene) -> tuple[dict[int, tuple[str, str]], dict[str, tuple[str, tuple[int, ...]]]]:
    """Read the sprite numbers alone: cell -> (colour, shape), and "digit"/"word" -> (text, cells)."""
    things, labels = {}, {}
    for cell, sprite in enumerate(scene.sprites):
        if 1 <= sprite <= 64:
            things[cell] = (COLORS[(sprite - 1) % 8], SHAPES[(sprite - 1) // 8])
        elif 65 <= sprite <= 74:
            labels["digit"] = (str(sprite - 65), (cell,))
        elif sprite >= 75 and sprite % 2 == 1:
            labels["word"] = (WORDS[(sprite - 75) // 2], (cell, cell + 1))
            assert scene.sprites[cell + 1] == sprite + 1
    return things, labels


def read(question: str, scene: Scene) -> tuple[str, set[int]]:  # noqa: PLR0911 (one return per kind)
    """A reader written from the wording: the answer and the cells it rests on."""
    things, labels = seen(scene)
    words = re.findall(r"[a-z-]+", question.lower())
    color = next((w for w in words if w in COLORS), None)
    shape = next((w for w in words if w in SHAPES), None)
    fits = {
        cell: thing
        for cell, thing in things.items()
        if (color is None or thing[0] == color) and (shape is None or thing[1] == shape)
    }
    if question.startswith("Is there a"):
        return ("yes" if fits else "no"), set(fits)
    if question.startswith("What color"):
        (cell,) = fits
        return fits[cell][0], {cell}
    if question.startswith("What shape"):
        (cell,) = fits
        return fits[cell][1], {cell}
    if question.startswith("What"):
        text, cells = labels["word" if "word" in words else "digit"]
        return text, set(cells)
    if question.startswith("How many"):
        return str(len(fits)), set(fits)
    if question.startswith("Where"):
        (cell,) = fits
        vertical = "top" if cell < TOKENS // 2 else "bottom"
        return vertical + ("-left" if cell % GRID < GRID // 2 else "-right"), {cell}
    (subject,) = (cell for cell, thing in things.items() if thing[0] == color)
    (reference,) = (cell for cell, thing in things.items() if thing[1] == shape)
    before = subject % GRID < reference % GRID if "left" in words else subject // GRID < reference // GRID
    return ("yes" if before else "no"), {subject, reference}


@pytest.fixture(scope="module")
def questions() -> dict[str, list[tuple[Scene, SceneQuestion]]]:
    """600 questions of each kind."""
    asked: dict[str, list[tuple[Scene, SceneQuestion]]] = {kind: [] for kind in KINDS}
    for example in held_out(11, 600):
        asked[example.question.kind].append((example.scene, example.question))
    return asked


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_evidence_agree_with_a_plain_reader(kind, questions):
    for scene, question in questions[kind]:
        assert (question.answer, set(question.cells)) == read(question.text, scene), question


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_cover_exactly_the_cells(kind, questions):
    for _, question in questions[kind][:50]:
        covered = np.zeros((SIZE, SIZE), bool)
        for x0, y0, x1, y1 in question.boxes:
            covered[y0:y1, x0:x1] = True
        by_cell = covered.reshape(GRID, PATCH, GRID, PATCH).transpose(0, 2, 1, 3).reshape(TOKENS, -1)
        assert set(np.flatnonzero(by_cell.all(axis=1))) == set(question.cells)
        assert by_cell.any(axis=1).sum() == len(set(question.cells))


def shares(questions: list[tuple[Scene, SceneQuestion]]) -> dict[str, float]:
    counts = Counter(question.answer for _, question in questions)
    return {answer: count / len(questions) for answer, count in counts.items()}


@pytest.mark.parametrize("kind", ["exist", "relation"])
def test_yes_and_no_come_equally_often(kind, questions):
    assert shares(questions[kind])["yes"] == pytest.approx(0.5, abs=0.08)


def test_quadrants_come_equally_often(questions):
    assert shares(questions["where"]) == pytest.approx(dict.fromkeys(QUADRANTS, 0.25), abs=0.07)


def test_colors_and_shapes_come_equally_often(questions):
    assert shares(questions["color"]) == pytest.approx(dict.fromkeys(COLORS, 1 / 8), abs=0.06)
    assert shares(questions["shape"]) == pytest.approx(dict.fromkeys(SHAPES, 1 / 8), abs=0.06)


def test_every_digit_and_word_is_asked(questions):
    assert set(shares(questions["text"])) == {*DIGITS, *WORDS}


def test_counts_run_from_0_to_4_without_a_dominant_answer(questions):
    found = shares(questions["count"])
    assert set(found) == set("01234")
    assert max(found.values()) < 0.4


def test_most_absent_pairs_are_hard(questions):
    """Both the shape and the colour occur, on different things."""
    hard = []
    for scene, question in questions["exist"]:
        if question.answer == "no":
            color, shape = question.text.split()[3:5]
            things = seen(scene)[0].values()
            hard.append(color in {c for c, _ in things} and shape in {s for _, s in things})
    assert 0.6 < np.mean(hard) < 0.95


def test_scenes_hold_the_number_of_things_asked_for():
    rng = Random(3)
    counts = Counter(len(seen(sample_scene(rng, 4, 12))[0]) for _ in range(500))
    assert set(counts) == set(range(4, 13))


def test_a_question_that_cannot_be_asked_is_none():
    twins = Scene((Thing("circle", "red", 0), Thing("circle", "red", 1)))
    rng = Random(0)
    assert [kind for kind in KINDS if ask(kind, twins, rng) is not None] == ["exist", "count"]


def test_held_out_examples_do_not_depend_on_how_many_are_drawn():
    few, many = list(held_out(5, 2, ["where"])), list(held_out(5, 4, ["text", "where"]))
    assert few == many[4:6]
    assert few != list(held_out(6, 2, ["where"]))


def test_a_picture_depends_on_its_scene_and_seed_alone():
    first, second = held_out(5, 2, ["exist"])
    alone = second.pixels
    assert first.pixels.dtype == np.uint8
    assert first.pixels.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(alone, second.pixels)
    assert (draw(second.scene, second.seed + 1) != alone).any()


def test_empty_cells_are_grey_and_things_have_their_color():
    red = Scene((Thing("square", "red", 30),))
    tiles = draw(red, 0).reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(TOKENS, -1, 3)
    grey = np.delete(tiles, 30, axis=0)
    assert (grey == grey[..., :1]).all()
    assert tiles[30, :, 0].mean() > 2 * tiles[30, :, 1].mean()


def test_batches_draw_as_many_pictures_as_scenes():
    sprites = np.array([example.scene.sprites for example in held_out(5, 3, ["count"])])
    assert draw_batch(sprites, np.random.default_rng(0)).shape == (3, SIZE, SIZE, 3)


def test_form_and_hue_tell_every_sprite_apart():
    pairs = {(form_of(sprite), hue_of(sprite)) for sprite in range(SPRITES)}
    assert len(pairs) == SPRITES
    assert {form for form, _ in pairs} == set(range(FORMS))
    assert {hue for _, hue in pairs} == set(range(HUES))


def test_importing_the_world_does_not_import_torch():
    code = "import sys, headwise_lab.scenes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
