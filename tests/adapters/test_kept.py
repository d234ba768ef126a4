"""``attached.kept``, ``show`` and ``cache``: what was kept and held, as the model itself ran it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from tests.adapters.conftest import padded, pixels, prompt, tiny_llava
from tests.adapters.decoders import tiny
from tests.adapters.vision_models import next_prompt, qwen_prompt, tiny_next, tiny_qwen

import headwise
from headwise.errors import DataError, ModelError
from headwise_lab.models import shipped
from headwise_lab.scenes import held_out

STREAMING = "streaming:sinks=2,window=6"


class Watch:
    """An observer: what each stage selected."""

    def __init__(self):
        self.seen = []

    @headwise.hookimpl
    def selected(self, selection):
        self.seen.append(selection)


@pytest.fixture(scope="module")
def llava():
    return tiny_llava()


@torch.no_grad()
def read(model, inputs, *texts, **settings):
    """The attachment after one forward, and what an observer saw of its last stage, by row."""
    watch = Watch()
    with headwise.attach(model, *texts, observers=[watch], **settings) as attached:
        model(**inputs)
    return attached, {row: kept for one in watch.seen for row, kept in zip(one.rows, one.kept.tolist(), strict=True)}


def test_every_row_of_a_padded_batch_says_what_it_kept_and_where_it_stands(llava):
    rows = [prompt(3, "image", 4), prompt(2, "image", 3, "image", 2, seed=1), prompt(5, seed=2)]
    inputs = {**padded(rows, "left"), "pixel_values": pixels(3)}
    attached, seen = read(llava, inputs, "fastv:layer=1", keep=5)
    image = llava.config.image_token_id
    for row, kept in enumerate(attached.kept):
        where = (inputs["input_ids"][row] == image).nonzero().flatten().numpy()
        assert kept.visual == len(where)
        assert kept.numbers.tolist() == seen.get(row, list(range(len(where))))
        assert list(kept.positions) == where[kept.numbers].tolist()
    assert [len(kept) for kept in attached.kept] == [5, 10, 0]
    side = llava.config.vision_config.image_size // llava.config.vision_config.patch_size
    for kept in attached.kept[:2]:
        for token, number in zip(kept.tokens, kept.numbers.tolist(), strict=True):
            image, place = divmod(number, side**2)
            assert (token.image, token.crop, token.row, token.column) == (image, 0, *divmod(place, side))
    assert repr(attached.kept[0]) == f"<5 of {side**2} visual tokens kept>"


def test_decoding_and_padding_on_the_right_do_not_move_what_was_kept(llava):
    (row,) = (prompt(3, "image", 4),)
    inputs = {**padded([row], "right"), "pixel_values": pixels(1)}
    once, _ = read(llava, inputs, "fastv:layer=1", keep=5)
    with headwise.attach(llava, "fastv:layer=1", keep=5) as attached:
        llava.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert attached.kept[0].positions == once.kept[0].positions
        llava.generate(**inputs, max_new_tokens=3, do_sample=False, use_cache=False)
    assert attached.kept[0].positions == once.kept[0].positions  # also after the block


def test_crops_and_newlines_of_llava_next_are_told_apart():
    model = tiny_next()
    given = next_prompt(model, 3, (20, 30), 4)
    attached, seen = read(model, given.inputs, "fastv:layer=1", keep=24)
    (kept,) = attached.kept
    assert kept.numbers.tolist() == seen[0]
    assert list(kept.positions) == [given.columns[number] for number in seen[0]]
    assert {token.image for token in kept.tokens} == {0}
    assert {token.crop for token in kept.tokens} > {0}
    whole = [token for token in kept.tokens if token.crop == 0]
    assert [(token.row, token.column) for token in whole] == [divmod(n, 4) for n in seen[0] if n < 16]
    assert all((token.row is None) == (token.crop is None) for token in kept.tokens)
    ((_, (seen,)),) = attached._trace._rows()
    (first, numbers), (second, others) = seen.grids
    assert (first, numbers) == ((4, 4), list(range(16)))
    assert second[0] * second[1] == len(others)
    newlines = set(range(kept.visual)) - set(numbers) - set(others)
    assert newlines == {16 + (line + 1) * (second[1] + 1) - 1 for line in range(second[0])}


def blocks(shape, seed):
    """A picture of one grey per token, and these greys, (rows, columns) between 0 and 1."""
    greys = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    picture = Image.fromarray(greys).convert("RGB").resize((8 * shape[1], 8 * shape[0]), Image.Resampling.NEAREST)
    return picture, torch.from_numpy(greys).float() / 255


def test_an_image_in_crops_is_shown_with_the_tokens_of_it_all_and_those_of_the_crops():
    model = tiny_next()
    given = next_prompt(model, 3, (32, 32), 4)
    picture, greys = blocks((4, 4), seed=1)
    inputs = given.inputs
    inputs["pixel_values"][0, 0] = torch.kron(greys, torch.ones(4, 4)) - 0.5
    attached, _ = read(model, inputs, "fastv:layer=1", keep=24)
    sheet = attached.show(picture)
    assert sheet.width == 3 * sheet.height + 16
    with pytest.raises(DataError, match="this picture is not the one that the model saw"):
        attached.show(blocks((4, 4), seed=2)[0])


def test_images_of_any_shape_are_shown_in_their_order():
    model = tiny_qwen()
    given = qwen_prompt(model, 3, (8, 4), 2, (4, 12), 3)
    (tall, one), (wide, two) = blocks((4, 2), seed=1), blocks((2, 6), seed=2)
    greys = torch.cat([one.flatten(), two.flatten()])
    inputs = {**given.inputs, "pixel_values": greys.repeat_interleave(4)[:, None].expand(-1, 24) - 0.5}
    attached, _ = read(model, inputs, "fastv:layer=1", keep=300)
    first, both = attached.show(tall, wide, row=0), attached.show(tall, wide)
    assert first.size == both.size
    with pytest.raises(DataError, match="this picture is not the one that the model saw"):
        attached.show(wide, tall)


def test_images_of_qwen_have_grids_of_their_own_shapes():
    model = tiny_qwen()
    given = qwen_prompt(model, 3, (8, 4), 2, (4, 12), 3)
    attached, seen = read(model, given.inputs, "fastv:layer=1", keep=300)
    (kept,) = attached.kept
    assert kept.numbers.tolist() == seen[0]
    shapes, starts = [(4, 2), (2, 6)], [0, 8]
    for token, number in zip(kept.tokens, seen[0], strict=True):
        image = int(number >= 8)
        assert (token.image, token.row, token.column) == (image, *divmod(number - starts[image], shapes[image][1]))
    assert [seen.grids[0][0] for seen in attached._trace._rows()[0][1]] == shapes


def test_merging_is_said(llava):
    inputs = {**padded([prompt(3, "image", 4)], "left"), "pixel_values": pixels(1)}
    attached, _ = read(llava, inputs, "tome", keep=5)
    assert attached.kept[0].merged
    assert repr(attached.kept[0]).endswith("visual tokens kept, some of them merged>")


def test_what_is_not_there_yet_is_one_sentence(llava):
    text = tiny("llama")
    with headwise.attach(llava, "fastv:layer=1", keep=5) as attached:
        with pytest.raises(ModelError, match="no prompt with a picture was read under this recipe yet"):
            attached.kept  # noqa: B018
        with pytest.raises(ModelError, match="evicts no KV entry, so the cache is generate's own"):
            attached.cache  # noqa: B018
    with headwise.attach(text, STREAMING) as attached:
        with pytest.raises(ModelError, match="prunes no visual token, so all of them are kept"):
            attached.kept  # noqa: B018
        with pytest.raises(ModelError, match="nothing was read under this recipe yet, so there is no cache"):
            attached.cache  # noqa: B018


def test_each_thread_reads_what_its_own_forward_kept(llava):
    inputs = [{**padded([prompt(3, "image", 4, seed=s)], "left"), "pixel_values": pixels(1, seed=s)} for s in (0, 1)]
    alone = [read(llava, one, "fastv:layer=1", keep=5)[0].kept[0].positions for one in inputs]
    assert alone[0] != alone[1]
    found, done = {}, threading.Barrier(2)

    def work(number):
        with torch.no_grad():
            llava(**inputs[number])
        done.wait()
        found[number] = attached.kept[0].positions

    with headwise.attach(llava, "fastv:layer=1", keep=5) as attached:
        one = threading.Thread(target=lambda: llava(**inputs[0]))
        one.start()
        one.join()
        assert attached.kept[0].positions == alone[0]  # as where a thread is started to generate
    with headwise.attach(llava, "fastv:layer=1", keep=5) as attached:
        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[0], found[1]] == alone
        with pytest.raises(ModelError, match="2 other threads ran the model, and this one did not"):
            attached.kept  # noqa: B018


def test_a_thread_that_has_ended_is_forgotten_when_the_next_one_comes():
    """As where a server starts a thread for each request: the last is read, and one cache is held, not all."""
    model, ids = tiny("llama"), torch.arange(5, 35)[None]
    lengths = iter((12, 20, 28))

    def work():
        with torch.no_grad():
            model(ids[:, : next(lengths)], use_cache=True)

    done = threading.Event()
    waiting = [threading.Thread(target=done.wait) for _ in range(3)]
    with headwise.attach(model, STREAMING) as attached:
        for wanted, other in zip((12, 20, 28), waiting, strict=True):
            request = threading.Thread(target=work)
            request.start()
            request.join()
            other.start()  # takes what the system called the first by, so that the next one is called otherwise
            assert attached.cache.get_seq_length() == wanted
        assert len(attached._trace._layers) == 1
    done.set()


def test_the_cache_of_the_last_forward_can_be_read():
    model, ids = tiny("llama"), torch.arange(5, 35)[None]
    with headwise.attach(model, STREAMING) as attached:
        out = model(ids, use_cache=True)
        assert attached.cache.kv_bytes() == sum(
            tensor.untyped_storage().nbytes() for layer in out.past_key_values.layers for tensor in layer.held()
        )
        assert (attached.cache.entries() == 8).all()
        model.generate(ids[:, :10], max_new_tokens=5, do_sample=False)
    assert attached.cache.get_seq_length() == 14
    assert repr(attached.cache) == (
        "<cache by streaming:sinks=2,window=6,positions=relative: 8 entries per KV head in 3 layers, 14 tokens read>"
    )
    held = headwise.cache(model, STREAMING)
    assert isinstance(held, headwise.EvictingCache)
    assert repr(held).endswith("0 entries per KV head in 3 layers, 0 tokens read>")


@pytest.fixture(scope="module")
def demo():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    name = shipped("demo-llava")
    return AutoModelForImageTextToText.from_pretrained(name), AutoProcessor.from_pretrained(name)


def looked(demo, image):
    """The attachment after demo-llava saw an image, of which fastv kept 16 of 144 tokens."""
    model, processor = demo
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
        add_generation_prompt=True,
    )
    with headwise.attach(model, "fastv:layer=2", keep=16) as attached, torch.no_grad():
        model(**processor(images=image, text=text, return_tensors="pt"))
    return attached


def drawn(image, attached, left=0):
    """Which of the 12 x 12 squares, from ``left`` pixels on, are in a shown picture as in the one beside it."""
    sheet = np.asarray(attached.show(image)).astype(int)
    wide, height = (sheet.shape[1] - 8) // 2, sheet.shape[0]
    cell, left = height // 12, round(left * height / image.height)
    whole, kept = (sheet[:, start + left : start + left + 12 * cell] for start in (0, wide + 8))
    inside = slice(cell // 3, -cell // 3)
    changed = np.abs(whole - kept).max(axis=2).reshape(12, cell, 12, cell)[:, inside, :, inside]
    return np.flatnonzero(changed.max(axis=(1, 3)) == 0).tolist()


def test_the_picture_shows_the_squares_that_were_kept(demo):
    (example,) = held_out(seed=0, per_kind=1, kinds=["text"])
    square = Image.fromarray(example.pixels)
    attached = looked(demo, square)
    assert drawn(square, attached) == attached.kept[0].numbers.tolist()
    wide = Image.new("RGB", (204, 144), (200, 120, 40))
    wide.paste(square, (30, 0))  # borders that the processor cuts off
    assert drawn(wide, looked(demo, wide), left=30) == attached.kept[0].numbers.tolist()
    turned = square.rotate(90)
    with pytest.raises(DataError, match="this picture is not the one that the model saw"):
        attached.show(turned)
    with pytest.raises(DataError, match="the model saw 1 image, and 2 were given; give all of them, in order"):
        attached.show(square, square)
    with pytest.raises(DataError, match="there is no row 1; the last forward had 1"):
        attached.show(square, row=1)
    with pytest.raises(DataError, match=r"none\.png is no picture that can be read"):
        attached.show("none.png")
