"""Students' lessons: they match the teacher's, without solutions; solved, they pass the checks."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tutorials import make_student

TUTORIALS = make_student.TUTORIALS
LESSON = """\
import torch

from tutorials import check


def add_noise(x0, kept, noise):
    ### BEGIN SOLUTION
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    ### END SOLUTION


def target(reward, not_done, q1, q2, gamma):
    ### BEGIN SOLUTION
    smaller = torch.minimum(q1, q2)
    next_q = not_done * smaller
    ### END SOLUTION
    return reward + gamma * next_q


def loss(climbed, other):
    ### BEGIN SOLUTION
    scale = other.abs().mean().detach()
    ### END SOLUTION
    return -climbed.mean() / scale


check.forward_process(add_noise)
check.critic_target(target)
check.q_loss(loss)"""
BLANKS = """\
def add_noise(x0, kept, noise):
    return ...  # your code here


def target(reward, not_done, q1, q2, gamma):
    ...  # your code here
    return reward + gamma * next_q


def loss(climbed, other):
    scale = ...  # your code here
    return -climbed.mean() / scale
"""


def lesson():
    links = "[code](../diffusion_ql.py#L9), [paper](https://arxiv.org/abs/2208.06193), [up](#top)"
    cells = [
        new_markdown_cell(f"Which is right? See the {links} and the [guide](README.md)."),
        new_markdown_cell("**Answer.** The second."),
        new_code_cell(LESSON, metadata={"execution": {"shell.execute_reply": "2026"}}),
        new_code_cell('IFrame("playground.html#stop=2", 900, 600)'),
    ]
    cells[2].execution_count = 1
    cells[2].outputs = [nbformat.v4.new_output("stream", text="✓ forward_process: right.\n")]
    return new_notebook(cells=cells)


def printed(notebook):
    """The lines that the third last cell and all others print when the notebook is run."""
    notebook.cells = notebook.cells[:-1]  # the playground needs a browser
    where = {"metadata": {"path": TUTORIALS}}
    start = new_code_cell("import sys; sys.path.insert(0, '..')")
    notebook.cells.insert(0, start)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.name == "stdout").splitlines()


def test_solutions_answers_and_outputs_are_taken_out_and_links_still_lead_somewhere():
    teacher = lesson()
    student = make_student.student_version(teacher)
    assert teacher == lesson() or "SOLUTION" in teacher.cells[2].source  # it stays as it is
    text, code, playground = student.cells
    assert "(../../diffusion_ql.py#L9)" in text.source and "(../README.md)" in text.source
    assert "(https://arxiv.org" in text.source and "(#top)" in text.source
    assert BLANKS in code.source and "SOLUTION" not in code.source
    assert (code.outputs, code.execution_count, code.metadata) == ([], None, {})
    assert playground.source.startswith('IFrame("../playground.html#stop=2"')
    assert make_student.student_version(new_notebook(cells=[new_code_cell("x = 1")])) is None


def test_the_solved_lesson_passes_its_checks_and_the_blank_one_fails_none_with_a_traceback():
    names = ["forward_process", "critic_target", "q_loss"]
    assert printed(lesson()) == [f"✓ {name}: right." for name in names]
    blank = printed(make_student.student_version(lesson()))
    assert [line[0] for line in blank] == ["…", "✗", "…"] and len(blank) == 3
    assert "next_q" in blank[1]


@pytest.mark.parametrize("marker", [make_student.BEGIN, make_student.END])
def test_a_marker_without_its_partner_is_an_error(marker):
    with pytest.raises(ValueError, match="do not match"):
        make_student.blank_out(f"x = 1\n{marker}\ny = 2")


def test_the_committed_student_versions_are_those_of_the_committed_lessons(tmp_path, monkeypatch):
    """Whoever edits a lesson runs python tutorials/make_student.py."""
    monkeypatch.setattr(make_student, "TUTORIALS", tmp_path)
    for path in TUTORIALS.glob("[0-9]_*.ipynb"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    make_student.main()
    made = {path.name: path.read_text() for path in tmp_path.glob("student/*")}
    committed = {path.name: path.read_text() for path in TUTORIALS.glob("student/*.ipynb")}
    assert made == committed


def test_no_check_in_a_committed_lesson_says_that_its_solution_is_wrong():
    """What is printed again, test_tutorials.py sees, which runs the lessons."""
    for path in TUTORIALS.glob("[0-9]_*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            texts = [output.get("text", "") for output in cell.get("outputs", [])]
            assert "✗" not in "".join(texts) and "…" != "".join(texts)[:1], cell.source
