"""Model families and checkpoint layouts, found by entry point, and the geometry that they read off a configuration.

``headwise plan`` and :func:`headwise.attach` ask the same family, one with a file, the other with a loaded model.
Nothing here imports torch or transformers.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from headwise.blame import guarded
from headwise.errors import DataError, HeadwiseError, ModelError
from headwise.geometry import Geometry
from headwise.hints import did_you_mean
from headwise.model_config import ModelConfig, read_config
from headwise.reading import local_path, shortened
from headwise.registry import built, installed, load, only, owner_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from headwise.adapter import Adapter


class Family(Protocol):
    """What headwise needs of a model family; found by entry point ``headwise.adapter`` under its ``model_type``.

    The entry point is an object, and importing it imports neither torch nor transformers.
    """

    @property
    def shapes(self) -> Mapping[str, Mapping[str, object]]:
        """Configurations of published models, by the names under which they can be planned for."""
        ...

    def geometry(self, config: ModelConfig) -> Geometry:
        """Counts of the model of a configuration; raises ModelError for one that cannot be."""
        ...

    def adapter(self, model: PreTrainedModel) -> Adapter:
        """What prunes and evicts in a transformers model; raises ModelError where it lacks what the family has."""
        ...


class Checkpoint(Protocol):
    """Opens vision-language models stored in a layout of their own; found by entry point ``headwise.checkpoint``.

    The entry point is a class built without arguments, and importing it imports neither torch nor transformers.
    """

    def recognises(self, config: Mapping[str, object]) -> bool:
        """Whether a folder with this ``config.json`` is for this loader; false for every layout of transformers."""
        ...

    def as_transformers(self, config: ModelConfig) -> Mapping[str, object]:
        """What transformers' ``config.json`` of the same model would say, as far as a geometry follows from it."""
        ...

    def load(
        self, folder: Path, dtype: torch.dtype, attention: str
    ) -> tuple[PreTrainedModel, ProcessorMixin, Iterable[Path]]:
        """A transformers model of a family there is, its processor, and the files read, in an order that stays.

        ``attention``: the transformers attention implementation. Runs no code that came with the weights.
        """
        ...


_PARTS = ("shapes", "geometry", "adapter")


def family(model_type: str) -> Family:
    """The family of a ``model_type``; raises StrategyError or ModelError naming its owner where it cannot be used."""
    return _family(only("adapter", model_type, installed("adapter")))


def _family(entry: EntryPoint) -> Family:
    found = load(entry)
    lacking = [part for part in _PARTS if not hasattr(found, part)]
    if lacking or isinstance(found, type):
        what = f"lacks {', '.join(lacking)}" if lacking else "is a class"
        raise ModelError(
            f"{entry.name!r} from {owner_of(entry)} ({entry.value}) is no model family: it {what}; wanted an object"
            " such as a headwise_adapters.families.family.Family"
        )
    made: Family = guarded(found, f"model family {entry.name!r} ({owner_of(entry)})")
    return made


def checkpoint_layout(config: object) -> Checkpoint | None:
    """The layout that recognises what a ``config.json`` holds; None where transformers reads it itself."""
    if not isinstance(config, Mapping):
        return None
    found = installed("checkpoint")
    layouts = (_layout(only("checkpoint layout", name, found)) for name in found)
    return next((layout for layout in layouts if layout.recognises(config)), None)


def _layout(entry: EntryPoint) -> Checkpoint:
    made: Checkpoint = guarded(built(entry), f"checkpoint layout {entry.name!r} ({owner_of(entry)})")
    return made


@attrs.frozen
class _Published:
    """Where the shapes known by name come from, and what is wrong with families that could not be asked for theirs."""

    shapes: Mapping[str, EntryPoint]
    broken: tuple[str, ...]

    @classmethod
    def now(cls) -> _Published:
        return _published(tuple(sys.path))

    @property
    def listed(self) -> str:
        return "; ".join((", ".join(self.shapes), *self.broken))


@functools.lru_cache(maxsize=8)
def _published(_path: tuple[str, ...]) -> _Published:
    """Remembered for one search path; several names with one family ask it once, and a broken one spoils no other."""
    shapes: dict[str, EntryPoint] = {}
    broken: list[str] = []
    entries = {(entry.value, owner_of(entry)): entry for same in installed("adapter").values() for entry in same}
    for entry in entries.values():
        try:
            for name in _family(entry).shapes:
                shapes.setdefault(name, entry)
        except HeadwiseError as error:
            broken.append(str(error))
    return _Published(shapes, tuple(broken))


def shape(name: str) -> Geometry:
    """The geometry of a published model known as ``name``; raises ModelError with the names there are."""
    published = _Published.now()
    if name not in published.shapes:
        hint = did_you_mean(name, published.shapes)
        raise ModelError(f"unknown shape {name!r}{hint}; known shapes: {published.listed}")
    entry = published.shapes[name]
    config = ModelConfig(values=_family(entry).shapes[name], name=name, who=f"the shape {name}")
    return _geometry(entry, config)


def shapes() -> tuple[str, ...]:
    """The names of all published models that :func:`shape` knows."""
    return tuple(_Published.now().shapes)


def geometry_of(name: str) -> Geometry:
    """The geometry of a shape known by name, or of a local model folder; raises ModelError for anything else."""
    path = local_path(name)
    if name in shapes() or not (path.exists() or os.sep in name or path.suffix == ".json"):
        return shape(name)
    return read_geometry(path)


def read_geometry(path: Path) -> Geometry:
    """The geometry a model folder or ``config.json`` describes; raises ModelError naming what is missing."""
    try:
        config = read_config(path)
    except DataError as error:
        known = _Published.now().listed
        raise ModelError(f"{error}; give a folder with a config.json or one of: {known}") from error
    layout = checkpoint_layout(config.values)
    if layout is not None:
        config = attrs.evolve(config, values=layout.as_transformers(config))
    if config.model_type not in installed("adapter"):
        raise ModelError(
            f"{config.who} gives model_type={shortened(repr(config.get('model_type')), 80)}; wanted that of a model"
            f" family there is: {', '.join(installed('adapter')) or 'none'}"
        )
    return _geometry(only("adapter", config.model_type, installed("adapter")), config)


def _geometry(entry: EntryPoint, config: ModelConfig) -> Geometry:
    found = _family(entry).geometry(config)
    if not isinstance(found, Geometry):
        raise ModelError(
            f"geometry of model family {entry.name!r} ({owner_of(entry)}) returns {type(found).__name__}; wanted a"
            " headwise.Geometry"
        )
    return found
