"""A whole situation, drawn: who reads what, under which recipe, in which way."""

from __future__ import annotations

import attrs
import torch
from hypothesis import strategies as st
from tests.situations.families import FAMILIES, Family, Parts

PRUNING = (
    "", "fastv:layer=1", "fastv:layer=2", "fastv:layer=3", "pdrop:layers=1/2/3", "token_pruning=uniform:layer=0",
    "token_pruning=random:layer=2", "divprune", "vispruner", "dart:layer=2", "feather:layer=1,second_layer=3",
    "visionzip", "tome",
)  # fmt: skip
EVICTION = (
    "", "window:window=7", "window:window=1", "window:window=400",
    "streaming:sinks=2,window=9,positions=original", "streaming:sinks=3,window=6,positions=relative",
    "knorm:budget=6,every=1", "knorm:budget=12,every=3", "knorm:budget=9,every=0", "knorm:budget=300",
    "snapkv:budget=9,queries=4,every=2", "h2o:budget=8,every=1", "tova:budget=8,every=1",
    "adakv:of=[knorm:budget=8,every=2]",
)  # fmt: skip
MERGING = ("tome", "visionzip")  # what they make of tokens is not what the stock model makes of them
MODES = ("forward", "greedy", "sample", "beams", "returns", "streamer", "lookup")
CACHES = ("default", "default", "own", "headwise", "headwise", "none", "copied", "copied", "static")
TOUCHES = ("", "", "", "", "hidden", "attentions", "switch", "embeds", "mask4", "packed", "crop", "deepcopy")
"""What else somebody does: asks for hidden states or attention maps, changes the attention implementation, hands over
embeddings, a mask with four axes or several texts in a row, rolls the cache back, or goes on with a copied model."""

DOCUMENT = 5
"""Words of each of the texts that are packed into a row."""

WORDS = st.integers(1, 9)


@attrs.frozen(kw_only=True)
class Situation:
    """``rows``: a prompt each; ``chunks``: shares of the width at which a prefill is cut; ``second``: a later turn."""

    family: str
    attention: str
    dtype: torch.dtype
    pruning: str = ""
    keep: int = 6
    eviction: str = ""
    positions: str = "keep"
    rows: tuple[Parts, ...]
    side: str = "left"
    chunks: tuple[float, ...] = ()
    second: Parts = ()
    cache: str = "default"
    mode: str = "forward"
    steps: int = 4
    training: bool = False
    checkpointing: bool = False
    threads: bool = False
    nested: bool = False
    touch: str = ""
    seed: int = 0

    @property
    def reads(self) -> Family:
        """The family."""
        return FAMILIES[self.family]

    @property
    def attends_exactly(self) -> bool:
        """Whether computed in float32."""
        return self.dtype == torch.float32


def prompts(sees: bool) -> st.SearchStrategy[Parts]:
    """Images at the beginning, in the middle, next to each other and at the very end; and none at all."""
    image = st.sampled_from(("a", "b"))
    words = st.tuples(WORDS)
    if not sees:
        return st.tuples(st.integers(1, 40))
    usual = st.tuples(WORDS, image, WORDS)
    shapes = [
        usual, usual, st.tuples(image, WORDS), st.tuples(WORDS, image), st.tuples(WORDS, image, WORDS, image, WORDS),
        st.tuples(WORDS, image, image), words,
    ]  # fmt: skip
    return st.one_of(*shapes)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Any situation that the stock model could be in, and some it could not."""
    family = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    pruning = draw(st.sampled_from(PRUNING)) if family.sees else ""
    eviction = draw(st.sampled_from(EVICTION)) if not pruning or draw(st.booleans()) else ""
    mode = draw(st.sampled_from(MODES))
    walks = mode == "forward"  # forwards of our own; everything else is `generate`
    training = walks and draw(st.integers(0, 3)) == 0
    one_piece = training
    # With a grid, `generate` takes the images of a later turn for words, attached or not.
    later = ((), (), (4,), (1,)) if family.name == "qwen2_5_vl" and not walks else ((), (), (4,), (2, "a", 3), (1,))
    most = 1 if mode == "lookup" else 3  # an assistant serves one row
    touch = draw(st.sampled_from(TOUCHES)) if walks and not training else ""
    if touch == "packed" and family.name == "qwen2_5_vl":
        touch = ""
    one_piece, most = one_piece or touch == "packed", 1 if touch == "packed" else most
    rows = draw(st.lists(prompts(family.sees), min_size=1, max_size=most).map(tuple))
    caches = [
        cache
        for cache in (CACHES if mode != "lookup" else ("default", "own", "headwise"))
        if cache != "headwise" or not pruning or draw(st.integers(0, 3)) == 0
    ]
    return Situation(
        family=family.name,
        attention=draw(st.sampled_from(("eager", "sdpa"))),
        dtype=draw(st.sampled_from((torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16))),
        pruning=pruning,
        keep=draw(st.sampled_from((1, 3, 6, 11))),
        eviction=eviction,
        positions=draw(st.sampled_from(("keep", "keep", "compact"))) if pruning else "keep",
        rows=rows,
        side=draw(st.sampled_from(("left", "right"))) if walks else "left",
        chunks=() if one_piece or not walks else draw(st.lists(st.floats(0.05, 0.95), max_size=2).map(tuple)),
        second=() if one_piece or mode in ("beams", "returns") else draw(st.sampled_from(later)),
        cache="none" if touch == "packed" else draw(st.sampled_from(caches)) if not training else "default",
        mode=mode,
        steps=draw(st.integers(1, 6)),
        training=training,
        checkpointing=training and draw(st.booleans()),
        threads=not training and draw(st.integers(0, 4)) == 0,
        nested=draw(st.integers(0, 4)) == 0,
        touch=touch,
        seed=draw(st.integers(0, 10**6)),
    )
