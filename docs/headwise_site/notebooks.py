"""Notebooks as pages: their text, code and saved outputs. A test runs them and compares what they print."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, str | bytes]:
    """Path -> text of a page, or bytes of a picture on it."""
    made: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for number, cell in enumerate(cells):
            made |= _pictures(f"notebooks/{path.stem}-{number}", cell)
        texts = [_cell(f"{path.stem}-{number}", cell) for number, cell in enumerate(cells)]
        made[f"notebooks/{path.stem}.md"] = "\n\n".join([texts[0], _where(path.name), *texts[1:]]) + "\n"
    return made


def _where(name: str) -> str:
    return f'!!! info "A notebook"\n\n    Open it with Jupyter: `docs/notebooks/{name}` in a checkout. A test runs it.'


def _cell(slug: str, cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    shown = [_output(slug, number, output) for number, output in enumerate(cell["outputs"])]
    return "\n\n".join([f"```python\n{source}\n```", *filter(None, shown)])


def _output(slug: str, number: int, output: dict[str, Any]) -> str:
    """Pictures as files beside the page; of everything else the plain text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![what the cell above draws]({slug}-{number}.png)"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f'```text title="prints"\n{text.rstrip()}\n```' if text.strip() else ""


def _pictures(stem: str, cell: dict[str, Any]) -> dict[str, bytes]:
    outputs = enumerate(cell.get("outputs", []))
    drawn = {number: output["data"] for number, output in outputs if "image/png" in output.get("data", {})}
    return {f"{stem}-{number}.png": base64.b64decode("".join(data["image/png"])) for number, data in drawn.items()}
