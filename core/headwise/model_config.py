"""A model's configuration, from its ``config.json`` or from the loaded model, and the sentences for wrong values in it.

Nothing here knows a model family: which keys count what is said by the family (:mod:`headwise.families`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from headwise.errors import ModelError
from headwise.reading import json_in, shortened

MOST = 2**24  # of anything that a configuration counts
LARGEST = 2**24  # bytes of a configuration

_KINDS: dict[str, tuple[type, str]] = {
    "model_type": (str, "the name of a family"),
    "architectures": (list, "a list of names"),
    "layer_types": (list, "a list with a kind for every layer"),
}


@attrs.frozen(eq=False, kw_only=True)
class ModelConfig:
    """The ``values`` of a configuration, and the ``name`` of its model.

    ``who`` has it: a file or a model, with which every sentence about a wrong value begins. ``folder``: where the file
    is; None for a model that is loaded.
    """

    values: Mapping[str, object]
    name: str
    who: str
    folder: Path | None = None

    @property
    def model_type(self) -> str:
        """The name of the family; empty where the configuration has none."""
        return str(self.get("model_type") or "")

    def get(self, key: str) -> object:
        """A value as it stands there; None where there is none."""
        return self.values.get(key)

    def count(self, key: str, least: int = 1) -> int:
        """A whole number; raises ModelError where the value is none, or less than ``least``."""
        value = self.get(key)
        if type(value) is not int or not least <= value <= MOST:
            raise self.wrong(key, f"a count of at least {least}")
        return value

    def part(self, key: str) -> ModelConfig:
        """The configuration of a part of the model; raises ModelError where there is none."""
        part = self.get(key)
        if not isinstance(part, Mapping):
            raise ModelError(f"{self.who} has no {key}; wanted the configuration of a {self.model_type} model")
        return attrs.evolve(self, values=part)

    def wrong(self, key: str, wanted: str) -> ModelError:
        """The error of a value that cannot be used."""
        return ModelError(f"{self.who} gives {key}={shortened(repr(self.get(key)), 80)}; wanted {wanted}")


def read_config(path: Path) -> ModelConfig:
    """The configuration in a model folder or ``config.json``.

    Raises DataError where there is no JSON file, ModelError where it holds no configuration.
    """
    file = path / "config.json" if path.is_dir() else path
    values = json_in(file, largest=LARGEST)
    if not isinstance(values, dict):
        raise ModelError(f"{file} holds no JSON object; wanted the configuration of a model")
    for part in (values, *values.values()):
        for key, (kind, wanted) in _KINDS.items():
            if isinstance(part, dict) and not isinstance(part.get(key), kind | None):
                raise ModelError(f"{file} gives {key}={shortened(repr(part[key]), 80)}; wanted {wanted}")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return ModelConfig(values=values, name=folder.name, who=str(file), folder=file.parent)
