"""One situation, run on an attached model: what came out of it, row by row, and what was dropped on the way."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import attrs
import torch
from tests.adapters.vision_models import IMAGE, PAD, Prompt, batch
from tests.situations.families import model_of
from tests.situations.oracle import positions_of
from tests.situations.situation import DOCUMENT, Situation
from torch import Tensor
from transformers import TextStreamer
from transformers.cache_utils import DynamicCache, StaticCache

import headwise
from headwise.recipe import Recipe


def switch(model, how: str):
    """Gradient checkpointing's switch, by the name that this transformers has for it."""
    return getattr(model, f"activation_checkpointing_{how}", None) or getattr(model, f"gradient_checkpointing_{how}")


@attrs.define(eq=False)
class Row:
    """What one row read and said: ``ids`` (n,) without padding, ``logits`` by position, and its forwards.

    ``forwards``: (tokens read after it, columns it took with padding). ``columns``: where its tokens stand, if padding
    may be between them. ``spans``: (first token, last token + 1) of forwards that could prune. ``kept``: number of such
    a forward -> layer -> the visual tokens left of it, each time somebody was told.
    """

    prompts: list[Prompt]
    ids: Tensor
    logits: dict[int, Tensor] = attrs.field(factory=dict)
    forwards: list[tuple[int, int]] = attrs.field(factory=list)
    columns: list[int] = attrs.field(factory=list)
    spans: list[tuple[int, int]] = attrs.field(factory=list)
    kept: dict[int, dict[int, list[list[int]]]] = attrs.field(factory=dict)
    loss: Tensor | None = None
    gradient: Tensor | None = None
    sum_of_logits: float | None = None

    @property
    def gone(self) -> dict[int, list[int]]:
        """Layer -> tokens gone from it on."""
        found: dict[int, list[int]] = defaultdict(list)
        for number, layers in self.kept.items():
            first, last = self.spans[number]
            visual = [p for p in range(first, last) if self.ids[p] == IMAGE]
            left = list(range(len(visual)))
            for layer, told in sorted(layers.items()):
                found[layer] += [visual[n] for n in left if n not in told[0]]
                left = [n for n in left if n in told[0]]
        return found


class Recorder:
    """An observer: what every stage left, by thread and by forward."""

    def __init__(self) -> None:
        self.here = threading.local()

    def begin(self) -> None:
        self.here.number, self.here.found = -1, defaultdict(lambda: defaultdict(lambda: defaultdict(list)))

    def next(self) -> None:
        self.here.number += 1

    @headwise.hookimpl
    def selected(self, selection) -> None:
        for row, kept in zip(selection.rows, selection.kept.tolist(), strict=True):
            self.here.found[row][self.here.number][selection.layer].append(kept)

    def of(self, row: int) -> dict[int, dict[int, list[list[int]]]]:
        return {number: dict(layers) for number, layers in self.here.found[row].items()}


def recipe_of(situation: Situation) -> Recipe:
    """The recipe of a situation."""
    texts = [text for text in (situation.pruning, situation.eviction) if text]
    return Recipe.of(*texts, keep=situation.keep if situation.pruning else None, positions=situation.positions)


def played(situation: Situation) -> list[list[Row]]:
    """The rows of a situation, once for each thread that played it."""
    model = model_of(situation.family, situation.attention, situation.dtype)
    with _mode(model, situation), ExitStack() as stack:
        recorder = Recorder()
        if situation.nested:
            stack.enter_context(headwise.attach(model, Recipe.of("window:window=3")))
        if situation.cache != "headwise":
            stack.enter_context(headwise.attach(model, recipe_of(situation), observers=[recorder]))
        model = stack.enter_context(_touched(model, situation))
        if not situation.threads:
            return [_play(model, situation, recorder)]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda _: _play(model, situation, recorder), range(2)))


@contextmanager
def _touched(model, situation: Situation) -> Iterator[torch.nn.Module]:
    """The model as somebody leaves it inside the block, or a copy of it."""
    if situation.touch == "deepcopy":
        yield copy.deepcopy(model)
        return
    if situation.touch == "switch":
        model.set_attn_implementation("sdpa" if situation.attention == "eager" else "eager")
    try:
        yield model
    finally:
        model.set_attn_implementation(situation.attention)


@contextmanager
def _mode(model, situation: Situation) -> Iterator[None]:
    model.train(situation.training)
    if situation.checkpointing:
        switch(model, "enable")({"use_reentrant": False})
    try:
        yield
    finally:
        model.eval()
        model.zero_grad()
        if situation.checkpointing:
            switch(model, "disable")()


