"""Lesson 4: its cells run in any order, its checks say right, and what its text claims is so."""

import numpy as np
import pandas as pd
import pytest
from lessons import ROOT, run_twice

from tutorials.experiments.lesson_4 import ROWS, drive_long, earned, results_of

RUNS = ROOT / "results" / "lesson_4"


@pytest.mark.slow
def test_what_the_lesson_computes():
    lesson, printed = run_twice(4)
    assert printed.count("right.") == 2 * 4

    arrives, q = lesson["arrives"], lesson["promised"](lesson["trained"], *lesson["data"][:2])
    error = np.abs(q.view(200, 60) - lesson["by_hand"]).numpy()[arrives]
    assert 0.8 < error.mean() < 0.95 and np.mean(error < 2) > 0.945
    bound = lesson["BOUND"]
    best = lesson["promises"]("the best of ten", 1, steps=80)
    assert max(best[:30]) < bound < 500 < best[-1]
    for who in ("a random action", "the trained policy"):
        assert 10 < min(lesson["promises"](who, 1, steps=80)[40:]) < bound - 5

    for cell, low, high in (((3, 1), 10.5, 12.5), ((3, 3), 0, 0)):  # the start, and the pocket
        agent, dataset = lesson["trained"], lesson["dataset"]
        _, rewards, q = drive_long(agent, dataset, episodes=5, steps=150, cell=cell)
        assert low <= earned(rewards)[:, 0].mean() <= high
        assert 10 < q[:, 0].mean() < 13.5


def numbers(row, name):
    """One of the numbers of a row's five seeds."""
    found = [run[name] for _, run in results_of(RUNS, row, range(5))]
    assert len(found) == 5
    return np.array(found)


def last_returns(folder):
    """The 100 returns of each of five seeds at the last evaluation: (5, 100)."""
    tables = sorted(folder.glob("two-roads/*/returns.csv"))
    assert len(tables) == 5
    return np.stack([pd.read_csv(table).iloc[-1, 1:] for table in tables])


def test_equal_scores_hide_who_never_arrives():
    gaussian, one_action = [
        last_returns(ROOT / "results" / "two-roads" / method) for method in ("GaussianQL", "TD3BC")
    ]
    assert (gaussian == 0).sum() == 25 and (one_action == 0).sum() == 0
    assert abs(gaussian.mean() - one_action.mean()) < 0.1
    assert np.median(gaussian) == 27 and np.median(one_action) == 25
