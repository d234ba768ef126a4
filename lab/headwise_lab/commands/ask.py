"""``headwise ask``: the user's own picture or prompt, answered with and without pruning, side by side."""

from __future__ import annotations

import json
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.output import answer
from headwise.verbosity import remark, warn
from headwise_lab.commands.options import AsJson, Attention, Device, Dtype, Keep, Profile, Tokens

if TYPE_CHECKING:
    from headwise_lab.asking.outcome import Outcome

Images = Annotated[list[str] | None, typer.Option("--image", help="A picture of yours, one file.")]
Asking = Annotated[str | None, typer.Option("--question", help="What you ask about the picture.")]
Prompt = Annotated[str | None, typer.Option(help="A text that a language model continues, instead of a picture.")]
AnyModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="A local model folder, a hub id, ... [default: demo-llava, or demo-pythia with --prompt]"
    ),
]
Recipes = Annotated[list[str] | None, typer.Option("--recipe", help="A named recipe; repeat to compare several.")]
Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        help="[HOOK=]NAME[:option=value,...]. With a picture, part of every recipe, or together a recipe of their own;"
        " with a prompt, each is a KV eviction of its own.",
    ),
]
NewTokens = Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")]
Picture = Annotated[
    str,
    typer.Option(
        help="How the terminal shows the picture: auto, kitty, iterm, sixel, blocks (coloured letters) or none."
    ),
]
Out = Annotated[str | None, typer.Option(metavar="DIR", help="Write ask.html and ask.png into this folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace ask.html and ask.png that are there.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


def ask(
    *,
    image: Images = None,
    question: Asking = None,
    prompt: Prompt = None,
    model: AnyModel = None,
    recipe: Recipes = None,
    strategy: Strategies = None,
    tokens: Tokens = None,
    keep: Keep = None,
    profile: Profile = None,
    new_tokens: NewTokens = 40,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
    picture: Picture = "auto",
    out: Out = None,
    overwrite: Overwrite = False,
    open_page: Open = False,
    as_json: AsJson = False,
) -> None:
    """Ask a model about your own picture, with and without pruning, side by side.

    With --prompt instead, a language model continues a text with a full KV cache and with smaller ones. A terminal that
    can also shows what each recipe kept of the picture. Times are those of one run on this machine.
    """
    from headwise.heads import HeadProfile
    from headwise_lab.asking.answering import ROUNDS, answers, ready
    from headwise_lab.asking.outcome import outcome
    from headwise_lab.asking.page import folder_for
    from headwise_lab.asking.request import asked, looked_up, planned, recipes_for_a_picture, recipes_for_a_prompt
    from headwise_lab.asking.terminal import way_of
    from headwise_lab.terminal import Terminal
    from headwise_lab.terminal.progress import counted

    about = asked(image, question, prompt)
    if not as_json:
        way_of(Terminal(), picture)  # judged before anything is computed
    folder = None if out is None else folder_for(out, overwrite=overwrite)
    known = HeadProfile.load(profile) if profile else None
    recipes = recipes_for_a_prompt if about.image is None else recipes_for_a_picture
    candidates = recipes(recipe or (), strategy or (), tokens=tokens, keep=keep, profile=known)
    name = model or ("demo-pythia" if about.image is None else "demo-llava")
    candidates = planned(candidates, looked_up(name, about))
    loaded = ready(about, name, dtype=dtype, device=device, attention=attention)
    with counted("answering", len(candidates) + ROUNDS) as advance:
        said = answers(loaded, candidates, new_tokens, advance)
    found = outcome(about, loaded, said)
    _tell(found, picture, as_json=as_json)
    if folder is not None or open_page:
        _leave(found, folder, opened=open_page)


def _tell(found: Outcome, picture: str, *, as_json: bool) -> None:
    """Print one JSON object, or what a person reads."""
    if as_json:
        answer(json.dumps(found.to_json(), ensure_ascii=False))
        return
    from headwise_lab.asking.terminal import show

    show(found, picture)


def _leave(found: Outcome, folder: Path | None, *, opened: bool) -> None:
    """Write the files into the folder, or a temporary one; open the page if wanted, and say where it is."""
    from headwise_lab.asking.page import write

    paths = write(found, folder or Path(tempfile.mkdtemp(prefix="headwise-ask-")))
    remark(f"wrote {' and '.join(map(str, paths))}")
    if opened and not webbrowser.open(paths[0].resolve().as_uri()):
        warn("no browser could be opened; open the page yourself")
