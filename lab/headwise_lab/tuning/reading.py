"""A search space from TOML, or one that ships; what does not fit is one sentence, as in sweep files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise.hints import did_you_mean
from headwise.reading import local_path
from headwise_lab.sweeps.reading import beside, structured_as, toml
from headwise_lab.tuning.schema import SpaceFile

FILES = files("headwise_lab.tuning") / "files"


def shipped() -> list[str]:
    """Names of the search spaces that ship with headwise."""
    return sorted(item.name.removesuffix(".toml") for item in FILES.iterdir() if item.name.endswith(".toml"))


def read(given: str) -> SpaceFile:
    """The space of a TOML file, or of one that ships, by its name; raises DataError in one sentence."""
    path = local_path(given)
    if not path.is_file():
        if given not in shipped():
            hint = did_you_mean(given, shipped()) or ";"
            raise DataError(f"there is no search space {given}{hint} those that ship are {', '.join(shipped())}")
        path = Path(str(FILES / f"{given}.toml"))
    space = structured_as(SpaceFile, toml(path), str(path))
    return space if space.data is None else attrs.evolve(space, data=beside(path, space.data))
