"""Lesson 6: its cells run in any order, its checks say right, and what its text claims is so."""

import pytest
from lessons import ROOT, run_twice, seeds

from sweep import collect
from tutorials.experiments.lesson_6 import PARKS, read_rules

TUNING = ROOT / "results" / "lesson_6"
METHODS = ["DiffusionQL", "EDP", "FQL", "IDQL"]


@pytest.mark.slow
def test_what_the_lesson_computes():
    lesson, printed = run_twice(6)
    assert printed.count("right.") == 2 * 4
    on_mode = [lesson["on_mode"][i] for i in (1, 2, 3, 4, 5)]
    assert 0.7 < on_mode[0] < 0.8 and max(on_mode[1:]) < 0.1
    assert 4.7 < lesson["values"][0.97] < 4.9
    assert lesson["scores"][1] > lesson["scores"][1000] + 15
    assert lesson["tested"][PARKS] == max(lesson["tested"].values())
    believed = lesson["believed"]
    assert 37 < believed[0.7].max() < 38 and believed[0.3].max() < 33.3 < believed[0.7][8, 28]
    for e, sign in ((0.7, 1), (0.3, -1)):  # the corner, (3.4, -2.4), against the goal, (3, -2)
        assert sign * (believed[e][0, -1] - believed[e][8, 28]) > 2
    assert all(0.04 < spread < 0.12 for spread in lesson["spread"].values())
    state = lesson["dataset"].transitions.state
    assert len(state) == 12_000 and not ((state[:, 0] > 3.2) & (state[:, 1] < -2.2)).any()


def test_on_the_bandit_the_rule_hides_the_policy():
    assert seeds("q_learning", "EDP", "reward, a sample").max() < 3.1
    assert seeds("q_learning", "Diffusion-QL", "reward, a sample").min() > 4.4
    assert seeds("q_learning", "IDQL", "reward, a sample").max() < 1.2
    assert seeds("q_learning", "FQL", "reward, a sample").mean() == pytest.approx(1.86, abs=0.01)
    for method in ("Diffusion-QL", "EDP", "FQL", "IDQL"):
        assert seeds("q_learning", method, "reward, best of 50").mean() > 4.985
    assert seeds("q_learning", "IDQL", "best_corner").mean() == pytest.approx(1 / 8, abs=0.01)


def test_how_the_knobs_were_turned():
    names = [f"EDP_{eta}" for eta in (0.5, 1, 2, 4, 8, 16)]
    assert all(85 < collect(TUNING / name)["final"].mean() < 89 for name in names)
    names = ["FQL_0.03", "FQL_0.1", "FQL_0.3", "FQL_1", "FQL_10", "IDQL_0.3", "IDQL_0.7"]
    means = [round(collect(TUNING / name)["final"].mean()) for name in names]
    assert means == [27, 89, 48, 44, 43, 85, 52]


def test_every_rule_on_two_roads():
    rules = read_rules(ROOT / "results" / "two-roads").set_index(["rule", "method", "seed"])
    means = rules["score"].groupby(["rule", "method"]).mean().round()
    assert list(means["a sample"][[*METHODS, "BCDiffusion"]]) == [71, 87, 88, 54, 53]
    assert list(means["softmax of 50"][METHODS]) == [87, 90, 89, 82]
    assert list(means["best of 50"][METHODS]) == [96, 91, 77, 75]
    assert list(means[PARKS][METHODS]) == [97, 99, 95, 84]
    assert len(rules.loc["best of 50"].loc[METHODS]) == 20
    assert (rules.loc["best of 50"].loc[METHODS, "short"] == 1).all()
    traced = read_rules(TUNING / "IDQL_0.7").set_index(["rule", "seed"])["score"].round()
    assert list(traced[["softmax of 50", "best of 50", PARKS]]) == [86, 71, 68, 42, 94, 59]
    traced = read_rules(TUNING / "IDQL_0.3").set_index(["rule", "seed"])["score"].round()
    assert list(traced[["best of 50", PARKS]]) == [92, 86, 96, 77]
