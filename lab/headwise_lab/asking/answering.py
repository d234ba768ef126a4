"""Asking one loaded model one thing under every recipe: what it says, what it kept, and what that cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from statistics import median
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from headwise.attachment import Attachment, adapter_for, attach
from headwise.errors import DataError, HeadwiseError
from headwise_adapters import patching
from headwise_adapters.cache.ragged_cache import kv_bytes
from headwise_lab.asking.request import Asked, Candidate, refuse_if_none_is_left
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.inputs import placed
from headwise_lab.benchmarks.prompting import check_questions, encode
from headwise_lab.cost.timing import prefill, seconds
from headwise_lab.models.checkpoints import first_line
from headwise_lab.models.generation import greedy
from headwise_lab.models.load import Loaded, LoadedLm, LoadedModel, load_language_model, load_model
from headwise_lab.models.placing import DTYPES
from headwise_lab.trial.run import observer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROUNDS = 3
"""Prefills of each recipe that are timed. Recipes take turns, so that other work on the machine slows all of them."""


@attrs.frozen(eq=False, kw_only=True)
class Ready:
    """A loaded model, and the tensors of what it is asked; ``visual`` of their tokens belong to the picture."""

    loaded: LoadedModel
    tokenizer: PreTrainedTokenizerBase
    tensors: Mapping[str, Tensor]
    visual: int

    @property
    def length(self) -> int:
        """Tokens of the whole prompt."""
        return int(self.tensors["input_ids"].shape[1])


@attrs.frozen(kw_only=True)
class Answered:
    """What one recipe made of it; of a recipe that could not run, only its name, strategies and the reason.

    ``kept``: the visual tokens left after the last stage, in reading order. ``stages``: the layer before which each
    stage stands, and the tokens left after it. ``processed``: visual tokens in each
    decoder layer of the prefill, counted while it ran. ``prefill_ms``: the median of ROUNDS forwards, vision tower
    included. ``kv_bytes``: the storages of the cache after the prefill, ``kv_bytes_end`` after the answer; ``entries``
    and ``entries_end``: the same as entries per layer and KV head, on average.
    """

    name: str
    strategies: Mapping[str, str] = attrs.field(factory=dict)
    budget: str | None = None
    answer: str | None = None
    kept: Sequence[int] | None = None
    stages: Sequence[tuple[int, Sequence[int]]] = ()
    processed: Sequence[int] | None = None
    prefill_ms: float | None = None
    kv_bytes: int | None = None
    kv_bytes_end: int | None = None
    entries: float | None = None
    entries_end: float | None = None
    merges: bool = False
    refused: str | None = None

    @property
    def average(self) -> float | None:
        """Visual tokens that a decoder layer processes, on average."""
        return sum(self.processed) / len(self.processed) if self.processed else None


def ready(asked: Asked, model: str, *, dtype: str, device: str, attention: str) -> Ready:
    """Load a model and encode what it is asked; raises ModelError or DataError in one sentence."""
    how = {"dtype": dtype, "device": device, "attention": attention}
    if asked.image is None:
        return _ready_to_read(asked.text, load_language_model(model, **how))
    # As a question of a benchmark, it is checked and encoded like those.
    question = Question(id="1", unit="1", image=asked.image, text=asked.text, answers=(), kind="asked")
    return _ready_to_see(question, load_model(model, **how))


def _ready_to_see(question: Question, loaded: Loaded) -> Ready:
    check_questions(loaded.processor, [question])
    tensors = encode(loaded.processor, [question])
    visual = int((tensors["input_ids"] == loaded.model.config.image_token_id).sum())
    return Ready(loaded=loaded, tokenizer=loaded.processor.tokenizer, tensors=placed(tensors, loaded), visual=visual)


def _ready_to_read(prompt: str, loaded: LoadedLm) -> Ready:
    encoded = loaded.tokenizer(prompt, return_tensors="pt", verbose=False)
    tensors = {name: encoded[name].to(loaded.device) for name in ("input_ids", "attention_mask")}
    if not tensors["input_ids"].shape[1]:
        raise DataError(f"{loaded.name} makes no token of --prompt; give another text")
    return Ready(loaded=loaded, tokenizer=loaded.tokenizer, tensors=tensors, visual=0)


def answers(
    asked: Ready, candidates: Sequence[Candidate], most: int, advance: Callable[[int], None] = lambda _: None
) -> list[Answered]:
    """What each candidate says, in at most ``most`` tokens; one that fails is told with its reason.

    Raises HeadwiseError where the model as it is fails, and where every recipe does. ``advance`` is called after each
    piece of work: one for every candidate, and one for every round of timing.
    """
    found = []
    for one in candidates:
        found.append(_answered(asked, one, most))
        advance(1)
    refuse_if_none_is_left([(told.name, told.refused) for told in found[1:]])
    running = [one for one, told in zip(candidates, found, strict=True) if told.refused is None]
    times: dict[str, list[float]] = {one.name: [] for one in running}
    for _ in range(ROUNDS):
        for one in running:
            times[one.name].append(_timed(asked, one))
        advance(1)
    return [
        attrs.evolve(told, prefill_ms=1000 * median(times[told.name])) if told.name in times else told for told in found
    ]


def _attached(model: PreTrainedModel, one: Candidate, *observers: object) -> AbstractContextManager[Attachment | None]:
    return nullcontext() if one.recipe is None else attach(model, one.recipe, observers=observers)


def _answered(asked: Ready, one: Candidate, most: int) -> Answered:
    """The answer of one candidate, not timed; the reason where it cannot run. The model as it is has to run."""
    strategies = {} if one.recipe is None else {hook: chosen.text for hook, chosen in one.recipe.strategies.items()}
    bare = Answered(
        name=one.name,
        strategies=strategies,
        budget=None if one.recipe is None else one.recipe.budget.text,
        refused=one.refused,
        merges=one.merges,
    )
    if one.refused is not None:
        return bare
    try:
        return _said(asked, one, bare, most)
    except Exception as error:  # a model may fail in any way, such as for want of memory
        why = str(error) if isinstance(error, HeadwiseError) else f"{type(error).__name__}: {first_line(error)}"
        if one.recipe is None:
            raise DataError(f"{asked.loaded.name} cannot answer: {why}") from error
        return attrs.evolve(bare, refused=why)


@torch.inference_mode()
def _said(asked: Ready, one: Candidate, bare: Answered, most: int) -> Answered:
    model, recorder = asked.loaded.model, observer("recorder")
    with _attached(model, one, recorder) as attached:
        chosen = greedy(model, asked.tokenizer, most, return_dict_in_generate=True)
        whole = model.generate(**asked.tensors, generation_config=chosen)
        seen = recorder.take().get(0)  # None where every visual token stayed
        with _lengths(model) as lengths:
            out = prefill(model, asked.tensors)
    held, end = kv_bytes(out.past_key_values), kv_bytes(whole.past_key_values)
    one_entry = _bytes_of_an_entry(asked.loaded)
    return attrs.evolve(
        bare,
        answer=asked.tokenizer.decode(whole.sequences[0, asked.length :], skip_special_tokens=True).strip(),
        kept=tuple(range(asked.visual) if seen is None else seen.kept) if asked.visual else None,
        stages=() if seen is None or attached is None else _stages(attached, seen.stages),
        processed=tuple(length - asked.length + asked.visual for length in lengths) if asked.visual else None,
        kv_bytes=held,
        kv_bytes_end=end,
        entries=held / one_entry,
        entries_end=end / one_entry,
    )


def _stages(attached: Attachment, kept: Sequence[Sequence[int]]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Each stage that was run: the layer before which it stands, and what it left."""
    return tuple((stage.layer, tuple(left)) for stage, left in zip(attached.plan.stages, kept, strict=True))


def _bytes_of_an_entry(loaded: LoadedModel) -> int:
    """Bytes of one key and one value in every layer and KV head."""
    geometry = loaded.geometry
    return geometry.layers * geometry.kv_heads * 2 * geometry.head_dim * DTYPES[loaded.dtype].itemsize


@contextmanager
def _lengths(model: PreTrainedModel) -> Iterator[list[int]]:
    """Tokens that enter each decoder layer, in order, of every forward inside the block."""
    found: list[int] = []

    def see(args: patching.Args, kwargs: patching.Kwargs) -> None:
        found.append((args[0] if args else kwargs["hidden_states"]).shape[1])

    with ExitStack() as stack:
        for layer in adapter_for(model).decoder.layers:
            stack.enter_context(patching.before(layer, see, innermost=True))
        yield found


@torch.inference_mode()
def _timed(asked: Ready, one: Candidate) -> float:
    """Seconds of one prefill, without observers."""
    with _attached(asked.loaded.model, one):
        return seconds(asked.loaded, prefill, asked.loaded.model, asked.tensors)
