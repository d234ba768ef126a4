"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.reading import given_path

Model = Annotated[str, typer.Option(help="demo-llava, a local model folder, or a hub id.")]
Tokens = Annotated[float | None, typer.Option(help="Visual tokens processed per decoder layer, on average.")]
Keep = Annotated[int | None, typer.Option(help="Visual tokens left after the last stage.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Questions asked of each benchmark.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the synthetic questions.")]
Batch = Annotated[int, typer.Option(min=1, help="Questions asked at once.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Folder with the benchmark's files, or with one such folder per benchmark; or hub, the benchmark's usual"
        " dataset on the Hugging Face hub, or hub:OWNER/NAME[@REVISION][:CONFIG][:SPLIT], one in the same layout."
    ),
]
Positions = Annotated[
    str | None,
    typer.Option(help="keep or compact: position ids of surviving tokens. [default: as the recipe, else keep]"),
]
Aggregate = Annotated[
    str | None,
    typer.Option(
        help="mean, normalised or weighted: how kept heads become token scores. [default: as the recipe, else mean]"
    ),
]
MinMass = Annotated[
    float | None,
    typer.Option(help="Image mass below which a head cannot be chosen. [default: as the recipe, else 0]"),
]
SinkShare = Annotated[
    float | None,
    typer.Option(help="Share of image attention above which a token is a sink. [default: as the recipe, else 1]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreIn = Annotated[
    str | None,
    typer.Option("--out", help="Also store the results in this folder or URL; what is there is not run again."),
]
DTYPE = "auto, float32, bfloat16 or float16; auto: bfloat16 on a GPU that computes in it, else float32."
DEVICE = "auto, cpu, cuda, cuda:1, ...; auto: a GPU of CUDA if there is one, else the CPU."
Dtype = Annotated[str, typer.Option(help=DTYPE)]
Device = Annotated[str, typer.Option(help=DEVICE)]
Attention = Annotated[str, typer.Option(help="sdpa or eager.")]
LanguageModel = Annotated[
    str,
    typer.Option(
        "--model", help="demo-pythia, smollm2, or a folder or hub id of a GPT-NeoX, Llama, Mistral, Qwen2 or Qwen3."
    ),
]
Text = Annotated[str, typer.Option(help="A UTF-8 text file, or a text that ships with headwise: kjv, shakespeare.")]
TextTokens = Annotated[int, typer.Option("--tokens", min=2, help="Tokens read from the beginning of the text.")]
Eviction = Annotated[
    list[str] | None,
    typer.Option("--strategy", help="A kv_eviction strategy, NAME[:option=value,...]; repeat to compare several."),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        callback=given_path, help="Head classes for strategies that need them: what `headwise classify-heads` wrote."
    ),
]
