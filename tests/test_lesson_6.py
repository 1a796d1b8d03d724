"""Lesson 6: its cells run in any order, its checks say right, and what its text claims is so."""

import numpy as np
import pytest
from lessons import ROOT, run_twice, seeds

from sweep import collect
from tutorials.experiments.lesson_6 import read_rules

TUNING = ROOT / "results" / "lesson_6"


@pytest.mark.slow
def test_every_check_of_the_lesson_says_right_and_its_pictures_say_what_the_text_says():
    lesson, printed = run_twice(6)
    assert printed.count("right.") == 2 * 4
    assert 0.68 < lesson["on_mode"][1] < 0.8 and max(lesson["on_mode"][i] for i in (2, 3, 4, 5)) < 0.1
    assert lesson["of_guesses"] < 0.2 < 0.45 < lesson["of_samples"]
    assert lesson["values"][0.5] == pytest.approx(2.38, abs=0.03)
    assert 4.4 < lesson["values"][0.97] < 5
    assert lesson["earned"][1].mean() > lesson["earned"][1000].mean() + 15
    assert lesson["believed"].max() > 1 / (1 - 0.97)  # more than anybody can earn
    corner, middle = lesson["believed"][0, -1], lesson["believed"][8, 28]
    assert corner > middle + 1  # at (3.4, -2.4) and at (3, -2)


def test_on_the_bandit_the_rule_hides_the_policy():
    def reward(method, rule):
        return seeds("q_learning", method, f"reward, {rule}")

    assert reward("EDP", "a sample").max() < 3.1 < 4.4 < reward("Diffusion-QL", "a sample").min()
    assert reward("IDQL", "a sample").max() < 1.2
    for method in ("Diffusion-QL", "EDP", "FQL", "IDQL"):
        assert reward(method, "best of 50").min() > 4.97
    assert seeds("q_learning", "IDQL", "best_corner").mean() == pytest.approx(1 / 8, abs=0.01)


def test_how_the_knobs_were_turned():
    def tried(name):
        return collect(TUNING / name)["final"]

    assert all(85 < tried(f"EDP_{eta}").mean() < 89 for eta in (0.5, 1, 2, 4, 8, 16))
    fql = [round(tried(f"FQL_{alpha}").mean()) for alpha in (0.03, 0.1, 0.3, 1, 10)]
    assert fql == [27, 89, 48, 44, 43]
    assert [round(tried(f"IDQL_{e}").mean()) for e in (0.3, 0.7)] == [85, 52]


def test_every_rule_on_two_roads():
    rules = read_rules(ROOT / "results" / "two-roads")
    for rule, rows in rules.groupby("rule"):
        print(rule, rows)
