"""What a sweep file can say. Every value is judged here, so that whatever is wrong is found before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import attrs

from headwise.errors import HeadwiseError, StrategyError
from headwise.recipe import AGGREGATES, POSITIONS
from headwise_lab.models.load import ATTENTIONS
from headwise_lab.models.placing import AUTO, DTYPES
from headwise_lab.report.studies import loaded, study_called
from headwise_lab.schema.json_object import default_of
from headwise_lab.schema.wrong_values import WrongValue
from headwise_lab.sweeps.values import (
    EVERY,
    at_least,
    each,
    in_unit,
    known_benchmark,
    known_recipe,
    known_strategy,
    known_study,
    not_empty,
    one_of,
    positive,
    share,
    single,
    within,
)

SCALES = (0.125, 8.0)
"""The smallest and the largest factor for the windows of the head-aware cache study."""

COMMON = ("title", "study", "models", "dtype", "device", "attention")
"""Keys that mean something in every study."""


@attrs.frozen(kw_only=True)
class Settings:
    """What a recipe says beside strategies and budget, for all trials; None leaves it to the recipe."""

    positions: str | None = attrs.field(default=None, validator=one_of(POSITIONS))
    aggregate: str | None = attrs.field(default=None, validator=one_of(AGGREGATES))
    min_mass: float | None = attrs.field(default=None, validator=single(in_unit))
    sink_share: float | None = attrs.field(default=None, validator=single(in_unit))


@attrs.frozen(kw_only=True)
class Budgets:
    """Budgets that everything is compared at; by default those of LLaVA-FinePruner-Head that the model can meet.

    ``tokens``: visual tokens processed per layer, on average; ``shares``: the same as shares of the model's visual
    tokens; ``keep``: visual tokens left after the last stage.
    """

    tokens: tuple[float, ...] = attrs.field(default=(), validator=each(positive))
    shares: tuple[float, ...] = attrs.field(default=(), validator=each(share))
    keep: tuple[int, ...] = attrs.field(default=(), validator=each(at_least(1)))


@attrs.frozen(kw_only=True)
class Grid:
    """Strategies of four hooks, each with each. ``"*"`` stands for all that are installed.

    ``heads`` and ``head_shares`` are counts beside those of ``head_count``: ``fixed:heads=N``. A scorer that decides
    on its own how many heads it keeps meets them once, as ``all``.
    """

    token_pruning: tuple[str, ...] = attrs.field(
        default=("fastv:layer=2",), validator=[not_empty, each(known_strategy("token_pruning"))]
    )
    head_scoring: tuple[str, ...] = attrs.field(
        default=("sum",), validator=[not_empty, each(known_strategy("head_scoring"))]
    )
    head_count: tuple[str, ...] = attrs.field(default=(), validator=each(known_strategy("head_count")))
    heads: tuple[int, ...] = attrs.field(default=(), validator=each(at_least(1)))
    head_shares: tuple[float, ...] = attrs.field(default=(), validator=each(share))
    query_selection: tuple[str, ...] = attrs.field(
        default=("last_token",), validator=[not_empty, each(known_strategy("query_selection"))]
    )


@attrs.frozen(kw_only=True)
class TextTable:
    """What a language model reads: a text that ships or a UTF-8 file, and how many of its tokens are scored.

    ``profile`` holds head classes (they are measured on what follows the scored tokens without one); both files are
    relative to the sweep file. ``scale``: windows times this, by the model's trained context where None;
    ``permutations``: times that the windows of a head-aware run are shuffled over the heads.
    """

    name: str = "kjv"
    tokens: int = attrs.field(default=1000, validator=single(at_least(2)))
    profile: str | None = None
    scale: float | None = attrs.field(default=None, validator=single(within(*SCALES)))
    permutations: int = attrs.field(default=3, validator=single(at_least(0)))


@runtime_checkable
class Rules(Protocol):
    """What a sweep file asks of its study; the whole is ``headwise_lab.sweeps.study.Study``."""

    @property
    def model(self) -> str:
        """The model that is taken where none is named."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Keys of a sweep file that mean something in it, beside those that do so in every study."""
        ...

    def wrong(self, sweep: SweepFile) -> tuple[str, str] | None:
        """The key of a sweep file that stands in the way, and what is wrong with it; None where nothing is."""
        ...


