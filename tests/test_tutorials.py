"""Lessons without a test of their own, and solutions, run in the fast mode and show their figures.

The committed outputs are those of the full mode. test_guide.py follows the links.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
LESSONS = sorted(path.name for path in TUTORIALS.glob("[0-9]*.ipynb"))
SOLVED = [name for name in LESSONS if (TUTORIALS / "solutions" / name).exists()]
NOTEBOOKS = LESSONS + [f"solutions/{name}" for name in SOLVED]
TESTS = Path(__file__).parent
OLD = [name for name in NOTEBOOKS if not (TESTS / f"test_lesson_{name[0]}.py").exists()]


def read(name):
    return nbformat.read(TUTORIALS / name, 4)


def figures(notebook):
    """The number of pictures that each cell shows."""
    counts = []
    for cell in notebook.cells:
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        counts.append(sum("image/png" in data or "image/gif" in data for data in shown))
    return counts


def failed_checks(notebook):
    """What the checks print for a blank whose solution is wrong, or is missing."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    return [line for line in lines if line.startswith(("✗", "…"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", OLD)  # test_lesson_N.py runs lesson N
def test_notebook_runs_and_shows_its_figures(name, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    again = read(name)
    where = {"metadata": {"path": (TUTORIALS / name).parent}}
    NotebookClient(again, timeout=600, kernel_name="python3", resources=where).execute()
    assert figures(again) == figures(read(name))
    for notebook in (again, read(name)):
        assert not failed_checks(notebook)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_and_clean(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text  # a progress bar or a warning
    assert not failed_checks(read(name))
    text = (TUTORIALS / name).read_text()
    places = ("/home/", "/Users/", "/tmp/", f"{TUTORIALS.parent}/", f"{Path.home()}/")
    assert not [place for place in places if place in text]


@pytest.mark.parametrize("name", SOLVED)
def test_every_exercise_has_a_solution(name):
    asked = re.findall(r"\*\*Exercise (\d)", (TUTORIALS / name).read_text())
    solved = re.findall(r"## Exercise (\d)", (TUTORIALS / "solutions" / name).read_text())
    assert asked and solved == asked
