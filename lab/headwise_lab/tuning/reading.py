"""Reads search spaces (TOML), the user's or those that ship; a wrong value is one sentence, as in sweep files."""

from __future__ import annotations

from importlib.resources import files

import attrs

from headwise_lab.sweeps.reading import beside, file_named, names_in, structured_as, toml
from headwise_lab.tuning.schema import SpaceFile

FILES = files("headwise_lab.tuning") / "files"


def shipped() -> list[str]:
    """Names of the search spaces that ship with headwise."""
    return names_in(FILES)


def read(given: str) -> SpaceFile:
    """The space of a TOML file, or of one that ships, by its name; raises DataError in one sentence."""
    path = file_named(given, FILES, "search space")
    space = structured_as(SpaceFile, toml(path), str(path))
    return space if space.data is None else attrs.evolve(space, data=beside(path, space.data))
