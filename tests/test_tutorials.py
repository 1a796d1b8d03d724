"""Every notebook runs from top to bottom, solutions included, in its fast mode; the committed outputs are those of the full mode."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
NOTEBOOKS = sorted(path.name for path in TUTORIALS.glob("*.ipynb"))


def figures(notebook):
    """The number of pictures that each code cell shows."""
    shown = [
        [output.get("data", {}) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    return [sum(any(kind.startswith("image/") for kind in data) for data in cell) for cell in shown]


def test_the_notebooks_are_there():
    assert [name[:2] for name in NOTEBOOKS] == ["1_", "2_", "3_", "4_", "5_"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_and_shows_its_figures(name, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    committed = nbformat.read(TUTORIALS / name, 4)
    again = nbformat.read(TUTORIALS / name, 4)
    NotebookClient(
        again, timeout=300, kernel_name="python3", resources={"metadata": {"path": TUTORIALS}}
    ).execute()  # raises on an error
    assert sum(figures(committed)) >= 5 and figures(again) == figures(committed)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_and_name_no_machine(name):
    notebook = nbformat.read(TUTORIALS / name, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert sum("solution" in cell.metadata.get("tags", []) for cell in code) >= 3
    text = (TUTORIALS / name).read_text()
    assert not [
        place
        for place in ("/home/", "/Users/", "/tmp/", f"{TUTORIALS.parent}/", f"{Path.home()}/")
        if place in text
    ]
