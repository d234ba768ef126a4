"""The KV study as trials: tokens, head profile and every recipe are settled before the first one runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import torch

from headwise.errors import HeadwiseError
from headwise.heads import HeadProfile
from headwise.pipeline import Pipeline
from headwise_lab.kv.measure import command_line, head_of_text, identity
from headwise_lab.kv.preparing import KvOptions, prepare
from headwise_lab.kv.profiling import trained_context
from headwise_lab.kv.recipes import eviction_recipe
from headwise_lab.kv.study import CONTEXTS, KvCase, study_kv
from headwise_lab.models.load import LoadedLm, load_language_model
from headwise_lab.models.placing import settled
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.plan import Head, Plan, check_any_left, plan_of
from headwise_lab.sweeps.schema import SweepFile
from headwise_lab.sweeps.trials import FULL, Terms, TextInput, Trial, Work
from headwise_lab.sweeps.values import EVERY
from headwise_lab.texts.tokens import Text

RUNNER = "headwise_lab.kv.runner:TextRunner"
STUDY = "kv"

Load = Callable[..., LoadedLm]


def planned_kv(
    sweep: SweepFile,
    folder: Path | None = None,
    load: Load = load_language_model,
    *,
    may_refuse: type[HeadwiseError] = HeadwiseError,
) -> list[Plan]:
    """A plan per model; head profiles are read from ``folder`` and left there.

    Raises HeadwiseError where a model or text cannot be had, or no strategy that evicts anything has a plan.
    ``may_refuse``: errors of this class are the reason why a trial cannot be run; others are raised.
    """
    reading = sweep.reading
    given = KvOptions(
        text=reading.name,
        tokens=reading.tokens,
        profile=None if reading.profile is None else Path(reading.profile),
        scale=reading.scale,
    )
    dtype, device = settled(sweep.dtype, sweep.device)
    terms = Terms(dtype=dtype, device=device, attention=sweep.attention, study=STUDY)
    plans = []
    for model in sweep.models:
        loaded = loaded_for_planning(model, terms, load)
        scale = given.scale_of(loaded)
        cases = cases_of(sweep.kv_eviction, scale, reading.permutations)
        plan = plan_reading(loaded, given, cases, terms, folder, may_refuse=may_refuse)
        title = sweep.title or (plan.title if len(sweep.models) == 1 else "Study KV")
        plans.append(attrs.evolve(plan, title=title, remarks=remarks(loaded, given, scale)))
        del loaded  # two models need not fit at once, nor one beside that of a worker
        gc.collect()
        torch.cuda.empty_cache()
    check_any_left(plans)
    return plans


def loaded_for_planning(model: str, terms: Terms, load: Load = load_language_model) -> LoadedLm:
    """A model that can classify its heads: on the terms' device, or the CPU where this machine has no such device."""
    device = terms.device if torch.cuda.is_available() else "cpu"
    loaded = load(model, dtype=terms.dtype, device=device, attention=terms.attention)
    return attrs.evolve(loaded, device=terms.device)


def cases_of(texts: Sequence[str], scale: float, permutations: int) -> list[KvCase]:
    """The study's cases in place of ``*``, and strategies under their own texts."""
    found: list[KvCase] = []
    for text in texts:
        bare = text.removeprefix("kv_eviction=")
        own = KvCase(bare, FULL if bare == "none" else "own", bare)
        found += study_kv(scale, permutations) if text == EVERY else [own]
    return found


def plan_reading(
    loaded: LoadedLm,
    given: KvOptions,
    cases: Sequence[KvCase],
    terms: Terms,
    folder: Path | None,
    *,
    may_refuse: type[HeadwiseError] = HeadwiseError,
) -> Plan:
    """Cases on one model and text, with the head profile that is given or measured on what is not scored."""
    text, profile, path = prepare(loaded, given, folder)
    reading = TextInput(
        name=text.name,
        digest=text.digest,
        ids=tuple(text.ids.tolist()),
        source=text.source,
        profile=profile.plain(),
        profile_path=path,
        scale=given.scale_of(loaded),
    )
    work = Work(terms=attrs.evolve(terms, reading=reading), runner=RUNNER)
    bare = attrs.evolve(loaded, model=None, tokenizer=None)
    found = _trials(bare, text, profile, cases, terms=work.terms, may_refuse=may_refuse)
    return plan_of(f"Study KV: {loaded.name}", work, found)


def _trials(
    loaded: LoadedLm,
    text: Text,
    profile: HeadProfile,
    cases: Sequence[KvCase],
    *,
    terms: Terms,
    may_refuse: type[HeadwiseError],
) -> Iterator[tuple[Trial, Head]]:
    for case in cases:
        recipe, refused = eviction_recipe(case.text, profile), None
        try:
            Pipeline(recipe).eviction(loaded.geometry)
        except may_refuse as error:
            refused = str(error)
        trial = Trial(
            id=identity(loaded, text, recipe),
            label=f"{text.name}, {case.name}",
            model=loaded.source,
            benchmark=f"text {text.name}",
            strategies=(f"kv_eviction={case.text}",),
            case=case.name,
            case_group=case.group,
            questions=len(text.ids),
            refused=refused,
        )
        yield trial, _head(loaded, text, profile, trial, terms)


def _head(loaded: LoadedLm, text: Text, profile: HeadProfile, trial: Trial, terms: Terms) -> Head:
    def head() -> Record:
        recipe = eviction_recipe(trial.strategies[0], profile)
        path = terms.reading.profile_path if terms.reading else None
        command = command_line(loaded, text, recipe, profile=path)
        return head_of_text(
            loaded, text, recipe, name=trial.case, group=trial.case_group, study=terms.study, command=command
        )

    return head


def remarks(loaded: LoadedLm, given: KvOptions, scale: float) -> tuple[str, ...]:
    """What a reader has to know before reading the figures."""
    found = []
    largest, trained = round(max(CONTEXTS) * scale), trained_context(loaded.model)
    if scale != 1:
        found.append(
            f"{loaded.name} was trained on {trained} tokens at once, so windows are {scale:g} of those of the"
            f" head-aware cache study (the largest uniform run has {largest} entries)."
        )
    if trained is not None and given.tokens > trained:
        found.append(
            f"warning: {given.tokens} tokens are more than the {trained} that {loaded.name} was trained on; the full"
            " cache may well be lost among them."
        )
    if given.tokens < 2 * largest:
        found.append(
            f"warning: of {given.tokens} tokens {min(given.tokens, largest)} are read before the largest window evicts"
            " anything; more --tokens show more."
        )
    return tuple(found)
