"""Saved output folders, and what reports say of them: small real ones, kept so that a change of the code shows.

``python tests/lab/saved.py`` writes the expected texts anew, for a change that is meant to change them.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from matplotlib.figure import Figure as Canvas
from PIL import Image

from headwise_lab.report import build

SAVED = Path(__file__).parent / "data" / "saved"
KINDS = ("heads", "kv", "methods", "failures")

_PICTURE = re.compile(r"data:image/[\w+]+;base64,[A-Za-z0-9+/=]*")
_OURS = re.compile(r"<style>.*?</style>|<script>.*?</script>|content=\"default-src[^\"]*\"", re.DOTALL)
_FILES = re.compile(r'"files": \{[^}]*\}')
_LONG = re.compile(r"-?\d+\.\d{7,}(?:e-?\d+)?")


def rebuilt(kind: str, folder: Path) -> dict[str, str]:
    """Name -> text of everything that the report of a saved folder says, rebuilt in a copy within ``folder``.

    Left out is what differs by machine: pictures, digits of a fraction behind the ninth, and the compressed tables of
    the page, which are beside it as files; and the page's own style and scripts, which are the same for all records.
    """
    copy = folder / kind
    shutil.copytree(SAVED / kind, copy)
    with patch.object(Canvas, "savefig", _nothing):  # drawing takes longer than all else
        paths = build(copy)
    texts = {
        "report.md": paths.markdown.read_text(encoding="utf-8"),
        "report.html.sha256": _digest(_words(paths.html.read_text(encoding="utf-8")).replace(str(copy), kind)),
        "findings": "\n".join((*paths.findings, *paths.warnings)),
        **{f"tables/{path.name}": path.read_bytes().decode() for path in paths.tables},
    }
    return {name: _LONG.sub(_short, text.replace(str(copy), kind)) for name, text in texts.items()}


def expected(kind: str) -> dict[str, str]:
    """The same as it was when it was saved."""
    root = SAVED / f"{kind}.report"
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root).as_posix()): path.read_bytes().decode() for path in files}


def _nothing(_: Canvas, path: Path, **__: object) -> None:
    """A picture that shows nothing."""
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, "PNG")
    path.write_bytes(b"<svg/>" if path.suffix == ".svg" else content.getvalue())


def _words(page: str) -> str:
    return _FILES.sub("files", _PICTURE.sub("picture", _OURS.sub("", page)))


def _digest(page: str) -> str:
    """Of the page a hash is kept, since it repeats what the other files say."""
    return hashlib.sha256(_LONG.sub(_short, page).encode()).hexdigest()


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.9g}"


def save() -> None:
    """Write what reports of the saved folders say now."""
    for kind in KINDS:
        root = SAVED / f"{kind}.report"
        shutil.rmtree(root, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            for name, text in rebuilt(kind, Path(folder)).items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode())


if __name__ == "__main__":
    sys.exit(save())
