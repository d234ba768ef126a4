"""File names made from titles."""

from __future__ import annotations

from collections.abc import Sequence


def slugs(titles: Sequence[str]) -> list[str]:
    """A file name for each title; equal ones get a number."""
    taken: dict[str, int] = {}
    found = []
    for title in titles:
        bare = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title.lower())
        slug = "-".join(filter(None, bare.split("-")))[:80] or "table"
        taken[slug] = taken.get(slug, 0) + 1
        found.append(slug if taken[slug] == 1 else f"{slug}-{taken[slug]}")
    return found
