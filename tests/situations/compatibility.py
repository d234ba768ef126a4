"""What works, what is refused, and with which sentence: family by feature, for pruning and for eviction.

``python -m tests.situations.compatibility`` runs every cell and writes docs/compatibility.md; the test beside this file
runs them again and compares.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch
from hypothesis.errors import UnsatisfiedAssumption
from tests.situations.families import FAMILIES
from tests.situations.situation import Situation
from tests.situations.verdict import refusal_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
YES, NEVER = "yes", "—"
HALVES = {"Visual pruning": "fastv:layer=2", "KV eviction by position": "window:window=7",
          "KV eviction by score": "knorm:budget=12,every=3", "Both": "fastv:layer=2 window:window=7"}  # fmt: skip

PREFACE = (
    "# What works, and what is refused",
    "",
    "Written by `python -m tests.situations.compatibility`, which runs every cell on a tiny random model of the family"
    " and compares what comes out with the stock model whose keys are masked; a test runs them again. *yes*: the same."
    " A number: refused before anything is computed, with the sentence of that number below. —: the stock model cannot"
    " do it either, or the question does not arise.",
    "",
)
SEES = ((3, "a", 5),)
READS = ((21,),)
FEATURES: dict[str, dict[str, object]] = {
    "prefill and decoding, eager": {"attention": "eager"},
    "prefill and decoding, sdpa": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "left padding": {"rows": (*SEES, (2, "b", 9)), "reads": (*READS, (40,)), "side": "left"},
    "right padding": {"rows": (*SEES, (2, "b", 9)), "reads": (*READS, (40,)), "side": "right"},
    "several images in a prompt": {"rows": ((3, "a", 2, "b", 5),), "reads": None},
    "images beside prompts without any": {"rows": (*SEES, (7,)), "reads": None},
    "an image at the very end": {"rows": ((4, "a"),), "reads": None},
    "a prompt of one token": {"rows": ((1,),), "reads": ((1,),)},
    "prefill in chunks": {"chunks": (0.1, 0.8)},
    "a second turn": {"second": (4,), "cache": "own"},
    "a second turn with another image": {"second": (2, "a", 3), "cache": "own", "reads": None},
    "a second turn of `generate`": {"second": (4,), "cache": "own", "mode": "greedy"},
    "`headwise.cache` instead of a block": {"cache": "headwise"},
    "a copied cache": {"cache": "copied", "second": (4,)},
    "a cache rolled back (`crop`)": {"touch": "crop"},
    "a static cache": {"cache": "static"},
    "one forward without a cache": {"cache": "none"},
    "`generate`: greedy": {"mode": "greedy"},
    "`generate`: without a cache": {"mode": "greedy", "cache": "none"},
    "`generate`: sampling": {"mode": "sample"},
    "`generate`: beams": {"mode": "beams"},
    "`generate`: several return sequences": {"mode": "returns"},
    "`generate`: a streamer": {"mode": "streamer"},
    "`generate`: prompt lookup": {"mode": "lookup", "steps": 6},
    "training with labels": {"training": True},
    "training with gradient checkpointing": {"training": True, "checkpointing": True},
    "two threads at once": {"threads": True, "mode": "greedy"},
    "a block within a block": {"nested": True},
    "`positions=compact`": {"positions": "compact", "only": "fastv"},
    "`output_hidden_states`": {"touch": "hidden"},
    "`output_attentions`, eager": {"touch": "attentions", "attention": "eager"},
    "`inputs_embeds` with images merged": {"touch": "embeds"},
    "a mask with four axes": {"touch": "mask4"},
    "several texts packed into a row": {"touch": "packed", "cache": "none"},
    "`set_attn_implementation` inside the block": {"touch": "switch"},
    "the same, from eager to sdpa": {"touch": "switch", "attention": "eager"},
    "`deepcopy` of the model inside the block": {"touch": "deepcopy"},
}


def situation_of(family: str, half: str, feature: str) -> Situation | None:
    """The situation of one cell; None where the feature has no meaning for it."""
    changes, texts, sees = dict(FEATURES[feature]), HALVES[half].split(), FAMILIES[family].sees
    rows, read = changes.pop("rows", SEES), changes.pop("reads", READS)
    if changes.get("touch") == "packed" and family == "qwen2_5_vl":
        return None  # its positions do not tell where a text begins
    pruning = next((text for text in texts if text.startswith("fastv")), "")
    eviction = next((text for text in texts if not text.startswith("fastv")), "")
    if (pruning and not sees) or (not sees and read is None) or changes.pop("only", "") not in HALVES[half]:
        return None
    usual = {"attention": "sdpa", "dtype": torch.float32, "steps": 4, "seed": 7}
    found = {**usual, "pruning": pruning, "eviction": eviction, "rows": rows if sees else read, **changes}
    return Situation(family=family, **found)


def cell(family: str, half: str, feature: str) -> str:
    """``YES``, ``NEVER`` where the stock model cannot do it either, or the sentence of the refusal."""
    situation = situation_of(family, half, feature)
    if situation is None:
        return NEVER
    try:
        return refusal_of(situation) or YES
    except UnsatisfiedAssumption:
        return NEVER


def document(cells: dict[tuple[str, str, str], str]) -> str:
    """The page, from the cells (family, half, feature)."""
    sentences = list(dict.fromkeys(told for told in cells.values() if told not in (YES, NEVER)))
    lines = [*PREFACE]
    for half, text in HALVES.items():
        families = [name for name in FAMILIES if FAMILIES[name].sees or "fastv" not in text]
        lines += [
            f"## {half}",
            "",
            f"`{text}`",
            "",
            "| | " + " | ".join(families) + " |",
            "|---" * (len(families) + 1) + "|",
        ]
        for feature in FEATURES:
            told = [cells[family, half, feature] for family in families]
            if set(told) == {NEVER}:
                continue
            shown = [one if one in (YES, NEVER) else str(sentences.index(one) + 1) for one in told]
            lines.append(f"| {feature} | " + " | ".join(shown) + " |")
        lines.append("")
    lines += ["## Refusals", "", *(f"{number}. {told}" for number, told in enumerate(sentences, 1)), ""]
    return "\n".join(lines)


def read(text: str) -> dict[tuple[str, str, str], str]:
    """The cells of a page."""
    sentences = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    cells, half, families = {}, "", []
    for line in text.splitlines():
        if line.startswith("## "):
            half = line[3:]
        elif line.startswith("| | "):
            families = [part.strip() for part in line.strip("|").split("|")[1:]]
        elif line.startswith("| "):
            feature, *told = (part.strip() for part in line.strip("|").split("|"))
            for family, one in zip(families, told, strict=True):
                cells[family, half, feature] = sentences.get(one, one)
    return cells


def main() -> None:
    """Run every cell and write the page."""
    cells = {
        (family, half, feature): cell(family, half, feature)
        for family in FAMILIES
        for half in HALVES
        for feature in FEATURES
    }
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(cells), encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
