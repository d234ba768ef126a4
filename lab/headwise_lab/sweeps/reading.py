"""Reads sweep files (TOML). A wrong value is a DataError: one sentence with the file, the key and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from headwise.errors import DataError
from headwise.hints import did_you_mean
from headwise.reading import local_path, shortened, text_of
from headwise_lab.benchmarks import questions
from headwise_lab.schema.wrong_values import WrongValue, first_problem, keys_of
from headwise_lab.sweeps.schema import SweepFile, TextTable, check_places
from headwise_lab.texts import TEXTS

LARGEST = 2**24  # bytes
LONGEST = 1000  # letters of a sentence
FILES = files("headwise_lab.sweeps") / "files"

T = TypeVar("T")
Structure = Callable[[object, object], object]


def shipped() -> list[str]:
    """Names of the sweep files that ship with headwise."""
    return names_in(FILES)


def names_in(folder: Traversable) -> list[str]:
    """Names of the TOML files in a folder of the package, without their ending."""
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def file_named(given: str, folder: Traversable, what: str) -> Path:
    """The file ``given``, or else the file in ``folder`` with this name; raises DataError where neither exists."""
    path = local_path(given)
    if path.is_file():
        return path
    names = names_in(folder)
    if given in names:
        return Path(str(folder / f"{given}.toml"))
    hint = did_you_mean(given, names) or ";"
    raise DataError(f"there is no {what} {given}{hint} those that ship are {', '.join(names)}")


def read(given: str) -> SweepFile:
    """The sweep of a TOML file, or of one that ships, by its name; raises DataError in one sentence."""
    path = file_named(given, FILES, "sweep file")
    sweep = structured(toml(path), str(path))
    data = None if sweep.data is None else beside(path, sweep.data)
    return attrs.evolve(sweep, data=data, text=None if sweep.text is None else _text_beside(path, sweep.text))


def toml(path: Path) -> dict[str, object]:
    """The table that a TOML file holds; raises DataError in one sentence."""
    try:
        return tomllib.loads(text_of(path, largest=LARGEST))
    except RecursionError as error:
        raise DataError(f"{path} is TOML that is nested too deep") from error
    except ValueError as error:  # tomllib also raises a plain ValueError, for an integer with too many digits
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not TOML: {shortened(str(error), LONGEST)}") from error


def beside(path: Path, folder: str) -> str:
    """A folder that a file names, taken relative to the file; hub datasets and URLs stay unchanged."""
    return questions.beside(path.parent, folder)


def _text_beside(path: Path, given: TextTable) -> TextTable:
    """A table [text] with its file names taken relative to the sweep file; raises DataError for a missing file."""
    name, profile = given.name, given.profile
    if name not in TEXTS:
        name = beside(path, name)
        if not local_path(name).is_file():
            hint = did_you_mean(given.name, TEXTS) or ";"
            raise DataError(
                f"{path}: text.name: there is no text {shortened(given.name)!r}{hint} allowed: {', '.join(TEXTS)}, or a"
                " UTF-8 file"
            )
    if profile is not None:
        profile = beside(path, profile)
        if not local_path(profile).is_file():
            raise DataError(
                f"{path}: text.profile: there is no file {shortened(profile)}; allowed: what `headwise classify-heads`"
                " wrote"
            )
    return attrs.evolve(given, name=name, profile=profile)


def structured(table: dict[str, object], where: str) -> SweepFile:
    """The sweep in a TOML table; raises DataError, which names ``where`` it stands, the key and what is allowed."""
    sweep = structured_as(SweepFile, table, where)
    try:
        check_places(sweep, table)
    except WrongValue as error:
        raise DataError(f"{where}: {error}") from error
    return sweep


def structured_as(kind: type[T], table: dict[str, object], where: str) -> T:
    """A TOML table as an attrs class whose validators raise WrongValue; raises DataError as ``structured`` does."""
    try:
        return _converter().structure(table, kind)
    except (BaseValidationError, WrongValue) as error:
        path, problem = first_problem(error)
        raise DataError(f"{where}: {f'{shortened(path)}: ' if path else ''}{shortened(problem, LONGEST)}") from error


_PLAIN: dict[type, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text in quotes"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}


def _converter() -> Converter:
    """A strict converter: it never makes a number or a list of a text, and refuses unknown keys."""
    converter = Converter(forbid_extra_keys=True)
    for kind, (accepted, wanted) in _PLAIN.items():
        converter.register_structure_hook(kind, _plain(kind, accepted, wanted))
    converter.register_structure_hook_factory(_is_tuple, _listed(converter))
    converter.register_structure_hook_factory(attrs.has, lambda kind: _table(kind, converter))
    return converter


def _is_tuple(kind: type) -> bool:
    return get_origin(kind) is tuple


def _plain(kind: type, accepted: tuple[type, ...], wanted: str) -> Structure:
    def structure(value: object, _: object) -> object:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise WrongValue("", f"{value!r} is not {wanted}")
        return kind(value)

    return structure


def _listed(converter: Converter) -> Callable[[type], Structure]:
    """A hook for ``tuple[item, ...]``, which takes a list and no other iterable, such as a text."""

    def factory(kind: type) -> Structure:
        item: Any = get_args(kind)[0]
        items: Any = list[item]

        def structure(value: object, _: object) -> object:
            if not isinstance(value, list):
                wanted = "[[...]] tables" if attrs.has(item) else "a list, such as [...]"
                raise WrongValue("", f"{value!r} is not {wanted}")
            return tuple(converter.structure(value, items))

        return structure

    return factory


def _table(kind: type, converter: Converter) -> Structure:
    structure: Callable[[Mapping[str, object], object], object] = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True
    )

    def checked(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise WrongValue("", f"{value!r} is not a table with keys {', '.join(keys_of(kind))}")
        return structure(value, kind)

    return checked
