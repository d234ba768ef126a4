"""docs/house.md is what the code says, and what it points to is there."""

import re
from pathlib import Path

import pytest
from tests.house import PAGE, ROOTS, arrows, graph, page

ROOT = Path(__file__).parents[1]
FACES = {"headwise_lab": set(), "headwise_adapters": {"parts", "patching", "quiet"}, "headwise_plugins": set()}
"""Modules that stand beside the rooms of a root, because several rooms share them."""


@pytest.fixture(scope="module")
def drawn():
    return graph()


def test_the_page_is_what_the_code_says(drawn):
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text, drawn), "run python -m tests.house"


def test_the_page_changes_with_the_code(drawn):
    drawn.add_import(importer="headwise_lab.stats.resampling", imported="headwise_lab.scenes.world")
    text = PAGE.read_text(encoding="utf-8")
    assert "headwise_lab_stats --> headwise_lab_scenes" in page(text, drawn)
    drawn.remove_import(importer="headwise_lab.stats.resampling", imported="headwise_lab.scenes.world")


def test_what_the_page_points_to_is_there():
    pointed = re.findall(r"`((?:core|plugins|adapters|lab)/[\w./]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(pointed) > 15
    assert [path for path in pointed if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("root", FACES)
def test_no_module_stands_beside_the_rooms_but_those_that_rooms_share(root, drawn):
    loose = {child.rpartition(".")[2] for child in drawn.find_children(root)} - {
        room.rpartition(".")[2] for room in arrows(drawn, root)
    }
    assert loose == FACES[root]


def test_every_room_says_what_it_is_for():
    assert "|  |" not in PAGE.read_text(encoding="utf-8").replace(" |  |\n", "\n")
    assert all(f"**{root}**" in PAGE.read_text(encoding="utf-8") for root in ROOTS)
