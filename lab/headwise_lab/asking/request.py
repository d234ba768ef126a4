"""What a user asks, and of which recipes; everything here is judged before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError, HeadwiseError, ModelError, StrategyError
from headwise.families import read_geometry
from headwise.geometry import Geometry
from headwise.heads import HeadProfile
from headwise.pipeline import Pipeline
from headwise.reading import local_path, shortened
from headwise.recipe import Recipe
from headwise_lab.benchmarks.pictures import check as check_picture
from headwise_lab.kv.recipes import eviction_recipe
from headwise_lab.models.load import called, find
from headwise_lab.trial.run import check

UNPRUNED = "unpruned"
FULL_CACHE = "full cache"


@attrs.frozen(kw_only=True)
class Asked:
    """``text``: the question about the picture ``image``; where that is None, the prompt that is continued.

    ``size``: width and height of the picture.
    """

    text: str
    image: Path | None = None
    size: tuple[int, int] | None = None


@attrs.frozen(eq=False, kw_only=True)
class Candidate:
    """A recipe under its name in the answers; ``recipe`` None: the model as it is.

    ``refused``: why this model cannot run it. ``merges``: whether it merges dropped tokens into kept ones.
    """

    name: str
    recipe: Recipe | None = None
    refused: str | None = None
    merges: bool = False


def asked(images: Sequence[str] | None, question: str | None, prompt: str | None) -> Asked:
    """What the options ask; raises DataError in one sentence where they ask nothing, or two things at once."""
    if prompt is not None:
        if images or question is not None:
            raise DataError("--prompt is for a language model and --image with --question for one that sees; give one")
        return Asked(text=_text("--prompt", prompt))
    if not images:
        raise DataError("there is nothing to answer; give --image and --question, or --prompt for a language model")
    image = _one_file(images)
    if question is None:
        raise DataError(f"there is no question about {image}; give --question")
    return Asked(text=_text("--question", question), image=image, size=check_picture(image))


def _one_file(images: Sequence[str]) -> Path:
    """The file that --image names; raises DataError for several, and for an address of the web."""
    if len(images) > 1:
        raise DataError(f"{len(images)} pictures are given, and one is asked about at a time; give one --image")
    (given,) = images
    if "://" in given or given.startswith("data:"):
        raise DataError(f"--image {shortened(given)} is no file; download the picture first, and give the file")
    return local_path(given)


def _text(option: str, given: str) -> str:
    """The text of an option; raises DataError where it is empty, or no text."""
    if not given.strip():
        raise DataError(f"{option} is empty; give a text")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{option} is no text: {error.reason} at character {error.start}") from error
    return given


def recipes_for_a_picture(
    names: Sequence[str], texts: Sequence[str], *, tokens: float | None, keep: int | None, profile: HeadProfile | None
) -> list[Candidate]:
    """The model as it is, and every named recipe on one budget, each with the strategies of ``texts`` in place of its.

    Without a name, the strategies make one recipe together. Raises what ``Recipe.of`` raises, and StrategyError for a
    budget without a recipe.
    """
    found = [Candidate(name=UNPRUNED)]
    if not (names or texts):
        if tokens is not None or keep is not None:
            raise StrategyError("--tokens and --keep are the budget of recipes; give --recipe or --strategy, too")
        return found
    wanted: list[str | None] = [*dict.fromkeys(names)]
    for name in wanted or [None]:
        label = " ".join(texts) if name is None else " + ".join((name, *texts))
        recipe = Recipe.of(*texts, name=name, tokens=tokens, keep=keep, profile=profile)
        found.append(Candidate(name=label, recipe=recipe))
    return found


def recipes_for_a_prompt(
    names: Sequence[str], texts: Sequence[str], *, tokens: float | None, keep: int | None, profile: HeadProfile | None
) -> list[Candidate]:
    """The full KV cache, and every eviction strategy. Raises StrategyError for what only prunes pictures."""
    if names:
        raise StrategyError("--recipe prunes the tokens of a picture, and a prompt has none; give --strategy")
    if tokens is not None or keep is not None:
        raise StrategyError(
            "--tokens and --keep count the tokens of a picture, and a prompt has none; a KV budget is an option of its"
            " strategy, such as --strategy snapkv:budget=64"
        )
    return [
        Candidate(name=FULL_CACHE),
        *(Candidate(name=text, recipe=eviction_recipe(text, profile)) for text in dict.fromkeys(texts)),
    ]


def looked_up(model: str, question: Asked) -> Geometry:
    """The counts of a model, read off its configuration; a model of the hub is fetched first.

    Raises ModelError for a language model that is shown a picture, and for one that sees and is given a prompt alone.
    """
    geometry = attrs.evolve(read_geometry(find(model)), name=called(model))
    sees = geometry.visual_tokens > 0
    if question.image is not None and not sees:
        raise ModelError(f"{model} is a language model and sees no picture; give --prompt, or a model that sees")
    if question.image is None and sees:
        raise ModelError(f"{model} is asked about a picture; give --image and --question, or a language model")
    return geometry


def planned(candidates: Sequence[Candidate], geometry: Geometry) -> list[Candidate]:
    """The candidates, each with the reason why this model cannot run it; HeadwiseError where it can run none."""
    found = [one if one.recipe is None else _planned(one, one.recipe, geometry) for one in candidates]
    refuse_if_none_is_left([(one.name, one.refused) for one in found if one.recipe is not None])
    return found


def refuse_if_none_is_left(tried: Sequence[tuple[str, str | None]]) -> None:
    """Raise HeadwiseError where recipes were tried, by name, and each was refused for the reason beside it."""
    reasons = [(name, why) for name, why in tried if why is not None]
    if not reasons or len(reasons) < len(tried):
        return
    if len(reasons) == 1:
        raise HeadwiseError(f"{reasons[0][0]} cannot answer: {reasons[0][1]}")
    raise HeadwiseError(f"no recipe can answer: {'; '.join(f'{name}: {why}' for name, why in reasons)}")


def _planned(one: Candidate, recipe: Recipe, geometry: Geometry) -> Candidate:
    try:
        plan = check(recipe, geometry)
        Pipeline(recipe).eviction(geometry)
    except HeadwiseError as error:
        return attrs.evolve(one, refused=str(error))
    return attrs.evolve(one, merges=any(stage.merged for stage in plan.stages))
