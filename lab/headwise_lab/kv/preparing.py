"""The text and the head profile of a KV study. The output folder keeps the profile for later runs."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise.heads import HeadProfile
from headwise_lab.kv.profiling import MOST, classified, split, trained_context
from headwise_lab.kv.study import scale_for
from headwise_lab.models.load import LoadedLm
from headwise_lab.store import locations
from headwise_lab.store.atomic import put
from headwise_lab.terminal.progress import progress_bars
from headwise_lab.texts.tokens import Text, tokens_of

PROFILE = "profile.json"


@attrs.frozen(kw_only=True)
class KvOptions:
    """Which text is read, and under which head profile.

    ``scale``: windows are multiplied by it; None takes it from the model's trained context. ``classify_on``: heads are
    classified on so many tokens at most.
    """

    text: str = "kjv"
    tokens: int = 1000
    profile: Path | None = None
    scale: float | None = None
    classify_on: int = MOST

    def scale_of(self, loaded: LoadedLm) -> float:
        """The number that the study's windows are multiplied by."""
        return self.scale if self.scale is not None else scale_for(trained_context(loaded.model))


def prepare(loaded: LoadedLm, given: KvOptions, folder: Path | None) -> tuple[Text, HeadProfile, str | None]:
    """The text to score, the head profile, and the profile's file."""
    path: str | None
    if given.profile is not None:
        scored = tokens_of(loaded.tokenizer, given.text, given.tokens)
        profile, path = HeadProfile.load(given.profile), str(given.profile)
    else:
        scored, rest = split(loaded, given.text, given.tokens, given.classify_on)
        name = f"{loaded.name}-{PROFILE}"  # the demo has several in one folder
        profile = _kept(folder, name, loaded, rest, given.tokens)
        path = None if folder is None else str(folder / name)
    profile.check(loaded.geometry)
    return scored, profile, path


def _kept(folder: Path | None, name: str, loaded: LoadedLm, text: Text, scored: int) -> HeadProfile:
    """The profile in ``folder``, measured now if there is none; DataError where it is of another text or model."""
    content = _content(folder, name)
    if content is None:
        with progress_bars() as bar:
            advance = bar("classifying heads", loaded.geometry.layers)
            made = classified(loaded, text, scored, lambda _, done, __: advance(done))
        content = _content(folder, name)  # another process may have written it meanwhile
        if content is None:
            content = json.dumps(made.plain()).encode() + b"\n"
            _leave(folder, name, content)
    profile = _read(content, name if folder is None else str(folder / name))
    if not profile.text.startswith(f"{text.name} ({text.digest}), ") or not profile.text.endswith(f" {scored}"):
        raise DataError(
            f"{name if folder is None else folder / name} was measured on {profile.text}, and now {scored} tokens of"
            f" {text.name} ({text.digest}) are scored; give --out a folder of its own, or --profile"
        )
    return profile


def _content(folder: Path | None, name: str) -> bytes | None:
    """The content of a file in an output folder; None where there is no such file."""
    if folder is None:
        return None
    if not locations.is_local(folder):
        return locations.load(folder, [name]).get(name)
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"profile {folder / name} cannot be read ({error.strerror}); delete it") from error


def _leave(folder: Path | None, name: str, content: bytes) -> None:
    if folder is None:
        return
    if not locations.is_local(folder):
        locations.send(folder, {name: content})
        return
    try:
        put(folder / name, content)
    except OSError as error:
        raise DataError(
            f"{folder / name} cannot be written ({error.strerror or error}); stored results stay"
        ) from error


def _read(content: bytes, where: str) -> HeadProfile:
    """The profile as the file holds it, so that a resumed study reads exactly the same numbers."""
    try:
        plain = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where} is not a head profile ({error}); delete it to have it measured again") from error
    return HeadProfile.from_plain(plain, where)
