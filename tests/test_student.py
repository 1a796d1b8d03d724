"""Students' lessons: they match the teacher's, without solutions; solved, they pass the checks."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tutorials import make_student

TUTORIALS = make_student.TUTORIALS
LESSON = """\
from tutorials.checks import lesson_2 as check


def add_noise(x0, kept, noise):
    ### BEGIN SOLUTION
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    ### END SOLUTION


def guess_x0(x, noise, kept):
    ### BEGIN SOLUTION
    noise_in_x = (1 - kept).sqrt() * noise
    clean = x - noise_in_x
    ### END SOLUTION
    return clean / kept.sqrt()


check.add_noise(add_noise)
check.guess_x0(guess_x0)"""
BLANKS = """\
def add_noise(x0, kept, noise):
    return ...  # your code here


def guess_x0(x, noise, kept):
    ...  # your code here
    return clean / kept.sqrt()
"""


def lesson():
    links = "[code](../forks.py), [paper](https://arxiv.org/abs/2208.06193), [up](#top)"
    cells = [
        new_markdown_cell(f"Which is right? See the {links} and the [guide](README.md)."),
        new_markdown_cell("**Answer.** The second."),
        new_code_cell(LESSON, execution_count=1),
        new_code_cell('IFrame("playground.html#stop=2", 900, 600)'),
    ]
    cells[2].outputs = [nbformat.v4.new_output("stream", text="✓ add_noise: right.\n")]
    return new_notebook(cells=cells)


def test_solutions_answers_and_outputs_are_taken_out_and_links_still_lead_somewhere():
    teacher = lesson()
    student = make_student.student_version(teacher)
    assert teacher.cells[2].source == LESSON  # it stays as it is
    text, code, playground = student.cells
    assert "(../../forks.py)" in text.source and "(../README.md)" in text.source
    assert "(https://arxiv.org" in text.source and "(#top)" in text.source
    assert BLANKS in code.source and "SOLUTION" not in code.source
    assert (code.outputs, code.execution_count) == ([], None)
    assert playground.source.startswith('IFrame("../playground.html#stop=2"')
    assert make_student.student_version(new_notebook(cells=[new_code_cell("x = 1")])) is None


@pytest.mark.parametrize("is_student, marks", [(False, "✓✓"), (True, "…✗")])
def test_the_checks_of_the_solved_lesson_and_of_the_blank_one(is_student, marks, capsys):
    """The blank one ends without a traceback, too."""
    source = make_student.blank_out(LESSON) if is_student else LESSON
    exec(source, {})
    assert "".join(line[0] for line in capsys.readouterr().out.splitlines()) == marks


def test_a_marker_without_its_partner_is_an_error():
    for marker in (make_student.BEGIN, make_student.END):
        with pytest.raises(ValueError, match="do not match"):
            make_student.blank_out(f"x = 1\n{marker}\ny = 2")


def test_the_committed_student_versions_are_those_of_the_committed_lessons(tmp_path, monkeypatch):
    """Whoever edits a lesson runs python tutorials/make_student.py."""
    committed = {path.name: path.read_text() for path in TUTORIALS.glob("student/*.ipynb")}
    for path in TUTORIALS.glob("[0-9]_*.ipynb"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(make_student, "TUTORIALS", tmp_path)
    make_student.main()
    made = {path.name: path.read_text() for path in tmp_path.glob("student/*")}
    assert [name for name in made | committed if made.get(name) != committed.get(name)] == []
