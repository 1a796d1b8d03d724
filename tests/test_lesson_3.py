"""Lesson 3 runs, its checks say right, and what its text claims about the committed runs is so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tutorials.checks import lesson_3
from tutorials.experiments.lesson_3 import histories
from tutorials.grading import Check, with_mistakes

ROOT = Path(__file__).resolve().parents[1]
CHECKS = {name: value for name, value in vars(lesson_3).items() if isinstance(value, Check)}
MISTAKES = [(name, hint) for name, one in CHECKS.items() for hint in one.mistakes]


@pytest.mark.parametrize("name, hint", MISTAKES)
def test_every_mistake_is_told_from_the_others(name, hint):
    mistaken = with_mistakes(CHECKS[name].solution, [CHECKS[name].mistakes[hint]])
    assert CHECKS[name].verdict(mistaken) == f"✗ {name}: {hint}"


@pytest.mark.slow
def test_every_check_of_the_lesson_says_right(monkeypatch):
    monkeypatch.setenv("FAST", "1")
    notebook = nbformat.read(ROOT / "tutorials" / "3_q_guidance.ipynb", 4)
    where = {"metadata": {"path": ROOT / "tutorials"}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    printed = "".join(out.text for out in outputs if out.output_type == "stream")
    assert printed.count("right.") == len(CHECKS) == 4


def runs(row, column):
    """A column of progress.csv of each of the five seeds."""
    found = [history[column] for history in histories(ROOT / "results" / "lesson_3", row)]
    assert len(found) == 5
    return found


def test_more_q_is_better_here():
    assert all(0.895 < run.iloc[-1] < 0.925 for run in runs("eta = 2.5", "best_corner"))
    assert all(run.iloc[-1] > 0.985 for run in runs("eta = 100", "best_corner"))
    assert all(run.iloc[-1] < 0.15 for run in runs("eta = 0", "best_corner"))


def test_the_policy_overshoots_and_comes_back_where_the_text_says_so():
    for run in runs("eta = 2.5", "edge"):
        assert run.loc[400] > 0.8 and run.iloc[-1] < 0.01
    assert all(run.max() < 0.3 for run in runs("finished critic", "edge"))
    for run in runs("gradients pass the clip", "edge"):
        assert run.max() > 0.94 and run.iloc[-1] < 0.01
    assert all(run.iloc[-1] > 0.99 for run in runs("no L_d", "edge"))
    promises = zip(runs("no L_d", "q_edge"), runs("no L_d", "q_corner"), strict=True)
    assert all(abs(edge.iloc[-1] - corner.iloc[-1]) < 0.1 for edge, corner in promises)
    constant = sorted(run.iloc[-1] for run in runs("constant rate", "edge"))
    assert constant[3] < 0.25 and constant[4] > 0.8
