"""Every lesson and its solutions run from top to bottom in their fast mode.

The committed outputs are those of the full mode. Claims are assertions inside the notebooks; here
is what all of them have in common. The numbers in links to lines are test_guide.py's.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
LESSONS = sorted(path.name for path in TUTORIALS.glob("[0-9]*.ipynb"))
SOLUTIONS = [f"solutions/{name}" for name in LESSONS]
LONGEST_CELL = 25  # lines


def read(name):
    return nbformat.read(TUTORIALS / name, 4)


def cells_of(name, kind):
    return [cell for cell in read(name).cells if cell.cell_type == kind]


def text_of(name):
    return "\n".join(cell.source for cell in cells_of(name, "markdown"))


def figures(notebook):
    """The number of pictures that each cell shows."""
    counts = []
    for cell in notebook.cells:
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        counts.append(sum("image/png" in data or "image/gif" in data for data in shown))
    return counts


def failed_checks(notebook):
    """What the checks of check.py print for a blank whose solution is wrong, or is missing."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    return [line for line in lines if line.startswith(("✗", "…"))]


@pytest.mark.parametrize("name", LESSONS + SOLUTIONS)
def test_notebook_runs_and_shows_its_figures(name, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    again = read(name)
    where = {"metadata": {"path": (TUTORIALS / name).parent}}
    NotebookClient(again, timeout=600, kernel_name="python3", resources=where).execute()
    assert figures(again) == figures(read(name))
    for notebook in (again, read(name)):
        assert not failed_checks(notebook)


@pytest.mark.parametrize("name", LESSONS + SOLUTIONS)
def test_committed_outputs_are_whole_and_clean(name):
    code = cells_of(name, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text  # a progress bar or a warning
    text = (TUTORIALS / name).read_text()
    places = ("/home/", "/Users/", "/tmp/", f"{TUTORIALS.parent}/", f"{Path.home()}/")
    assert not [place for place in places if place in text]


@pytest.mark.parametrize("name", LESSONS + SOLUTIONS)
def test_cells_are_short_and_claims_are_asserted(name):
    sources = [cell.source for cell in cells_of(name, "code")]
    for source in sources:
        assert len(source.splitlines()) <= LONGEST_CELL, source
        assert ":=" not in source
    assert sum(source.count("assert ") for source in sources) >= 6


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_has_pictures_goals_times_and_questions(name):
    assert sum(figures(read(name))) >= 5
    text = text_of(name)
    goals = text.split("**Afterwards you can**")[1].split("|")[0]
    assert goals.count("\n- ") == 3
    assert "minutes in class" in text
    sections = re.findall(r"^\| (\d)\. .+ \| \d+ \|$", text, flags=re.MULTILINE)
    assert len(sections) >= 5
    assert sections == re.findall(r"^## (\d)\. ", text, flags=re.MULTILINE)
    questions = text.split("## Check yourself")[1].split("## Exercises")[0]
    assert len(re.findall(r"^\d\. ", questions, flags=re.MULTILINE)) == 3
    assert "<details>" in questions  # the answers are folded


@pytest.mark.parametrize("name", LESSONS)
def test_every_exercise_has_a_solution_in_the_linked_notebook(name):
    lesson = text_of(name)
    assert f"(solutions/{name})" in lesson
    asked = re.findall(r"\*\*Exercise (\d)", lesson)
    solved = re.findall(r"^## Exercise (\d)", text_of(f"solutions/{name}"), flags=re.MULTILINE)
    assert len(asked) >= 3
    assert solved == asked


@pytest.mark.parametrize("name", LESSONS + SOLUTIONS)
def test_links_lead_to_files_that_exist(name):
    targets = re.findall(r"\]\(([^)\s]+)\)", text_of(name))
    here = (TUTORIALS / name).parent
    files = [target.split("#")[0] for target in targets if not target.startswith("http")]
    assert not [file for file in files if file and not (here / file).exists()]
    if name in LESSONS:
        assert len([target for target in targets if "diffusion_ql.py#L" in target]) >= 3
