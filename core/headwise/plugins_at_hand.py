"""Every installed plugin, imported once: whose it is, how long that took, and what stood in the way."""

from __future__ import annotations

import time
from importlib.metadata import EntryPoint

import attrs

from headwise.errors import HeadwiseError
from headwise.listing import KINDS
from headwise.registry import distribution, installed, load

OTHERS = ("checkpoint", "command", "executor", "judge", "kit", "study")
"""Groups of entry points that cannot be listed as strategies can."""


@attrs.define
class Distribution:
    """A distribution that ships plugins: kind -> their names, seconds to import all of them, and failures."""

    name: str
    version: str
    plugins: dict[str, list[str]] = attrs.field(factory=dict)
    seconds: float = 0.0
    failures: list[str] = attrs.field(factory=list)


def distributions() -> list[Distribution]:
    """Import every plugin, by the distribution that ships it; headwise's own come first."""
    found: dict[tuple[str, str], Distribution] = {}
    for kind in (*KINDS, *OTHERS):
        for name, entries in installed(kind).items():
            for entry in entries:
                owner, number = distribution(entry.dist) if entry.dist else ("?", "?")
                of_owner = found.setdefault((owner, number), Distribution(owner, number))
                of_owner.plugins.setdefault(kind, []).append(name)
                _load(entry, kind, of_owner)
    return sorted(found.values(), key=lambda one: (one.name != "headwise", one.name))


def _load(entry: EntryPoint, kind: str, owner: Distribution) -> None:
    begun = time.perf_counter()
    try:
        load(entry)
    except HeadwiseError as error:
        owner.failures.append(f"{kind} {entry.name}: {' '.join(str(error).split())}")
    owner.seconds += time.perf_counter() - begun
