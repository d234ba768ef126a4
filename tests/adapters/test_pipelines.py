"""``transformers.pipeline`` under a recipe: batches, generate's own arguments, caches, and pictures."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import DynamicCache, pipeline

import headwise
from headwise.errors import ModelError
from headwise_lab.models import shipped
from headwise_lab.scenes import held_out

STREAMING = "streaming:sinks=4,window=12"
PROMPTS = [
    "In the beginning God created the heaven and the earth. And the earth was",
    "And he said unto them, Go ye into all the world, and preach the gospel",
    "Thou art",
]


@pytest.fixture(scope="module")
def reads():
    return pipeline("text-generation", model=shipped("demo-pythia"), device="cpu")


@pytest.fixture(scope="module")
def sees():
    return pipeline("image-text-to-text", model=shipped("demo-llava"), device="cpu")


def said(found):
    """The texts of a pipeline's answer, which may be lists in a list."""
    return [one[0]["generated_text"] if isinstance(one, list) else one["generated_text"] for one in found]


def continued(pipe, prompts, **more):
    return said(pipe(prompts, max_new_tokens=6, do_sample=False, return_full_text=False, **more))


def by_hand(pipe, text, **more):
    """What generate says without a pipeline."""
    inputs = pipe.tokenizer(text, return_tensors="pt")
    out = pipe.model.generate(**inputs, max_new_tokens=6, do_sample=False, **more)
    return pipe.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_pipeline_says_what_generate_says_one_by_one_and_in_batches(reads):
    stock = continued(reads, PROMPTS)
    with headwise.attach(reads.model, STREAMING) as attached:
        wanted = [by_hand(reads, text) for text in PROMPTS]
        assert wanted != stock  # the recipe changes an answer
        assert continued(reads, PROMPTS) == wanted
        assert continued(reads, PROMPTS, batch_size=3) == wanted
        assert (attached.cache.entries() == 16).all()
        beams = continued(reads, PROMPTS[:1], num_beams=2)
        assert beams == [by_hand(reads, PROMPTS[0], num_beams=2)]
        made_inside = pipeline("text-generation", model=reads.model, tokenizer=reads.tokenizer)
        assert continued(made_inside, PROMPTS) == wanted
        with pytest.raises(ModelError, match="a StaticCache cannot evict"):
            continued(reads, PROMPTS[:1], cache_implementation="static")
    assert continued(reads, PROMPTS) == stock


def test_one_cache_for_several_prompts_is_refused_and_one_text_goes_on(reads):
    """transformers skips as many tokens of a prompt as the cache has read, whatever they were."""
    cache = headwise.cache(reads.model, STREAMING)
    (first,) = continued(reads, PROMPTS[:1], past_key_values=cache)
    for other in (PROMPTS[1], " ".join(PROMPTS) * 2, PROMPTS[0]):
        with pytest.raises(ModelError, match="this cache has read another text than the prompt begins with"):
            continued(reads, [other], past_key_values=cache)
    longer = PROMPTS[0] + first + ", and the light"
    again = continued(reads, [longer], past_key_values=cache)
    assert again == continued(reads, [longer], past_key_values=headwise.cache(reads.model, STREAMING))
    with headwise.attach(reads.model, STREAMING):
        held = DynamicCache()
        continued(reads, PROMPTS[:1], past_key_values=held)
        with pytest.raises(ModelError, match="another text than the prompt begins with"):
            continued(reads, [PROMPTS[1] + PROMPTS[0]], past_key_values=held)
    cache.reset()
    assert continued(reads, [PROMPTS[1]], past_key_values=cache)


def test_what_a_cache_has_read_follows_its_rows_and_the_way_it_came_in(reads):
    model, ids = reads.model, torch.randint(5, 200, (2, 30), generator=torch.Generator().manual_seed(0))
    whole, parts = headwise.cache(model, STREAMING), headwise.cache(model, STREAMING)
    with torch.no_grad():
        model(ids, past_key_values=whole)
        for start in range(0, 30, 7):
            model(ids[:, start : start + 7], past_key_values=parts)
    assert torch.equal(whole.layers[0].digest, parts.layers[0].digest)
    more = torch.cat([ids, ids[:, :1]], dim=1)
    assert whole.layers[0].begins(more)
    assert not whole.layers[0].begins(more.flip(0))
    assert not whole.layers[0].begins(ids)  # nothing would be new
    whole.reorder_cache(torch.tensor([1, 0]))
    assert whole.layers[0].begins(more.flip(0))
    embedded = headwise.cache(model, STREAMING)
    with torch.no_grad():
        model(inputs_embeds=model.get_input_embeddings()(ids), past_key_values=embedded)
    assert embedded.layers[0].begins(more.flip(0))  # nobody knows


def test_pictures_in_a_pipeline_are_pruned_alike_alone_and_in_a_batch(sees):
    examples = [*held_out(seed=0, per_kind=1, kinds=["text"]), *held_out(seed=1, per_kind=1, kinds=["text"])]
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": Image.fromarray(one.pixels)},
                    {"type": "text", "text": one.question.text + number * " Please."},
                ],
            }
        ]
        for number, one in enumerate(examples)
    ]

    def answered(given, **more):
        found = sees(text=given, return_full_text=False, max_new_tokens=6, **more)
        return said(found), [row.positions for row in attached.kept], [row.numbers.tolist() for row in attached.kept]

    with headwise.attach(sees.model, "fastv:layer=2", keep=16) as attached:
        alone = [answered([chat]) for chat in chats]
        texts, positions, numbers = answered(chats, batch_size=2)
    assert texts == [text for (text,), _, _ in alone]
    assert numbers == [kept for _, _, (kept,) in alone]
    assert [len(row) for row in positions] == [16, 16]
    assert positions[1] == alone[1][1][0]  # the longer prompt has no padding in front of it
    assert positions[0] != alone[0][1][0]
