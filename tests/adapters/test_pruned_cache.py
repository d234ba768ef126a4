"""A cache that was filled under pruning: rolled back, repeated, picked from, copied, and kept from everybody else."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from tests.adapters.vision_models import IMAGE, PAD, batch
from tests.situations.families import FAMILIES, model_of
from tests.situations.oracle import Rules, logits_of
from tests.situations.run import Recorder
from torch import Tensor
from transformers.cache_utils import DynamicCache

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise_adapters.cache.pruned_cache import PrunedCache

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"rtol": 2e-4, "atol": 2e-4}
TEXTS = ["fastv:layer=2", "token_pruning=random:layer=0", "pdrop:layers=1/2/3"]
IN_FRONT, BEHIND = "token_pruning=random:layer=0", "fastv:layer=2"


class Read:
    """A batch of prompts with one image each, read under pruning: mask, cache, embeddings of its rows and what is gone.

    Rows differ in length and in the tokens they drop.
    """

    def __init__(self, model, family, parts) -> None:
        self.model = model
        prompts = [family.of(part, seed=3 + number) for number, part in enumerate(parts)]
        self.inputs = batch(prompts, "left")
        self.mask, self.gone = self.inputs["attention_mask"], []
        self.states = [self._embedded(prompt) for prompt in prompts]  # (n, d) each, without padding
        self.ids = [prompt.ids[0] for prompt in prompts]
        self.numbered = family.name != "qwen2_5_vl"

    def _embedded(self, prompt) -> Tensor:
        states = self.model.get_input_embeddings()(prompt.ids[0])
        features = torch.cat(list(self.model.get_image_features(**prompt.images, return_dict=True).pooler_output))
        states[prompt.ids[0] == IMAGE] = features
        return states

    def prompts(self, recorder: Recorder) -> Tensor:
        recorder.begin()
        recorder.next()
        logits = self._forward(self.inputs)
        for row, ids in enumerate(self.ids):
            visual = (ids == IMAGE).nonzero().flatten().tolist()
            layers = recorder.of(row)[0]
            self.gone.append({layer: [visual[n] for n in range(len(visual)) if n not in told[0]]
                              for layer, told in layers.items()})  # fmt: skip
        return logits

    def says(self, words: Tensor) -> Tensor:
        """Logits (b, k, vocabulary) of words (b, k)."""
        self.mask = torch.cat([self.mask, torch.ones_like(words)], dim=1)
        said = self.model.get_input_embeddings()(words)
        self.states = [torch.cat(pair) for pair in zip(self.states, said, strict=True)]
        return self._forward({"input_ids": words, "past_key_values": self.cache})

    def _forward(self, given) -> Tensor:
        places = (self.mask.cumsum(dim=1) - 1).clamp_min(0)[:, -given["input_ids"].shape[1] :]
        placed = {"position_ids": places} if self.numbered else {}
        output = self.model(**{**given, "attention_mask": self.mask}, **placed)
        self.cache = output.past_key_values
        return output.logits

    def back(self, count: int) -> None:
        """Take the last columns back."""
        self.cache.crop(-count)
        lost = self.mask[:, -count:].sum(dim=1).tolist()
        self.mask = self.mask[:, :-count]
        self.states = [states[: len(states) - n] for states, n in zip(self.states, lost, strict=True)]
        self.gone = [{layer: [place for place in places if place < len(states)] for layer, places in gone.items()}
                     for states, gone in zip(self.states, self.gone, strict=True)]  # fmt: skip

    def check(self, found: Tensor, compact: bool = False) -> None:
        """Compare the logits of the last words with those of a stock model whose keys are masked."""
        for states, gone, row in zip(self.states, self.gone, found, strict=True):
            places = torch.arange(len(states))[None]
            expected = logits_of(self.model, states[None], places, Rules(gone=gone, compact=compact))
            torch.testing.assert_close(row, expected[-len(row) :], **CLOSE)


def words(rows: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 58, (rows, count), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("back", [1, 6, 11, 20])
@pytest.mark.parametrize("text", TEXTS)
def test_rolled_back_anywhere_it_goes_on_as_if_no_more_had_been_read(text, back, attention):
    """Behind the image, into it (rows then keep different numbers of columns), and in front of it."""
    family, recorder, positions = FAMILIES["llava"], Recorder(), {"eager": "keep", "sdpa": "compact"}[attention]
    read = Read(model_of("llava", attention, torch.float32), family, [(4, "a", 5), (9, "b", 3)])
    with headwise.attach(read.model, Recipe.of(text, keep=4, positions=positions), observers=[recorder]):
        read.prompts(recorder)
        read.says(words(2, 2))
        read.back(back)
        for number in range(3):
            read.check(read.says(words(2, 1 + number % 2, number)), positions == "compact")
        read.back(2)
        read.check(read.says(words(2, 1, 9)), positions == "compact")


@pytest.mark.parametrize("back", [3, 30])
def test_a_picture_of_several_crops_is_rolled_back_into(back):
    recorder, family = Recorder(), FAMILIES["llava_next"]
    read = Read(model_of("llava_next", "sdpa", torch.float32), family, [(4, "a", 5), (9, "b", 3)])
    with headwise.attach(read.model, Recipe.of("pdrop:layers=1/2/3", keep=8), observers=[recorder]):
        read.prompts(recorder)
        read.back(back)
        read.check(read.says(words(2, 2)))


@pytest.mark.parametrize(
    ("name", "text"), [*(("llava", text) for text in TEXTS), ("llava_next", IN_FRONT), ("qwen2_5_vl", BEHIND)]
)
def test_prompt_lookup_says_what_greed_says(name, text):
    model = model_of(name, "sdpa", torch.float32)
    prompt = FAMILIES[name].of((4, "a", 6), seed=5)
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": PAD, "max_new_tokens": 24}
    with headwise.attach(model, Recipe.of(text, keep=4)):
        plain = model.generate(**prompt.inputs, **options)
        found = model.generate(**prompt.inputs, **options, prompt_lookup_num_tokens=3)
    assert torch.equal(plain, found)


@pytest.mark.parametrize("text", [IN_FRONT, BEHIND])
def test_rolled_back_to_where_nothing_was_dropped_it_is_anybodys_cache_again(text):
    model, family = model_of("llava", "sdpa", torch.float32), FAMILIES["llava"]
    first, second = family.of((7,), seed=1), family.of((1, "a", 4), seed=2)
    with headwise.attach(model, Recipe.of(text, keep=4)):
        cache = model(**first.inputs).past_key_values
        length = cache.get_seq_length()
        mask = torch.ones(1, length + second.ids.shape[1], dtype=torch.long)
        model(**{**second.inputs, "attention_mask": mask}, past_key_values=cache)
        assert type(cache) is not DynamicCache
        cache.crop(-second.ids.shape[1])
    assert (type(cache), cache.get_seq_length()) == (DynamicCache, length)
    again = model(input_ids=words(1, 2), past_key_values=cache).logits
    expected = model(input_ids=torch.cat([first.ids, words(1, 2)], dim=1)).logits[:, -2:]
    torch.testing.assert_close(again, expected, **CLOSE)
    cache = DynamicCache()
    with headwise.attach(model, Recipe.of(text, keep=4)):
        model(**family.of((1, "a", 4), seed=2).inputs, past_key_values=cache)
    cache.reset()
    assert (type(cache), cache.get_seq_length(), vars(cache).get("_holdings")) == (DynamicCache, 0, None)
    torch.testing.assert_close(
        model(**first.inputs, past_key_values=cache).logits, model(**first.inputs).logits, **CLOSE
    )


@pytest.mark.parametrize("text", TEXTS)
def test_rows_are_repeated_and_picked_with_what_they_hold(text):
    recorder = Recorder()
    read = Read(model_of("llava", "sdpa", torch.float32), FAMILIES["llava"], [(4, "a", 5), (9, "b", 3)])
    with headwise.attach(read.model, Recipe.of(text, keep=4), observers=[recorder]):
        read.prompts(recorder)
        read.cache = copy.deepcopy(read.cache)
        read.cache.batch_repeat_interleave(2)
        read.cache.batch_select_indices(torch.tensor([0, 3, 1]))
        read.cache.reorder_cache(torch.tensor([1, 0, 2]))
        rows = [1, 0, 0]
        read.mask = read.mask[rows]
        read.states, read.gone = ([found[row] for row in rows] for found in (read.states, read.gone))
        read.check(read.says(words(3, 2)))
        read.back(4)
        read.check(read.says(words(3, 1, 5)))
        only = torch.tensor([False, True, False])
        read.cache.batch_select_indices(only)
        read.mask, read.states, read.gone = read.mask[only], read.states[1:2], read.gone[1:2]
        read.check(read.says(words(1, 1, 6)))


def filled(model, text=BEHIND, **settings):
    """A cache of a prompt with an image, and its length."""
    prompt = FAMILIES["llava"].of((4, "a", 5), seed=5)
    with headwise.attach(model, Recipe.of(text, keep=4, **settings)):
        cache = model(**prompt.inputs).past_key_values
    return cache, prompt.ids.shape[1]


ELSEWHERE = "is not attached to the recipe that knows which tokens it holds"


@pytest.mark.parametrize("text", [*TEXTS, f"{BEHIND} window:window=400"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_outside_of_its_block_it_is_refused_before_a_layer_took_anything(text, attention):
    model = model_of("llava", attention, torch.float32)
    prompt = FAMILIES["llava"].of((4, "a", 5), seed=5)
    with headwise.attach(model, Recipe.of(*text.split(), keep=4)):
        cache = model(**prompt.inputs).past_key_values
        twin = copy.deepcopy(cache)
        expected = model(input_ids=words(1, 2), past_key_values=twin).logits
    other = model_of("llava_next", attention, torch.float32)
    for stranger in (model, copy.deepcopy(model), other, model.model.language_model):
        with pytest.raises(ModelError, match=ELSEWHERE):
            stranger(input_ids=words(1, 2), past_key_values=cache)
    ids = torch.cat([prompt.ids, words(1, 2)], dim=1)
    with pytest.raises(ModelError, match=ELSEWHERE):
        model.generate(input_ids=ids, past_key_values=cache, max_new_tokens=3)
    with headwise.attach(model, Recipe.of(*text.split(), keep=4)):
        found = model(input_ids=words(1, 2), past_key_values=cache).logits
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (Recipe.of("token_pruning=none"), ELSEWHERE),
        (Recipe.of("window:window=400"), "tokens that were read before the recipe was attached"),
        (
            Recipe.of("fastv:layer=3", keep=4),
            r"from layer 2 on, and the recipe .* here cuts .* from layer 3 on",
        ),
        (Recipe.of(BEHIND, keep=4, positions="compact"), r"with positions=keep, and the recipe .* positions=compact"),
    ],
)
def test_a_recipe_that_does_not_look_after_its_layers_refuses_it(recipe, told):
    model = model_of("llava", "sdpa", torch.float32)
    cache, _ = filled(model)
    with headwise.attach(model, recipe), pytest.raises(ModelError, match=told):
        model(input_ids=words(1, 2), past_key_values=cache)


def test_another_model_that_is_pruned_refuses_it():
    model = model_of("llava", "sdpa", torch.float32)
    cache, _ = filled(model)
    twin = copy.deepcopy(model)
    with headwise.attach(twin, Recipe.of(BEHIND, keep=4)), pytest.raises(ModelError, match="pruning by another model"):
        twin(input_ids=words(1, 2), past_key_values=cache)


def test_in_a_nested_block_it_goes_on_where_its_layers_are_looked_after():
    """What was dropped from a prompt stays dropped under any recipe that cuts masks and positions as early."""
    model, recorder = model_of("llava", "sdpa", torch.float32), Recorder()
    read = Read(model, FAMILIES["llava"], [(4, "a", 5), (9, "b", 3)])
    with headwise.attach(model, Recipe.of(BEHIND, keep=4), observers=[recorder]):
        read.prompts(recorder)
        for text in ("token_pruning=uniform:layer=1", "divprune", BEHIND):
            with headwise.attach(model, Recipe.of(text, keep=6)):
                read.check(read.says(words(2, 2)))
        with headwise.attach(model, Recipe.of("token_pruning=none")), pytest.raises(ModelError, match=ELSEWHERE):
            model(input_ids=words(2, 1), past_key_values=read.cache)
        read.check(read.says(words(2, 1)))


BROKEN = "hold other numbers of tokens than they were given, .* broken off; start with an empty cache"


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("text", [IN_FRONT, BEHIND])
def test_a_cache_whose_forward_was_broken_off_is_refused(text, first):
    """The first forward, or one that goes on; in front of a stage or behind it."""
    model = model_of("llava", "sdpa", torch.float32)

    def breaks(*_):
        raise KeyboardInterrupt

    prompt = FAMILIES["llava"].of((4, "a", 5), seed=5)
    for layer in (1, 3):
        broken = DynamicCache() if first else filled(model, text)[0]
        with headwise.attach(model, Recipe.of(text, keep=4)):
            handle = model.model.language_model.layers[layer].register_forward_pre_hook(breaks)
            given = prompt.inputs if first else {"input_ids": words(1, 2)}
            with pytest.raises(KeyboardInterrupt):
                model(**given, past_key_values=broken)
            handle.remove()
            with pytest.raises(ModelError, match=BROKEN):
                model(input_ids=words(1, 2), past_key_values=broken)


def test_a_cache_that_somebody_changed_is_refused():
    """A layer that was cut by itself, and a cache that was made of the tensors of another."""
    model = model_of("llava", "sdpa", torch.float32)
    cut, _ = filled(model)
    made = DynamicCache([(keys, values) for keys, values, *_ in cut])
    cut.layers[3].crop(-1)
    with headwise.attach(model, Recipe.of(BEHIND, keep=4)):
        for cache in (cut, made):
            with pytest.raises(ModelError, match=BROKEN):
                model(input_ids=words(1, 1), past_key_values=cache)


def test_it_is_copied_and_not_pickled():
    cache, length = filled(model_of("llava", "sdpa", torch.float32))
    for save in (lambda: pickle.dumps(cache), lambda: torch.save(cache, io.BytesIO())):
        with pytest.raises(ModelError, match=r"cannot be pickled or saved; copy\.deepcopy copies it"):
            save()
    twin = copy.deepcopy(cache)
    twin.crop(-3)
    assert (cache.get_seq_length(), twin.get_seq_length()) == (length, length - 3)
    assert isinstance(twin, PrunedCache)
    assert isinstance(twin, DynamicCache)


def test_what_cannot_be_taken_back_is_told():
    model = model_of("llava", "sdpa", torch.float32)
    cache, length = filled(model)
    with pytest.raises(ModelError, match=r"crop takes a negative number .*, not 5"):
        cache.crop(5)
    cache.crop(0)
    assert cache.get_seq_length() == length
    with headwise.attach(model, Recipe.of(BEHIND, "window:window=400", keep=4)):
        evicts = model(**FAMILIES["llava"].of((4, "a", 5), seed=5).inputs).past_key_values
        with pytest.raises(ModelError, match="a cache that evicts cannot be rolled back"):
            evicts.crop(-1)
        assert evicts.get_seq_length() == length
    cache.crop(-length - 7)
    assert (type(cache), cache.get_seq_length()) == (DynamicCache, 0)