def _play(model, situation: Situation, recorder: Recorder) -> list[Row]:
    recorder.begin()
    prompts = [situation.reads.of(parts, situation.seed + number) for number, parts in enumerate(situation.rows)]
    with torch.set_grad_enabled(situation.training):
        if situation.mode == "forward":
            return _walk(model, situation, recorder, prompts)
        return _generate(model, situation, recorder, prompts)


def _cache_of(model, situation: Situation):
    text = model.config.get_text_config()
    return {
        "default": lambda: None,
        "none": lambda: None,
        "own": lambda: DynamicCache(config=text),
        "copied": lambda: DynamicCache(config=text),
        "headwise": lambda: headwise.cache(model, recipe_of(situation)),
        "static": lambda: StaticCache(config=text, max_cache_len=600),
    }[situation.cache]()


def _cast(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: states.to(dtype) if states.is_floating_point() else states for name, states in inputs.items()}


@attrs.define(eq=False)
class _Reading:
    """A batch that is being read: masks, positions and the cache so far."""

    mask: Tensor
    cache: object


def _walk(model, situation: Situation, recorder: Recorder, prompts: list[Prompt]) -> list[Row]:
    """Forward after forward: chunks of the prompt, single tokens, and another turn."""
    inputs = batch(prompts, situation.side)
    rows = [Row([prompt], prompt.ids[0]) for prompt in prompts]
    reading = _Reading(inputs["attention_mask"][:, :0], _cache_of(model, situation))
    keeps = situation.cache != "none"
    cuts = _cuts(situation, inputs["input_ids"]) if keeps else []
    if situation.training:
        _learn(model, situation, recorder, rows, inputs)
        return rows
    for start, end in zip([0, *cuts], [*cuts, inputs["input_ids"].shape[1]], strict=True):
        _read(model, situation, recorder, rows, reading, _piece(prompts, inputs, start, end))
    if not keeps:
        return _told(rows, recorder)
    generator = torch.Generator().manual_seed(situation.seed)
    for _ in range(situation.steps):
        _say(model, situation, recorder, rows, reading, torch.randint(5, 58, (len(rows), 1), generator=generator))
    if situation.touch == "crop":
        _roll_back(model, situation, recorder, rows, reading)
    if situation.second:
        if situation.cache == "copied":
            reading.cache = copy.deepcopy(reading.cache)
        more = [situation.reads.of(situation.second, situation.seed + 50 + number) for number in range(len(rows))]
        for row, prompt in zip(rows, more, strict=True):
            row.prompts.append(prompt)
            row.ids = torch.cat([row.ids, prompt.ids[0]])
        _read(model, situation, recorder, rows, reading, batch(more, "left"))
        _say(model, situation, recorder, rows, reading, torch.randint(5, 58, (len(rows), 1), generator=generator))
    return _told(rows, recorder)


def _roll_back(model, situation, recorder, rows: list[Row], reading: _Reading) -> None:
    """Takes the last word back and says it again."""
    reading.cache.crop(-1)
    reading.mask = reading.mask[:, :-1]
    words = torch.stack([row.ids[-1:] for row in rows])
    for row in rows:
        row.ids = row.ids[:-1]
        row.forwards.pop()
        row.columns.pop()
    _say(model, situation, recorder, rows, reading, words)


def _told(rows: list[Row], recorder: Recorder) -> list[Row]:
    for number, row in enumerate(rows):
        row.kept = recorder.of(number)
    return rows


def _cuts(situation: Situation, ids: Tensor) -> list[int]:
    """Columns at which the prefill is cut: not within an image of any row."""
    width = ids.shape[1]
    image = (ids == IMAGE).any(dim=0).tolist()
    free = [c for c in range(1, width) if not (image[c - 1] and image[c])]
    wanted = {min(free, key=lambda c: abs(c - share * width)) for share in situation.chunks} if free else set()
    return sorted(wanted)


