"""``headwise classify-heads``: a class for every head of a language model, in a profile for other commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.output import answer
from headwise.reading import given_path
from headwise.verbosity import warn
from headwise_lab.commands.options import AsJson, Attention, Device, Dtype, LanguageModel, Text, TextTokens
from headwise_lab.commands.storing import writing

if TYPE_CHECKING:
    from headwise.heads import HeadProfile
    from headwise_lab.heads.agreement import Agreement


def classify_heads(
    *,
    model: LanguageModel = "demo-pythia",
    text: Text = "kjv",
    tokens: TextTokens = 1500,
    strategy: Annotated[
        str, typer.Option(help="locality, entropy, retrieval or sensitivity, or another installed NAME[:option=value].")
    ] = "locality",
    out: Annotated[
        Path, typer.Option(callback=given_path, help="The profile, a .json file; its picture goes beside it as .png.")
    ] = Path("profile.json"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random tokens that retrieval repeats.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
    as_json: AsJson = False,
) -> None:
    """Classify the attention heads of a language model on one text.

    Writes a profile with the label, confidence and statistics of every head, for kv_eviction strategies that need one
    (--profile), and a picture of it. If the classes depend on attention to the text only, the two halves of the text
    are also classified separately, and how often they agree is compared with the stated confidence.
    """
    from headwise.registry import resolve
    from headwise_lab.heads.agreement import halves_agree
    from headwise_lab.heads.picture import draw
    from headwise_lab.heads.profile import classify
    from headwise_lab.models.load import load_language_model
    from headwise_lab.texts.tokens import tokens_of

    chosen = resolve(strategy, ("head_classification",))
    _check_file(out)
    loaded = load_language_model(model, dtype=dtype, device=device, attention=attention)
    read = tokens_of(loaded.tokenizer, text, tokens)
    _warn_beyond(loaded.model.config.get_text_config().max_position_embeddings, tokens)
    with _bar() as progress:
        found = classify(loaded, read, chosen, seed=seed, progress=progress)
        agreement = halves_agree(loaded, read, chosen, found, progress=progress)
    with writing("profile", out):
        found.profile.save(out)
        draw(found.profile, out.with_suffix(".png"))
    _tell(found.profile, agreement, out, as_json)


def _check_file(out: Path) -> None:
    """Raise DataError, before anything is measured, where the profile cannot be written."""
    from headwise.errors import DataError

    if out.suffix != ".json":
        raise DataError(f"a profile is a .json file and its picture a .png beside it, so --out cannot be {out}")
    with writing("profile", out):
        out.parent.mkdir(parents=True, exist_ok=True)


def _warn_beyond(longest: int, tokens: int) -> None:
    if tokens > longest:
        warn(f"{tokens} tokens are more than the {longest} positions the model was made for")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """One bar on the error stream for all measurements, one after the other."""
    from rich.progress import TaskProgressColumn, TimeRemainingColumn

    from headwise_lab.terminal.progress import Bar

    with Bar(TaskProgressColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("reading")
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def _tell(profile: HeadProfile, agreement: Agreement | None, out: Path, as_json: bool) -> None:
    """Print the summary as a table or as JSON, and the names of the files."""
    from headwise_lab.heads.summary import agreement_line, record, summary_table

    picture = out.with_suffix(".png")
    if as_json:
        files = {"profile": str(out), "picture": str(picture)}
        answer(json.dumps({**record(profile, agreement), **files}, indent=2, ensure_ascii=False))
        return
    from headwise_lab.terminal.console import wide_enough

    layers, heads = profile.labels.labels.shape
    table = summary_table(profile)
    console = wide_enough([table])
    console.print(f"{profile.model}, {layers} layers x {heads} heads, by {profile.strategy} on {profile.text}\n")
    console.print(table)
    if agreement is not None:
        console.print(f"\n{agreement_line(agreement)}")
    console.print(f"\nProfile: {out} (picture: {picture})")
