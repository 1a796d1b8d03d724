"""Lesson 7: its cells run in any order, its checks say right, and what its text claims is so."""

import re

import lessons
import numpy as np
import pytest
from lessons import ROOT, run_twice

from sweep import collect
from tutorials import run_folder
from tutorials.experiments import lesson_7

RUNS = ROOT / "results" / "lesson_7"


@pytest.mark.slow
def test_what_the_lesson_computes():
    lesson, printed = run_twice(7)
    assert printed.count("right.") == 2 * 5
    tests = {name: test[1:] for name, test in lesson["tests"].items()}
    assert tests["healthy"] == tests["fork-a"] == [True, True]
    assert tests["fork-b"] == [False, True] and tests["fork-c"] == [True, False]
    assert lesson["tests"]["fork-a"][0] > 4 * lesson["tests"]["healthy"][0]
    assert lesson["p"] == pytest.approx(0.059, abs=0.0005)
    cents = lesson["cents"]
    assert cents[100] > cents[1] + 8 and lesson["sample"] < 70
    seen = lesson["table"]
    assert not seen.loc[["healthy", "fork-b"]].any(axis=None)
    assert list(seen.columns[seen.loc["timeouts"]]) == ["order", "terminals"]
    assert seen.drop(index=["healthy", "fork-b"]).any(axis=1).all()


def scores(name):
    runs = collect(RUNS / name)
    return runs.sort_values("seed")["final"].to_numpy()


def test_what_the_patients_score():
    means = [round(scores(name).mean()) for name in ("healthy", "timeouts", "cents", "bonus")]
    assert means == [86, 61, 67, 73]
    assert scores("eta-100").round().tolist() == [20, 20, 37]
    assert scores("layer-norm").round().tolist() == [95, 113, 101]
    assert scores("fork-a").tolist() == [0, 0, 0]
    assert scores("fork-b").round().tolist() == [87, 75, 74]
    assert scores("fork-c").round().tolist() == [85, 81, 75]


def test_what_the_curves_show():
    def rows(name):
        runs = [run_folder.read_progress(RUNS / name / "two-roads" / str(i)) for i in range(3)]
        return {column: np.array([run[column] for run in runs]) for column in runs[0]}

    healthy, clock, strong = rows("healthy"), rows("timeouts"), rows("eta-100")
    score = healthy["score"]
    assert score[:, 3].min() > 85 and 14.5 < (score[:, 3] - score[:, 4]).max() < 15
    assert np.ptp(score[:, -3:], axis=1).max() < 5.5
    ratio = clock["critic_loss"][:, -1] / healthy["critic_loss"][:, -1]
    assert ratio.min() > 100 and clock["bc_loss"][:, -1].max() < 0.061
    assert strong["bc_loss"][:, 0].min() > 3 * healthy["bc_loss"][:, 0].max()
    assert (strong["q"][:, 1] < 1 / 0.03).all() and (strong["q"][:, 2] > 1 / 0.03).all()
    assert (strong["critic_loss"][:, 2] < 1).all() and strong["critic_loss"][:, -1].min() > 5000
    layer_norm = rows("layer-norm")
    assert layer_norm["q"].max() < 25
    far = (layer_norm["bc_loss"] / healthy["bc_loss"])[:, -1]
    assert 3.4 < far.min() and far.max() < 4.2
    assert rows("fork-b")["bc_loss"][:, 0].max() < 0.2 < healthy["bc_loss"][:, 0].min() - 0.015
    assert rows("fork-c")["bc_loss"][:, 0].max() < 0.209
    bonus = rows("bonus")
    assert 0.195 < bonus["bc_loss"][:, 0].min() <= bonus["bc_loss"][:, 0].max() < 0.2005
    for column in ("q", "critic_loss"):  # before ema_start no critic hears of the policy
        assert strong[column][:, 0] == pytest.approx(healthy[column][:, 0], rel=1e-3)
    assert 20 <= bonus["score"][:, 1:].min().round() and bonus["score"].max().round() == 93
    assert bonus["critic_loss"][:, -1].min() > 1000 * healthy["critic_loss"][:, -1].min()
    assert rows("fork-c")["q"][0, 0].round() == 18 and healthy["q"][:, 0].max() < 3


@pytest.mark.slow
def test_its_runs_are_made_by_a_command_that_goes_on(run_main, monkeypatch):
    options = ["--out", "runs", "--runs", "healthy", "timeouts", "--seeds", 0, "--eval-every", 2]
    small = dict(eval_episodes=1, hidden_dim=16, batch_size=8, compile="off")

    def short(data, method, settings):
        return data, method, {**settings, **small}

    for name, run in lesson_7.RUNS.items():
        monkeypatch.setitem(lesson_7.RUNS, name, short(*run))
    assert run_main(lesson_7, *options, "--steps", 2)[0] == 0
    trained = []
    monkeypatch.setattr(lesson_7, "train", lambda *given: trained.append(given))
    assert run_main(lesson_7, *options, "--steps", 2)[0] == 0 and not trained


def test_what_the_lesson_printed_about_acting():
    outputs = [output for cell in lessons.read(7).cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    cents, recovered = map(
        int, re.search(r"cents: (\d+) .*, (\d+) by that of 100 Q", said).groups()
    )
    sample = int(re.search(r"fork B by a mere sample: (\d+)", said)[1])
    assert cents < 70 and recovered > 82 and sample < 58