def _piece(prompts: list[Prompt], inputs: dict[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    """The inputs of some columns, with the images that stand in them."""
    whole = start == 0 and end == inputs["input_ids"].shape[1]
    if whole:
        return inputs
    piece = {name: inputs[name][:, start:end] for name in ("input_ids", "attention_mask")}
    used, number = [], 0
    for row, prompt in enumerate(prompts):
        place = 0
        columns = (inputs["input_ids"][row] == IMAGE).nonzero().flatten().tolist()
        for visual in prompt.visual:
            if start <= columns[place] < end:
                used.append(number)
            place, number = place + visual, number + 1
    if used and "image_grid_thw" in inputs:  # the patches of all images stand in one row
        patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(dim=1).tolist())
        piece["pixel_values"] = torch.cat([patches[number] for number in used])
        piece["image_grid_thw"] = inputs["image_grid_thw"][used]
        piece["mm_token_type_ids"] = (piece["input_ids"] == IMAGE).int()
        return piece
    for name in ("pixel_values", "image_sizes") if used else ():
        if name in inputs:
            piece[name] = inputs[name][used]
    return piece


def _read(model, situation, recorder, rows: list[Row], reading: _Reading, piece: dict[str, Tensor]) -> None:
    """One forward, and where its logits belong."""
    recorder.next()
    before = reading.mask.sum(dim=1)
    reading.mask = torch.cat([reading.mask, piece["attention_mask"]], dim=1)
    arguments = {**_cast(piece, situation.dtype), "attention_mask": reading.mask}
    arguments["position_ids"] = _places(model, situation, rows, reading.mask, piece["input_ids"].shape[1])
    if situation.touch == "packed":  # no mask: the position ids alone say where a text begins
        del arguments["attention_mask"]
        arguments["position_ids"] %= DOCUMENT
    if reading.cache is not None:
        arguments["past_key_values"] = reading.cache
    if situation.touch in ("hidden", "attentions"):
        arguments["output_hidden_states" if situation.touch == "hidden" else "output_attentions"] = True
    if situation.touch == "embeds":
        arguments = _merged(model, arguments)
    if situation.touch == "mask4":
        arguments["attention_mask"] = _four_axes(reading.mask, piece["input_ids"].shape[1], situation.dtype)
    output = model(**arguments, use_cache=situation.cache != "none")
    _check_extras(output, piece["input_ids"], situation, model.config.get_text_config())
    reading.cache = output.past_key_values
    for number, row in enumerate(rows):
        real = piece["attention_mask"][number].bool()
        first, count = int(before[number]), int(real.sum())
        row.spans.append((first, first + count))
        row.forwards.append((first + count, piece["input_ids"].shape[1]))
        row.columns += (reading.mask.shape[1] - len(real) + real.nonzero().flatten()).tolist()
        for place, scores in enumerate(output.logits[number][real]):
            row.logits[first + place] = scores.float()


def _places(model, situation: Situation, rows: list[Row], mask: Tensor, new: int) -> Tensor:
    """Position ids of the last ``new`` columns, as `generate` would give them: (b, new), or (3, b, new)."""
    if situation.family != "qwen2_5_vl":
        return (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -new:]
    found = torch.ones(3, *mask.shape, dtype=torch.long)
    for number, row in enumerate(rows):
        read = int(mask[number].sum())
        axes = positions_of(model, row.prompts, row.ids[None]).reshape(-1, len(row.ids))
        found[:, number, mask[number].bool()] = axes[:, :read]
    return found[..., -new:]


def _merged(model, arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    """Embeddings with the images' features in them, as somebody would make them who has them already."""
    ids = arguments.pop("input_ids")
    states = model.get_input_embeddings()(ids)
    images = {
        name: arguments.pop(name) for name in ("pixel_values", "image_sizes", "image_grid_thw") if name in arguments
    }
    arguments.pop("mm_token_type_ids", None)
    if images:
        features = torch.cat(list(model.get_image_features(**images, return_dict=True).pooler_output))
        states = states.masked_scatter((ids == IMAGE).unsqueeze(-1), features.to(states.dtype))
    return {**arguments, "inputs_embeds": states}


def _four_axes(mask: Tensor, new: int, dtype: torch.dtype) -> Tensor:
    """The causal mask (b, 1, new, total) of rows with padding, to be added."""
    total = mask.shape[1]
    number = torch.arange(total)
    seen = (number[None, :] <= number[total - new :, None])[None] & (mask[:, None, :] == 1)
    seen = seen | (number[None, :] == number[total - new :, None])[None]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _check_extras(output, ids: Tensor, situation: Situation, config) -> None:
    """Hidden states and attention maps are those of all tokens of all layers."""
    layers, length = config.num_hidden_layers, ids.shape[1]
    if situation.touch == "hidden":
        assert len(output.hidden_states) == layers + 1, "hidden states of some layers are missing"
        assert {states.shape[1] for states in output.hidden_states} == {length}, "hidden states have several lengths"
    if situation.touch == "attentions" and situation.attention == "eager":
        assert len(output.attentions) == layers, "attention maps of some layers are missing"
        assert {maps.shape[2] for maps in output.attentions} == {length}, "attention maps have several lengths"


def _say(model, situation, recorder, rows: list[Row], reading: _Reading, words: Tensor) -> None:
    for row, word in zip(rows, words, strict=True):
        row.ids = torch.cat([row.ids, word])
    _read(model, situation, recorder, rows, reading, {"input_ids": words, "attention_mask": torch.ones_like(words)})


def _learn(model, situation, recorder, rows: list[Row], inputs: dict[str, Tensor]) -> None:
    """A training step: the loss over every word, and the gradient it sends to the embeddings."""
    recorder.next()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels = labels.masked_fill(inputs["input_ids"] == IMAGE, -100)
    labels[inputs["attention_mask"].cumsum(dim=1) == 1] = -100  # else padding on the left would have to predict it
    places = {}
    if situation.family != "qwen2_5_vl":
        places = {"position_ids": (inputs["attention_mask"].cumsum(dim=1) - 1).clamp_min(0)}
    output = model(**_cast(inputs, situation.dtype), **places, labels=labels, use_cache=False)
    output.loss.backward()
    for number, row in enumerate(rows):
        row.kept = recorder.of(number)
        row.spans.append((0, len(row.ids)))
        row.forwards.append((len(row.ids), inputs["input_ids"].shape[1]))
    rows[0].loss = output.loss.detach().float()
    rows[0].gradient = model.get_input_embeddings().weight.grad.float().clone()


OPTIONS = {
    "greedy": {"do_sample": False},
    "sample": {"do_sample": True, "temperature": 1.5},
    "beams": {"do_sample": False, "num_beams": 3, "length_penalty": 0.0, "early_stopping": True},
    "returns": {"do_sample": True, "num_return_sequences": 2},
    "streamer": {"do_sample": False},
    "lookup": {"do_sample": False, "prompt_lookup_num_tokens": 3},
}


class _Silent(TextStreamer):
    """Takes tokens and says nothing."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        pass


def _generate(model, situation: Situation, recorder: Recorder, prompts: list[Prompt]) -> list[Row]:
    """One turn of `generate`, and a second one on the same cache."""
    inputs = batch(prompts, "left")
    times = {"beams": 1, "returns": 2}.get(situation.mode, 1)
    rows = [Row([prompt], prompt.ids[0]) for prompt in prompts for _ in range(times)]
    cache = _cache_of(model, situation)
    torch.manual_seed(situation.seed)
    cache = _turn(model, situation, recorder, rows, inputs, cache)
    if situation.second and cache is not None and situation.mode != "lookup":
        if situation.cache == "copied":
            cache = copy.deepcopy(cache)
        _second_turn(model, situation, recorder, rows, cache)
    width = {"beams": 3, "returns": 2}.get(situation.mode, 1)
    for number, row in enumerate(rows):
        row.kept = recorder.of(number * width // times)
        for twin in range(width):
            assert recorder.of(number // times * width + twin) == row.kept, "copies of a row were pruned differently"
    return rows


def _turn(model, situation, recorder, rows: list[Row], inputs: dict[str, Tensor], cache):
    recorder.next()
    options = dict(OPTIONS[situation.mode], max_new_tokens=situation.steps, eos_token_id=None, pad_token_id=PAD)
    if cache is not None:
        options["past_key_values"] = cache
    if situation.mode == "streamer" and len(rows) == 1:
        options["streamer"] = _Silent()
    if situation.cache == "none":
        options["use_cache"] = False
    told = model.generate(
        **_cast(inputs, situation.dtype),
        **options,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
    )
    width = inputs["input_ids"].shape[1]
    for number, (row, said) in enumerate(zip(rows, told.sequences[:, width:], strict=True)):
        start = len(row.ids)
        read = row.forwards[-1][0] if row.forwards else 0
        row.spans.append((read, start))
        row.forwards.append((start, start - read if row.forwards else width))
        row.forwards += [(start + step + 1, 1) for step in range(len(said) - 1)]
        row.ids = torch.cat([row.ids, said])
        if situation.mode == "beams":
            row.sum_of_logits = float(told.sequences_scores[number])
        elif situation.mode != "lookup":
            for step, scores in enumerate(told.logits):
                row.logits[start - 1 + step] = scores[number].float()
        if "streamer" in options:
            assert options["streamer"].tokens[-len(said) :] == said.tolist(), "the streamer was told something else"
    return told.past_key_values


def _second_turn(model, situation, recorder, rows: list[Row], cache) -> None:
    """The whole conversation and another question, on the cache of the first turn."""
    more = [situation.reads.of(situation.second, situation.seed + 50 + number) for number in range(len(rows))]
    together = [Prompt(torch.cat([row.ids, new.ids[0]])[None], (), {}) for row, new in zip(rows, more, strict=True)]
    inputs = batch(together, "left")
    inputs.update({name: states for name, states in batch(more, "left").items() if name not in inputs})
    for row, new in zip(rows, more, strict=True):
        row.prompts.append(new)
        row.ids = torch.cat([row.ids, new.ids[0]])
    _turn(model, situation, recorder, rows, inputs, cache)
