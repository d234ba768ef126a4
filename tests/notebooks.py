"""The notebooks of the site, run from top to bottom in a process of their own.

``python -m tests.notebooks`` runs them and saves what they print and draw; ``tests/test_notebooks.py`` runs them again
and compares what they print. Cells tagged ``varies`` print what differs between machines, such as times.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def ran(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; files that it writes go into ``folder``. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")  # sockets in files: no port is opened
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, km=kernel, timeout=600, resources=where, record_timing=False, coalesce_streams=True
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what libraries warn of differs from machine to machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells print, in order, but for those tagged varies."""
    cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", [])
    ]
    outputs = [output for cell in cells for output in cell.outputs]
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]


if __name__ == "__main__":
    import tempfile

    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = ran(path, Path(folder))
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, path)
