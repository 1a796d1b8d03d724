"""The committed outputs of the lessons, which test_lesson_N.py run; test_guide.py follows links."""

from pathlib import Path

import nbformat
import pytest

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
LESSONS = sorted(path.name for path in TUTORIALS.glob("[0-9]*.ipynb"))


def read(name):
    return nbformat.read(TUTORIALS / name, 4)


def failed_checks(notebook):
    """What the checks print for a blank whose solution is wrong, or is missing."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    return [line for line in lines if line.startswith(("✗", "…"))]


@pytest.mark.parametrize("name", LESSONS)
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
