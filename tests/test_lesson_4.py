"""Lesson 4: its cells run in any order, its checks say right, and what its text claims is so."""

import numpy as np
import pandas as pd
import pytest
from lessons import ROOT, run_twice

from tutorials.experiments.lesson_4 import ROWS, drive_long, earned, results_of

RESULTS = {row: results_of(ROOT / "results" / "lesson_4", row, range(5)) for row in ROWS}


@pytest.mark.slow
def test_what_the_lesson_computes():
    lesson, printed = run_twice(4)
    assert printed.count("right.") == 2 * 4

    q = lesson["promised"](lesson["trained"], *lesson["data"][:2]).view(200, 60)
    error = (q - lesson["by_hand"]).abs().numpy()[lesson["arrives"]]
    assert 0.8 < error.mean() < 0.95 and np.mean(error < 2) > 0.945
    curves = {who: lesson["promises"](who, 1, steps=80) for who in lesson["WHO"]}
    assert (
        max(curves["the best of ten"][:30]) < lesson["BOUND"] < 500 < curves["the best of ten"][-1]
    )
    for who in ("a random action", "the trained policy"):
        assert 10 < min(curves[who][40:]) < max(curves[who]) < lesson["BOUND"]

    shove = lesson["played"]["no L_d"][0]
    assert (lesson["played"]["no L_d"] == shove).all()
    assert 0.78 < ((lesson["data"].action - shove).norm(dim=1) > 0.1).float().mean() < 0.84
    for cell, low, high in (((3, 1), 10.5, 12.5), ((3, 3), 0, 0)):  # the start, and the pocket
        _, rewards, q = drive_long(lesson["trained"], lesson["dataset"], 3, 150, cell)
        assert low <= earned(rewards)[:, 0].mean() <= high and 10 < q[:, 0].mean() < 13.5


def test_whom_the_target_asks():
    q, more = {}, {}
    for row, seeds in RESULTS.items():
        q[row] = np.sort([drive["history"]["q"].iloc[-1] for drive, _ in seeds])
        more[row] = np.array([run["earned"] - run["promised"] for _, run in seeds])
    assert q["no L_d"][2] < -5 and q["no L_d"][3] > 200
    assert all(run["earned"] == 0 for _, run in RESULTS["no L_d"])
    for row in ("a clone answers", "no L_d, a clone answers"):
        assert len(q[row]) == 5 and 21.3 < q[row][0] < q[row][-1] < 21.8
    assert (np.abs(more["Diffusion-QL"]) < 1.05).all()
    assert (more["a clone answers"] > 1).all() and (more["no L_d, a clone answers"] < -5).all()


def test_scores_hide_who_never_arrives():
    for method, never, median in (("GaussianQL", 25, 27), ("TD3BC", 0, 25)):
        tables = ROOT.glob(f"results/two-roads/{method}/two-roads/*/returns.csv")
        returns = np.stack([pd.read_csv(table).iloc[-1, 1:] for table in tables])
        assert returns.shape == (5, 100) and (returns == 0).sum() == never
        assert np.median(returns[returns > 0]) == median and 81.9 < returns.mean() / 0.3 < 82.3
    stuck = []
    for drive, _ in RESULTS["Diffusion-QL"]:
        stuck += list(drive["paths"][~drive["rewards"].any(axis=1), -1])
    assert np.allclose(stuck, [[-0.6, -0.4]], atol=0.02)
    assert 86 <= np.mean([run["score"] for _, run in RESULTS["Diffusion-QL"]]) < 87
