"""Every notebook runs from top to bottom, solutions included, in its fast mode.

The committed outputs are those of the full mode.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
NOTEBOOKS = sorted(path.name for path in TUTORIALS.glob("[0-9]*.ipynb"))


def figures(notebook):
    """The number of pictures that each code cell shows."""
    counts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output.get("data", {}) for output in cell.outputs]
            counts.append(sum("image/png" in data or "image/gif" in data for data in shown))
    return counts


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_and_shows_its_figures(name, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    committed = nbformat.read(TUTORIALS / name, 4)
    again = nbformat.read(TUTORIALS / name, 4)
    where = {"metadata": {"path": TUTORIALS}}
    NotebookClient(again, timeout=600, kernel_name="python3", resources=where).execute()
    assert sum(figures(committed)) >= 5 and figures(again) == figures(committed)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_and_name_no_machine(name):
    notebook = nbformat.read(TUTORIALS / name, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert not [output for output in cell.outputs if output.output_type == "error"]
    assert sum("solution" in cell.metadata.get("tags", []) for cell in code) >= 3
    text = (TUTORIALS / name).read_text()
    places = ("/home/", "/Users/", "/tmp/", f"{TUTORIALS.parent}/", f"{Path.home()}/")
    assert not [place for place in places if place in text]
