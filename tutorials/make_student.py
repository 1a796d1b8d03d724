"""Makes the students' lessons: tutorials/student/N_*.ipynb of the teacher's tutorials/N_*.ipynb.

    python tutorials/make_student.py

In the teacher's notebook a blank's solution stands between two comments (nbgrader's):

    def add_noise(x0, kept, noise):
        ### BEGIN SOLUTION
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise
        ### END SOLUTION

The student finds `return ...  # your code here` there: a solution of one line keeps its return, or
the name that it gives a value. A text cell that begins with **Answer.** is left out, and so are all
outputs. A notebook without blanks is no lesson, and makes no student version.
"""

import copy
import re
from pathlib import Path

import nbformat

TUTORIALS = Path(__file__).resolve().parent
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BLOCK = re.compile(rf"^( *){BEGIN}\n(.*?)^ *{END}$", re.MULTILINE | re.DOTALL)
KEPT = re.compile(r" *(return |[\w., ]+ = )?.*\n")  # of a single line


def blank_out(source):
    """A code cell as the student gets it. Raises ValueError for a BEGIN without its END."""
    source = BLOCK.sub(make_blank, source)
    if BEGIN in source or END in source:
        raise ValueError(f"{BEGIN} and {END} do not match in this cell:\n{source}")
    return source


def make_blank(match):
    indent, solution = match.groups()
    one_line = KEPT.fullmatch(solution)
    kept = (one_line and one_line[1]) or ""
    return f"{indent}{kept}...  # your code here"


def is_answer(cell):
    return cell.cell_type == "markdown" and cell.source.startswith("**Answer.**")


def student_version(teacher):
    """The student's notebook of a teacher's; None if it has no blanks."""
    if not any(BEGIN in cell.source for cell in teacher.cells):
        return None
    student = copy.deepcopy(teacher)
    student.cells = [cell for cell in student.cells if not is_answer(cell)]
    for cell in student.cells:
        if cell.cell_type == "markdown":  # one folder deeper, links need one step more
            cell.source = re.sub(r"\]\((?!\w+:|#)", "](../", cell.source)
        else:
            cell.source = blank_out(cell.source).replace('"playground.html', '"../playground.html')
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    return student


def main():
    folder = TUTORIALS / "student"
    for path in folder.glob("*.ipynb"):
        path.unlink()
    for path in sorted(TUTORIALS.glob("[0-9]_*.ipynb")):
        student = student_version(nbformat.read(path, 4))
        if student is not None:
            folder.mkdir(exist_ok=True)
            nbformat.write(student, folder / path.name)
            print(folder / path.name)


if __name__ == "__main__":
    main()
