"""The KV study from its options to its report."""

from __future__ import annotations

from pathlib import Path

import attrs
from rich.console import Console

from headwise.errors import DataError
from headwise.heads import HeadProfile
from headwise_lab.kv.console import progress_bars
from headwise_lab.kv.profiling import MOST, classified, split, trained_context
from headwise_lab.kv.running import KvSweep, sweep_kv
from headwise_lab.kv.study import CONTEXTS, KvCase, scale_for, study_kv
from headwise_lab.kv.texts import Text, tokens_of
from headwise_lab.models_io import LoadedLm
from headwise_lab.store import Store
from headwise_lab.tally import Tally

PROFILE = "profile.json"


@attrs.frozen(kw_only=True)
class KvOptions:
    """What a user can say about a KV study.

    ``scale`` None goes by the model's trained context; ``classify_on``: most tokens that heads are classified on.
    """

    text: str = "kjv"
    tokens: int = 1000
    profile: Path | None = None
    scale: float | None = None
    permutations: int = 3
    classify_on: int = MOST

    def scale_of(self, loaded: LoadedLm) -> float:
        """How large windows are beside those of seed 004."""
        return self.scale if self.scale is not None else scale_for(trained_context(loaded.model))


def ablate_kv(loaded: LoadedLm, given: KvOptions, store: Store, console: Console) -> Tally:
    """Run the whole study on one model and text; says what a reader has to know beforehand."""
    scale = given.scale_of(loaded)
    _tell(console, *remarks(loaded, given, scale))
    return run_kv(loaded, given, store, study_kv(scale, given.permutations), console, study="kv", scale=scale)


def run_kv(
    loaded: LoadedLm,
    given: KvOptions,
    store: Store,
    cases: list[KvCase],
    console: Console,
    *,
    study: str,
    scale: float,
) -> Tally:
    """Run cases on one model and text, with the head profile that is given or measured on what is not scored."""
    text, profile, path = prepare(loaded, given, store)
    return sweep_kv(
        KvSweep(
            loaded=loaded,
            text=text,
            cases=cases,
            store=store,
            study=study,
            profile=profile,
            profile_path=path,
            scale=scale,
        ),
        console,
    )


def prepare(loaded: LoadedLm, given: KvOptions, store: Store) -> tuple[Text, HeadProfile, Path]:
    """The text to score, the head profile, and where that can be read."""
    if given.profile is not None:
        scored = tokens_of(loaded.tokenizer, given.text, given.tokens)
        profile, path = HeadProfile.load(given.profile), given.profile
    else:
        scored, rest = split(loaded, given.text, given.tokens, given.classify_on)
        path = store.folder / _file(loaded)
        profile = _kept(path, loaded, rest, given.tokens)
    profile.check(loaded.geometry)
    return scored, profile, path


def _file(loaded: LoadedLm) -> str:
    """One profile per model: the demo has several in one folder."""
    return f"{loaded.name}-{PROFILE}"


def _kept(path: Path, loaded: LoadedLm, text: Text, scored: int) -> HeadProfile:
    """The profile this folder has already, or a new one; DataError where it has one of another text or model."""
    if not path.exists():
        with progress_bars() as bar:
            advance = bar("classifying heads", loaded.geometry.layers)
            classified(loaded, text, scored, lambda _, done, __: advance(done)).save(path)
    profile = HeadProfile.load(path)  # as saved, so that a study that goes on reads the very same numbers
    if not profile.text.startswith(f"{text.name} ({text.digest}), ") or not profile.text.endswith(f" {scored}"):
        raise DataError(
            f"{path} was measured on {profile.text}, and now {scored} tokens of {text.name} ({text.digest}) are scored;"
            " give --out a folder of its own, or --profile"
        )
    return profile


def remarks(loaded: LoadedLm, given: KvOptions, scale: float) -> list[str]:
    """What a reader has to know before reading the figures."""
    told = []
    largest, trained = round(max(CONTEXTS) * scale), trained_context(loaded.model)
    if scale != 1:
        told.append(
            f"{loaded.name} was trained on {trained} tokens at once, so windows are {scale:g} of those of seed 004 (the"
            f" largest uniform run has {largest} entries)."
        )
    if trained is not None and given.tokens > trained:
        told.append(
            f"warning: {given.tokens} tokens are more than the {trained} that {loaded.name} was trained on; the full"
            " cache may well be lost among them."
        )
    if given.tokens < 2 * largest:
        told.append(
            f"warning: of {given.tokens} tokens {min(given.tokens, largest)} are read before the largest window evicts"
            " anything; more --tokens show more."
        )
    return told


def _tell(console: Console, *sentences: str) -> None:
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
