"""Figures in a page: their colours, what filters and screen readers find in them, and what could have been seen."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from headwise_lab.report.page.canvas import (
    DARK,
    GREY,
    GROUND,
    INK,
    MARKERS,
    SERIES,
    STYLE,
    Figure,
    looks,
    marked,
    new_canvas,
    save_all,
)  # fmt: skip
from headwise_lab.report.page.drawing import seen
from headwise_lab.report.page.svg import inline, theme
from headwise_lab.stats.differences import Difference, paired
from headwise_lab.stats.power import POWER, smallest_seen

SIGHTS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear light."""

LMS = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
       [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
       [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
GROUNDS = {"light": (GROUND, "#f6f8fa"), "dark": (DARK[GROUND], "#1b2028")}


def linear(colour):
    share = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(colour, sight):
    return np.array(LAB) @ np.cbrt(np.array(LMS) @ np.clip(np.array(sight) @ linear(colour), 0, 1))


def scheme(name):
    return [colour if name == "light" else DARK[colour] for colour in (INK, *SERIES)]


@pytest.mark.parametrize("name", GROUNDS)
def test_marks_stand_out_from_the_ground_and_letters_can_be_read(name):
    letters = [colour if name == "light" else DARK[colour] for colour in (INK, GREY)]
    for ground in GROUNDS[name]:
        assert min(contrast(ground, colour) for colour in scheme(name)) >= 3
        assert min(contrast(ground, colour) for colour in letters) >= 4.5


@pytest.mark.parametrize("name", GROUNDS)
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_stay_apart_for_every_reader(name, sight):
    seen = [oklab(colour, SIGHTS[sight]) for colour in scheme(name)]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 0.08


def test_series_differ_by_more_than_their_colour():
    first = list(itertools.islice(looks(), len(SERIES) * len(MARKERS)))
    assert len(set(first)) == len(first)
    assert len({marker for _, marker in first[: len(SERIES)]}) == len(SERIES)


class Parts(HTMLParser):
    """The elements of a page, each with its attributes, and its letters."""

    def __init__(self, page):
        super().__init__()
        self.found, self.letters = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.letters += f"{data}\n"


HOSTILE = 'a"><script>x</script>&\u202e'


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    path = tmp_path_factory.mktemp("figures") / "two.png"
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(3, 2)
        panel = canvas.subplots()
        (line,) = panel.plot([1, 2], [1, 2], color=SERIES[0], label=HOSTILE)
        marked([line], HOSTILE, budget="keep 16", records="one two")
        panel.set_title("Scores")
        canvas.legend(loc="outside lower center")
        save_all(canvas, path, "n = 3 questions.")
    return Figure(path, f"A caption {HOSTILE}", "two")


def test_a_figure_in_a_page_has_a_name_letters_and_parts_for_the_filters(chart):
    page = Parts(inline(chart))
    tag, root = page.found[0]
    assert (tag, root["role"], root["id"]) == ("svg", "img", "chart-two")
    assert ("title", {"id": root["aria-labelledby"]}) in page.found
    assert {"Scores", "n = 3 questions."} <= set(page.letters.splitlines())
    (mark,) = [given for _, given in page.found if given.get("class") == "mark"]
    assert (mark["data-budget"], mark["data-records"]) == ("keep 16", "one two")
    assert {tag for tag, _ in page.found}.isdisjoint({"script", "style", "metadata", "image"})
    assert not [name for _, given in page.found for name in given if name.startswith("on")]
    ids = [given["id"] for _, given in page.found if "id" in given]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("chart-two") for name in ids)
    used = [given["href"][1:] for tag, given in page.found if tag == "use"]
    assert used
    assert set(used) <= set(ids)


def test_its_colours_follow_the_page_and_hold_alone(chart):
    page = inline(chart)
    assert f"var(--chart-0, {SERIES[0]})" in page
    assert f"var(--chart-ink, {INK})" in page
    light, dark = theme().split("@media (prefers-color-scheme: dark)")
    assert f"--chart-0:{SERIES[0]};" in light
    assert f"--chart-0:{DARK[SERIES[0]]};" in dark


def test_figures_are_the_same_each_time(chart, tmp_path):
    before = chart.svg.read_bytes()
    assert b"<dc:date>" not in before
    assert b"<text" in before


def gaps(effect, n, rng):
    """Scores of two sides, right or wrong: a fifth of the questions turned, ``effect`` more of them to the better."""
    turned = rng.choice([-1, 0, 1], size=n, p=[0.1 - effect / 2, 0.8, 0.1 + effect / 2])
    theirs = np.where(turned == 1, 0, np.where(turned == -1, 1, rng.integers(0, 2, n)))
    return dict(enumerate((theirs + turned).astype(float))), dict(enumerate(theirs.astype(float)))


def test_a_difference_that_could_have_been_seen_is_seen_as_often_as_that_says():
    rng = np.random.default_rng(0)
    first = paired(*gaps(0.0, 400, rng))
    effect = smallest_seen([first])
    assert 0.04 < effect < 0.09
    found = [paired(*gaps(effect, 400, rng)).clear for _ in range(150)]
    assert abs(np.mean(found) - POWER) < 0.12


def test_a_figure_says_its_n_and_promises_nothing_on_too_few_units():
    many = Difference(value=1.0, se=1.0, n=100, family=3)
    assert seen([many, None]).startswith("n = 100 questions, paired; the smallest difference that could have been seen")
    assert seen([many]).endswith("4 of 5 times (3 comparisons): 3.2.")
    few = Difference(value=1.0, se=1.0, n=7, family=3)
    assert seen([few], "blocks") == "n = 7 blocks, paired; on fewer than 10 no difference can count."
    assert seen([]) == ""


def test_more_comparisons_hide_more_and_equal_sides_say_nothing():
    one = Difference(value=1.0, se=1.0, n=100, family=1)
    many = Difference(value=1.0, se=1.0, n=100, family=40)
    assert smallest_seen([one]) == pytest.approx(1.96 + 0.8416, abs=1e-3)
    assert smallest_seen([many]) > smallest_seen([one])
    assert smallest_seen([Difference(value=0.0, se=0.0, n=100)]) is None
    assert smallest_seen([]) is None
