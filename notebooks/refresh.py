"""Runs the notebook from top to bottom and keeps what may be committed of it.

  python notebooks/refresh.py

Wanted after a change of the notebook or of the checkpoint it shows. It needs
what requirements-dev.txt lists.
"""

from __future__ import annotations

import os
import pathlib

import nbclient
import nbformat

PATH = pathlib.Path(__file__).with_name("Eval.ipynb")

_SECONDS_PER_CELL = 600
_WIDGET = "application/vnd.jupyter.widget-view+json"
_METADATA = {
  "kernelspec": {
    "display_name": "Python 3",
    "language": "python",
    "name": "python3",
  },
  "language_info": {"name": "python"},
}


def execute(
  notebook: nbformat.NotebookNode, folder: str | os.PathLike[str]
) -> nbformat.NotebookNode:
  """Runs all cells in a new process.

  Args:
    notebook: it stays as it is.
    folder: the working directory.

  Returns:
    The notebook with outputs.

  Raises:
    nbclient.exceptions.CellExecutionError: if a cell fails.
  """
  result = nbformat.from_dict(notebook)
  client = nbclient.NotebookClient(
    result,
    timeout=_SECONDS_PER_CELL,
    kernel_name="python3",
    resources={"metadata": {"path": os.fspath(folder)}},
    record_timing=False,
  )
  client.execute()
  return result


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
  """Leaves out what depends on the machine: warnings, widgets, metadata."""
  result = nbformat.from_dict(notebook)
  result.metadata = nbformat.from_dict(_METADATA)
  for cell in result.cells:
    cell.metadata = nbformat.from_dict({})
    if cell.cell_type == "code":
      cell.outputs = [
        output
        for output in cell.outputs
        if output.get("name") != "stderr"
        and _WIDGET not in output.get("data", ())
      ]
  return result


def refresh() -> None:
  """Writes the notebook with new outputs."""
  notebook = execute(nbformat.read(PATH, as_version=4), PATH.parent)
  nbformat.write(strip(notebook), PATH)
  print(f"wrote {PATH} ({PATH.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
  refresh()
