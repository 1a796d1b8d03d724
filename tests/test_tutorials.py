"""Every notebook runs from top to bottom, solutions included, in its fast mode.

The committed outputs are those of the full mode. Claims are assertions inside the notebooks; here
is what all of them have in common.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
SOURCE = TUTORIALS.parent / "diffusion_ql.py"
LESSONS = sorted(path.name for path in TUTORIALS.glob("[0-9]*.ipynb"))
SOLUTIONS = sorted(f"solutions/{path.name}" for path in TUTORIALS.glob("solutions/*.ipynb"))
# Lessons whose solutions lie in a notebook of their own. The others keep them in tagged cells.
REVISED = [name for name in LESSONS if f"solutions/{name}" in SOLUTIONS]
LONGEST_CELL = 25  # lines


def read(name):
    return nbformat.read(TUTORIALS / name, 4)


def cells_of(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def figures(notebook):
    """The number of pictures that each code cell shows."""
    counts = []
    for cell in cells_of(notebook, "code"):
        shown = [output.get("data", {}) for output in cell.outputs]
        counts.append(sum("image/png" in data or "image/gif" in data for data in shown))
    return counts


@pytest.mark.parametrize("name", LESSONS + SOLUTIONS)
def test_notebook_runs_and_shows_its_figures(name, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    again = read(name)
    where = {"metadata": {"path": (TUTORIALS / name).parent}}
    NotebookClient(again, timeout=600, kernel_name="python3", resources=where).execute()
    assert figures(again) == figures(read(name))


@pytest.mark.parametrize("name", LESSONS + SOLUTIONS)
def test_committed_outputs_are_whole_and_name_no_machine(name):
    code = cells_of(read(name), "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert not [output for output in cell.outputs if output.output_type == "error"]
    text = (TUTORIALS / name).read_text()
    places = ("/home/", "/Users/", "/tmp/", f"{TUTORIALS.parent}/", f"{Path.home()}/")
    assert not [place for place in places if place in text]


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_has_pictures_and_solutions(name):
    notebook = read(name)
    assert sum(figures(notebook)) >= 5
    if name in REVISED:
        solutions = read(f"solutions/{name}")
        exercises = "".join(cell.source for cell in cells_of(solutions, "markdown"))
        assert exercises.count("## Exercise ") >= 3
    else:
        tagged = [cell for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
        assert len(tagged) >= 3


@pytest.mark.parametrize("name", REVISED)
def test_lesson_has_goals_times_questions_and_hides_its_solutions(name):
    notebook = read(name)
    text = "\n".join(cell.source for cell in cells_of(notebook, "markdown"))
    goals = text.split("**Afterwards you can**")[1].split("|")[0]
    assert goals.count("\n- ") == 3
    assert "minutes in class" in text
    questions = text.split("## Check yourself")[1].split("## Exercises")[0]
    assert len(re.findall(r"^\d\. ", questions, flags=re.MULTILINE)) == 3
    assert text.count("**Exercise ") >= 3
    assert f"(solutions/{name})" in text
    assert not [cell for cell in notebook.cells if cell.metadata.get("tags")]


@pytest.mark.parametrize("name", REVISED + SOLUTIONS)
def test_cells_are_short_and_claims_are_asserted(name):
    code = cells_of(read(name), "code")
    for cell in code:
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
        assert ":=" not in cell.source
        for output in cell.outputs:  # no progress bars, no warnings
            assert output.get("name") != "stderr", output.text
    claims = sum(cell.source.count("assert ") for cell in code)
    assert claims >= 6


@pytest.mark.parametrize("name", REVISED)
def test_links_to_lines_of_the_source_are_right(name):
    text = "\n".join(cell.source for cell in cells_of(read(name), "markdown"))
    lines = SOURCE.read_text().splitlines()
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./diffusion_ql\.py#L(\d+)\)", text)
    assert len(links) >= 3
    for label, number in links:
        line = lines[int(number) - 1]
        assert re.match(rf"\s*(def|class) {label}\b", line), f"{label}: line {number} is {line!r}"
