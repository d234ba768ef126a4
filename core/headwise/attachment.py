"""Attaching a recipe to a model: find the adapter of its family by entry point, plan, and run inside a ``with``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from headwise.blame import blamed
from headwise.errors import ModelError, StrategyError
from headwise.eviction import EvictionPlan
from headwise.families import family
from headwise.hints import did_you_mean
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise.reading import shown
from headwise.recipe import SETTINGS, Recipe
from headwise.registry import installed

if TYPE_CHECKING:
    from os import PathLike

    from PIL import Image
    from transformers import PreTrainedModel

    from headwise.adapter import Adapter, CacheReading, EvictingCache, Trace
    from headwise.kept import KeptRow


@attrs.frozen(eq=False, repr=False)
class Attachment:
    """What is attached: the recipe's pipeline and its plans for this model, and what its forwards leave to be read."""

    pipeline: Pipeline
    plan: PruningPlan
    eviction: EvictionPlan
    _trace: Trace

    def __repr__(self) -> str:
        """The strategies that do something, the budget, and what the plan makes of it, in one line."""
        recipe, plan = self.pipeline.recipe, self.plan
        visual = f"{plan.average:.1f} of {plan.geometry.visual_tokens} visual tokens per layer" if plan.stages else ""
        evicting = recipe.strategies.get("kv_eviction")
        cache = f"KV entries by {evicting.text}" if evicting and evicting.name != "none" else ""
        pruning = recipe.strategies["token_pruning"].text if plan.stages else ""
        told = ", ".join(filter(None, (pruning, visual, cache))) or "nothing is thrown away"
        return f"<headwise on {plan.geometry.name.rpartition('/')[2]}: {told}>"

    @property
    def kept(self) -> tuple[KeptRow, ...]:
        """What each row of the last forward with pictures kept, as the model ran them: beams repeat rows.

        Of a prompt that is read in chunks, the last chunk that has pictures. Forwards without pictures, such as
        decoding steps, change nothing. Raises ModelError where no picture was read, or the recipe prunes none.
        """
        return self._trace.kept

    @property
    def cache(self) -> CacheReading:
        """What the cache of the last forward holds. It lives as long as the attachment, or until the next is filled.

        Raises ModelError where nothing was read, or the recipe evicts no KV entry.
        """
        return self._trace.cache

    def show(self, *images: Image.Image | str | PathLike[str], row: int | None = None) -> Image.Image:
        """Each image, and beside it what was kept of it (of an image cut into crops: of it all, then of the crops).

        ``images``: those of all rows of the last forward, in order, or of one ``row``. Raises ModelError as ``kept``
        does, and DataError for pictures that the model did not see, or whose tokens have no known place on them.
        """
        return self._trace.show(images, row)


_WRAPPED = {"get_base_model": "get_base_model()", "module": "module"}
"""How PEFT, and the wrappers of data parallel training, tell what they wrap."""


def adapter_for(model: PreTrainedModel) -> Adapter:
    """The adapter of a transformers model's family; raises ModelError naming the families there are."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    inside = next((way for way in _WRAPPED if hasattr(model, way)), None)
    if inside is not None:
        raise ModelError(
            f"a {type(model).__name__} wraps the model; attach to what is inside (model.{_WRAPPED[inside]}), and go on"
            " calling the wrapper"
        )
    found = installed("adapter")
    if model_type not in found:
        raise ModelError(
            f"no adapter for {type(model).__name__} (model_type {model_type!r}); supported:"
            f" {', '.join(found) or 'none'}"
        )
    return family(model_type).adapter(model)


def recipe_of(recipe: Recipe | str, texts: Sequence[str], said: Mapping[str, object]) -> Recipe:
    """The recipe itself, or that of strategy texts and what is ``said`` of budget and settings.

    Raises StrategyError for what is neither, for a setting that there is not, and where something stands beside a
    Recipe; and what :meth:`Recipe.of` raises.
    """
    known = ("name", "tokens", "keep", "profile", *SETTINGS)
    for key in said:
        if key not in known:
            raise StrategyError(
                f"there is no setting {key!r}{did_you_mean(key, known)}; settings are {', '.join(known)}"
            )
    for text in (recipe, *texts) if isinstance(recipe, str) else texts:
        if not isinstance(text, str):
            raise StrategyError(f"wanted a headwise.Recipe or strategy texts, got {shown(text)}")
    if isinstance(recipe, str):
        return Recipe.of(recipe, *texts, **said)  # type: ignore[arg-type]
    if not isinstance(recipe, Recipe):
        raise StrategyError(f"wanted a headwise.Recipe or strategy texts, got {shown(recipe)}")
    beside = [*map(repr, texts), *(f"{key}=" for key in said)]
    if beside:
        raise StrategyError(f"a Recipe says everything; leave out {', '.join(beside)}, or give strategy texts alone")
    return recipe


@contextmanager
def attach(
    model: PreTrainedModel,
    recipe: Recipe | str,
    *texts: str,
    observers: Sequence[object] = (),
    **settings: object,
) -> Iterator[Attachment]:
    """Run a stock transformers model with tokens pruned and KV entries evicted as the recipe says.

    ``recipe`` is a Recipe, or the first of several strategy texts; ``settings`` are then those of :meth:`Recipe.of`.

    >>> with headwise.attach(model, "fastv:layer=2", keep=64):  # doctest: +SKIP
    ...     model.generate(**inputs)
    >>> with headwise.attach(model, "streaming:sinks=4,window=60"):  # doctest: +SKIP
    ...     model.generate(**inputs)

    ``observers`` are pluggy plugins that see every decision. Raises ModelError for a model no adapter knows,
    BudgetError for a budget the plan cannot meet, StrategyError for everything a strategy does wrong.
    """
    adapter = adapter_for(model)
    pipeline = Pipeline(recipe_of(recipe, texts, settings), observers)
    plan = pipeline.plan(adapter.geometry)
    eviction = pipeline.eviction(adapter.geometry)
    with ExitStack() as entered:
        with blamed(f"the adapter {type(adapter).__name__}"):
            trace = entered.enter_context(adapter.attached(pipeline, plan, eviction))
        yield Attachment(pipeline, plan, eviction, trace)


def cache(model: PreTrainedModel, recipe: Recipe | str, *texts: str, **settings: object) -> EvictingCache:
    """An empty KV cache that evicts as the recipe says; pass it as ``past_key_values``, turn after turn.

    >>> held = headwise.cache(model, "snapkv:budget=512")  # doctest: +SKIP
    >>> model.generate(**inputs, past_key_values=held)  # doctest: +SKIP

    ``recipe``, ``texts`` and ``settings`` are those of :func:`attach`.

    Needs no ``with``: while the cache lives, the model's attention asks it what is there; other caches are served as
    before. Raises what :func:`attach` raises, and ModelError for a recipe that prunes visual tokens, which needs
    :func:`attach`.
    """
    adapter = adapter_for(model)
    pipeline = Pipeline(recipe_of(recipe, texts, settings))
    if pipeline.plan(adapter.geometry).stages:
        raise ModelError("a cache evicts KV entries and prunes no visual token; use headwise.attach for this recipe")
    with blamed(f"the adapter {type(adapter).__name__}"):
        return adapter.cache(pipeline, pipeline.eviction(adapter.geometry))
