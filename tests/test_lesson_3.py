"""Lesson 3: its cells run in any order, its checks say right, and what its text claims is so."""

import pytest
from lessons import ROOT, run_twice

from tutorials.experiments.lesson_3 import histories


@pytest.mark.slow
def test_every_check_of_the_lesson_says_right():
    _, printed = run_twice(3)
    assert printed.count("right.") == 2 * 4


def runs(row, column):
    """A column of progress.csv of each of the five seeds."""
    found = [history[column] for history in histories(ROOT / "results" / "lesson_3", row)]
    assert len(found) == 5 and all(history.index[-1] == 5000 for history in found)
    return found


def lead(row, step):
    """How much more the best place of the edge is worth to the critics than the corner."""
    pairs = zip(runs(row, "q_edge"), runs(row, "q_corner"), strict=True)
    return [edge[step] - corner[step] for edge, corner in pairs]


def test_more_q_is_better_here():
    assert all(0.895 < run.iloc[-1] < 0.925 for run in runs("eta = 2.5", "best_corner"))
    assert all(run.iloc[-1] > 0.985 for run in runs("eta = 100", "best_corner"))
    assert all(run[400] > 0.985 for run in runs("eta = 100", "edge"))  # exercise 2
    assert all(run.iloc[-1] < 0.15 for run in runs("eta = 0", "best_corner"))


def test_the_policy_overshoots_and_comes_back_where_the_text_says_so():
    for run in runs("eta = 2.5", "edge"):
        assert run[400] > 0.8 and run.iloc[-1] < 0.01
    for run, without_q in zip(
        runs("finished critic", "edge"), runs("eta = 0", "edge"), strict=True
    ):
        assert 0.135 < without_q[200] < 0.155 and run[200] == run.max() < 0.3
    for run in runs("gradients pass the clip", "edge"):
        assert run.max() > 0.94 and run.iloc[-1] < 0.01
    for row in ("no L_d", "no L_d, gradients pass the clip"):
        assert all(run.iloc[-1] > 0.99 for run in runs(row, "edge"))
    assert all(run.iloc[-1] > 0.99 for run in runs("no L_d", "held"))
    constant = sorted(run.iloc[-1] for run in runs("constant rate", "edge"))
    assert constant[3] < 0.25 and constant[4] > 0.8
    for row in ("constant rate of the critics", "constant rate of the policy"):
        assert all(run.iloc[-1] < 0.03 for run in runs(row, "edge"))


def test_what_the_critics_promise():
    assert all(0.35 < more < 0.5 for more in lead("eta = 2.5", 400))
    assert all(abs(more) < 0.05 for more in lead("eta = 2.5", 3000))
    for row in ("no L_d", "no L_d, gradients pass the clip"):
        assert all(-0.07 < more < -0.01 for more in lead(row, 5000))
        for here, there in zip(runs(row, "q_edge"), runs("eta = 2.5", "q_edge"), strict=True):
            assert (here == there).all()  # their critics are the same
