"""What the tests of the lessons share: running a lesson where its variables can be looked at."""

import contextlib
import io
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from tutorials.helpers import committed

ROOT = Path(__file__).resolve().parents[1]


def read(number):
    """The notebook of lesson `number`."""
    return nbformat.read(next(ROOT.glob(f"tutorials/{number}_*.ipynb")), 4)


def run_twice(number):
    """Runs a lesson's cells in the fast mode, in order and then backwards: (variables, printed).

    The second round shows that a student may run any cell again.
    """
    cells = [cell.source for cell in read(number).cells if cell.cell_type == "code"]
    variables = {"__name__": "lesson"}
    printed = io.StringIO()
    plt.switch_backend("agg")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("tutorials.helpers.FAST", True)
        patch.chdir(ROOT)
        for source in cells + cells[::-1]:
            exec(source, variables)
            plt.close("all")
    return variables, printed.getvalue()


def seeds(experiment, row, measure):
    """A measure of the committed runs of a row, the smallest first."""
    return np.sort([numbers[measure] for _, numbers in committed(experiment, [row])[row]])