def rules_of(text: str) -> Rules:
    """The rules of an installed study; raises StrategyError where there is none, or it cannot be planned."""
    found = study_called(text)
    if not isinstance(found, Rules):
        raise StrategyError(f"study {text!r} cannot be planned; see headwise_lab.sweeps.study.Study")
    return found


def _usual_models(sweep: SweepFile) -> tuple[str, ...]:
    try:  # fields below ``models`` are not there yet
        return (rules_of(sweep.study or "headwise/methods").model,)
    except HeadwiseError:  # the validator of ``study``, which runs later, says what is wrong
        return ()


@attrs.frozen(kw_only=True)
class SweepFile:
    """A whole sweep: models x benchmarks x seeds x budgets x what is compared.

    ``title`` heads the report; ``study`` says which layout of the report the trials belong to. ``unpruned`` adds the
    model as it is, ``baseline`` FastV at every budget (for grids: ``sum`` over all heads at each token pruning), and
    ``control`` random heads, as many, for every grid. ``data`` is as in ``headwise run``, relative to the file.
    ``device`` and ``dtype`` may be ``auto``: what the machine that plans the sweep does fast.
    ``timed_in_turns``: the unpruned model is timed beside every trial, or else once for those that share inputs.

    A study that reads a text is models x strategies on one ``text``; in ``kv_eviction``, ``"*"`` stands for its cases.
    """

    title: str | None = None
    study: str | None = attrs.field(default=None, validator=single(known_study))
    models: tuple[str, ...] = attrs.field(
        default=attrs.Factory(_usual_models, takes_self=True), validator=[not_empty, each(lambda _: None)]
    )
    benchmarks: tuple[str, ...] = attrs.field(default=(), validator=each(known_benchmark))
    seeds: tuple[int, ...] = attrs.field(default=(0,), validator=[not_empty, each(at_least(0))])
    limit: int | None = attrs.field(default=None, validator=single(at_least(1)))
    batch: int = attrs.field(default=16, validator=single(at_least(1)))
    timed_batches: int = attrs.field(default=3, validator=single(at_least(1)))
    timed_in_turns: bool = True
    dtype: str = attrs.field(default=AUTO, validator=one_of((AUTO, *DTYPES)))
    device: str = AUTO
    attention: str = attrs.field(default="sdpa", validator=one_of(ATTENTIONS))
    data: str | None = None
    unpruned: bool = True
    baseline: bool = True
    control: bool = True
    recipes: tuple[str, ...] = attrs.field(default=(), validator=each(known_recipe))
    budgets: Budgets = attrs.field(factory=Budgets)
    settings: Settings = attrs.field(factory=Settings)
    grids: tuple[Grid, ...] = ()
    text: TextTable | None = None
    kv_eviction: tuple[str, ...] = attrs.field(
        default=(EVERY,), validator=[not_empty, each(known_strategy("kv_eviction"))]
    )

    def __attrs_post_init__(self) -> None:
        check_places(self, (name for name, usual in _USUAL.items() if getattr(self, name) != usual))
        found = rules_of(self.study_text).wrong(self)
        if found:
            raise WrongValue(*found)

    @property
    def study_text(self) -> str:
        """The study; where the file names none, that of heads for grids, and that of methods for recipes alone."""
        return self.study or ("headwise/a" if self.grids else "headwise/methods")

    @property
    def reading(self) -> TextTable:
        """The text that a language model reads."""
        return self.text or TextTable()


def check_places(sweep: SweepFile, keys: Iterable[str]) -> None:
    """Raise WrongValue for the first key that is given and means nothing in the study of the file."""
    own = rules_of(sweep.study_text).keys
    for key in keys:
        if key not in (*COMMON, *own):
            homes = [name for name, study in loaded()[0].items() if isinstance(study, Rules) and key in study.keys]
            if len(homes) == 1:
                problem = f'belongs to study {homes[0]} and means nothing without it; give study = "{homes[0]}", or'
                raise WrongValue(key, f"{problem} leave it out")
            allowed, name = ", ".join((*COMMON, *own)), sweep.study or "a"
            raise WrongValue(key, f"means nothing in study {name}; leave it out; allowed: {allowed}")


_USUAL = {field.name: default_of(field) for field in attrs.fields(SweepFile) if field.name not in COMMON}
"""Key -> its value where it is not given."""
