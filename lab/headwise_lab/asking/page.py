"""The files of ``--out``: one page that needs nothing beside it, and the pictures side by side."""

from __future__ import annotations

import os
from pathlib import Path

from headwise.errors import DataError
from headwise.printing import printable
from headwise_lab.asking.outcome import Outcome
from headwise_lab.asking.table import header, heading, legend, rows
from headwise_lab.asking.views import panels, png
from headwise_lab.report.html_page import templates
from headwise_lab.store.atomic import free, refuse_link, whole
from headwise_lab.store.locations import is_local, place

TEMPLATES = Path(__file__).parent / "templates"
PAGE, PICTURE = "ask.html", "ask.png"


def folder_for(out: str, *, overwrite: bool) -> Path:
    """The folder that ``--out`` names; raises DataError where the files cannot be written there, and makes nothing."""
    folder = place(out)
    if not is_local(folder):
        raise DataError(f"--out {out} is no folder of this machine, and a browser opens the page from one; give a path")
    refuse_link(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise DataError(f"--out {out} cannot be a folder, because {there} is a file; give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"--out {out} cannot be written, because {there} may not be changed; give another")
    free([folder / PAGE, folder / PICTURE], overwrite=overwrite)
    return folder


def html(found: Outcome) -> str:
    """The whole page; every text is escaped, and letters that steer a terminal or turn a line are spelled out."""
    view = found.view
    return (
        templates(TEMPLATES)
        .get_template("ask.html.j2")
        .render(
            title=printable(heading(found)),
            header=header(found),
            rows=[[printable(cell) for cell in row] for row in rows(found)],
            legend=[printable(sentence) for sentence in legend(found)],
            panels=[]
            if view is None
            else [(printable(one.name), printable(one.said), one) for one in panels(view, found.answers)],
        )
    )


def write(found: Outcome, folder: Path) -> list[Path]:
    """Write page and picture, both or neither; a prompt has no picture. Raises DataError where that fails."""
    contents = {folder / PAGE: html(found).encode()}
    if found.view is not None:
        shown = panels(found.view, found.answers)
        contents[folder / PICTURE] = png(shown, heading(found))
    with whole(list(contents)) as paths:
        for path, content in zip(paths, contents.values(), strict=True):
            path.write_bytes(content)
    return list(contents)
