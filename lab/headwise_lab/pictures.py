"""What the vision tower sees, computed once per study: no recipe changes what it makes of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor

ROOM = 2**30  # bytes that are held; beyond them pictures are looked at again


class Pictures:
    """The vision tower's outputs so far, by a key the caller gives each batch of pictures."""

    def __init__(self, model: Any) -> None:
        self._tower = getattr(getattr(model, "model", None), "vision_tower", None)
        self._seen: dict[int, Any] = {}
        self._room = ROOM

    @contextmanager
    def remembered(self, key: int) -> Iterator[None]:
        """Inside, the tower gives for batch ``key`` what it gave the first time, to the bit.

        Hooks on the tower run as ever. A model without a ``vision_tower`` runs as it is.
        """
        if self._tower is None:
            yield
            return
        look = self._tower.forward

        @wraps(look)  # transformers reads signatures
        def look_once(*args: Any, **kwargs: Any) -> Any:
            return self._seen[key] if key in self._seen else self._keep(key, look(*args, **kwargs))

        self._tower.forward = look_once
        try:
            yield
        finally:
            del self._tower.forward  # the method of the class shows again

    def _keep(self, key: int, found: Any) -> Any:
        size = sum(tensor.nbytes for tensor in _tensors(found))
        if size <= self._room:
            self._seen[key], self._room = found, self._room - size
        return found


def _tensors(output: Any) -> list[Tensor]:
    """All tensors of a model output, those in tuples included."""
    parts = output.to_tuple() if hasattr(output, "to_tuple") else output
    flat: list[Tensor] = []
    for part in parts:
        flat += [part] if isinstance(part, Tensor) else [item for item in part or () if isinstance(item, Tensor)]
    return flat
