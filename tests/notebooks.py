"""The notebooks of the site, run from top to bottom in a process of their own.

``python -m tests.notebooks`` runs them and saves what they print and draw; ``tests/test_notebooks.py`` runs them again,
``python -m tests.notebooks NAME FOLDER``, and compares what they print. Cells tagged
``varies`` print what differs between machines, such as times.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def ran(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; files that it writes go into ``folder``. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    with TemporaryDirectory() as sockets:  # sockets in files: no port is opened
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        NotebookClient(
            notebook,
            km=kernel,
            timeout=600,
            startup_timeout=600,
            resources=where,
            record_timing=False,
            coalesce_streams=True,
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what libraries warn of differs from machine to machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop("image/jpeg", None)
    return notebook


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells print, in order, but for those tagged varies."""
    cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", [])
    ]
    outputs = [output for cell in cells for output in cell.outputs if "image/png" not in output.get("data", {})]
    return [output.get("text") or output["data"]["text/plain"] for output in outputs]


if __name__ == "__main__":
    wanted, into = sys.argv[1:] or ("*", FOLDER)
    for path in sorted(FOLDER.glob(f"{wanted}.ipynb")):
        with TemporaryDirectory() as folder:
            notebook = ran(path, Path(folder))
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, Path(into) / path.name)
