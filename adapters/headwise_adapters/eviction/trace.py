"""What forwards under an attached recipe leave to be read: what each kept of its pictures, and the cache it filled."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from headwise.errors import DataError, ModelError
from headwise_adapters.cache.ragged_cache import EvictingCache, EvictingLayer
from headwise_adapters.vision.showing import shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from headwise.kept import KeptRow
    from headwise_adapters.vision.showing import Given, SeenImage

    Rows = Sequence[tuple[KeptRow, Sequence[SeenImage]]]

T = TypeVar("T")


class CacheReading:
    """What a cache holds, for reading alone: caches know of dropped visual tokens, too, and this knows the layers."""

    def __init__(self, layers: Sequence[EvictingLayer]) -> None:
        self._cache = EvictingCache(layers)

    def __repr__(self) -> str:
        """As the cache's own."""
        return repr(self._cache)

    def kv_bytes(self) -> int:
        """Bytes of all keys and values held, measured on their storages."""
        return self._cache.kv_bytes()

    def bookkeeping_bytes(self) -> int:
        """Bytes of everything else that the cache holds."""
        return self._cache.bookkeeping_bytes()

    def entries(self) -> npt.NDArray[np.int64]:
        """Entries held per layer and KV head, of the first row: (layers, kv_heads)."""
        return self._cache.entries()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that were read, padding included."""
        return int(self._cache.get_seq_length(layer_idx))


class Trace:
    """The last forward of every thread that ran one; a thread without any reads that of the only other one.

    That is how the thread that started another one to call ``generate`` learns what was kept. Threads that have ended
    are forgotten when another one comes, with the caches they filled.
    """

    def __init__(self, *, prunes: bool, evicts: bool) -> None:
        self._prunes, self._evicts = prunes, evicts
        self._kept: dict[threading.Thread, Rows] = {}
        self._layers: dict[threading.Thread, Sequence[EvictingLayer]] = {}

    def keep(self, rows: Rows) -> None:
        """Note what a forward with pictures kept of each row."""
        _note(self._kept, rows)

    def fill(self, layers: Sequence[EvictingLayer]) -> None:
        """Note the layers of the cache that a forward begins to fill; the one before is let go of."""
        _note(self._layers, layers)

    @property
    def kept(self) -> tuple[KeptRow, ...]:
        """Of each row of the last forward with pictures; ModelError where there was none, or nothing is pruned."""
        return tuple(kept for kept, _ in self._rows())

    def show(self, given: Sequence[Given], row: int | None) -> Image.Image:
        """What was kept of the images of all rows, or of one; raises ModelError as ``kept``, DataError as ``shown``."""
        rows = self._rows()
        if row is not None and not 0 <= row < len(rows):
            raise DataError(f"there is no row {row}; the last forward had {len(rows)}, counted from 0")
        chosen = rows if row is None else [rows[row]]
        return shown([(image, kept.numbers.tolist()) for kept, images in chosen for image in images], given)

    def _rows(self) -> Rows:
        if not self._prunes:
            raise ModelError("this recipe prunes no visual token, so all of them are kept")
        return _own(self._kept, "no prompt with a picture was read under this recipe yet, so nothing was kept")

    @property
    def cache(self) -> CacheReading:
        """The cache that the last forward filled; ModelError where there was none, or nothing is evicted."""
        if not self._evicts:
            raise ModelError(
                "this recipe evicts no KV entry, so the cache is generate's own; return_dict_in_generate=True gives it"
            )
        return CacheReading(_own(self._layers, "nothing was read under this recipe yet, so there is no cache"))


def _note(found: dict[threading.Thread, T], value: T) -> None:
    """Note a value of this thread; the first time, those of threads that have ended go."""
    own = threading.current_thread()
    if own not in found:
        for other in [one for one in list(found) if not one.is_alive()]:
            found.pop(other, None)
    found[own] = value


def _own(found: dict[threading.Thread, T], none: str) -> T:
    """What this thread left, or else the only thread that left anything; raises ModelError otherwise."""
    there = dict(found)  # other threads may be at work
    own = there.get(threading.current_thread())
    if own is not None:
        return own
    if not there:
        raise ModelError(none)
    if len(there) > 1:
        raise ModelError(f"{len(there)} other threads ran the model, and this one did not; ask in the thread you mean")
    return next(iter(there.values()))
