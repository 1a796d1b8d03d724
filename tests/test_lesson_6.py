"""Lesson 6: its cells run in any order, its checks say right, and what its text claims is so."""

import pytest
from lessons import ROOT, run_twice, seeds

from sweep import collect
from tutorials.experiments.lesson_6 import PARKS, read_rules
from tutorials.helpers import RULES

TUNING = ROOT / "results" / "lesson_6"


@pytest.mark.slow
def test_every_check_of_the_lesson_says_right_and_its_pictures_say_what_the_text_says():
    lesson, printed = run_twice(6)
    assert printed.count("right.") == 2 * 4
    assert 0.7 < lesson["on_mode"][1] < 0.8 and lesson["on_mode"][2] < 0.1
    assert lesson["of_guesses"] < 0.2 < 0.45 < lesson["of_samples"]
    assert lesson["values"][0.5] == pytest.approx(2.38, abs=0.03)
    assert 4.4 < lesson["values"][0.97] < 5
    assert lesson["scores"][1] > lesson["scores"][1000] + 15
    assert lesson["tested"][PARKS] > max(lesson["tested"][rule] for rule in RULES[1:])
    believed = lesson["believed"]
    assert 37 < believed[0.7].max() < 38 and believed[0.3].max() < 33.3 < believed[0.7][8, 28]
    for e, sign in ((0.7, 1), (0.3, -1)):  # the corner, (3.4, -2.4), against the goal, (3, -2)
        assert sign * (believed[e][0, -1] - believed[e][8, 28]) > 2
    state = lesson["dataset"].transitions.state
    assert not ((state[:, 0] > 3.2) & (state[:, 1] < -2.2)).any()


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
    means = rules.groupby(["rule", "method"])["score"].mean().round()
    names = ["DiffusionQL", "EDP", "FQL", "IDQL"]
    assert [means["a sample", name] for name in [*names, "BCDiffusion"]] == [71, 87, 88, 54, 53]
    assert [means["softmax of 50", name] for name in names] == [87, 90, 89, 82]
    assert [means["best of 50", name] for name in names] == [96, 91, 77, 75]
    assert [means[PARKS, name] for name in names] == [97, 99, 95, 84]
    best = rules[(rules["rule"] == "best of 50") & rules["method"].isin(names)]
    assert len(best) == 20 and (best["short"] == 1).all()
    for name, lowest, highest in (("FQL", 64, 98), ("IDQL", 40, 90)):
        scores = best[best["method"] == name]["score"]
        assert (round(scores.min()), round(scores.max())) == (lowest, highest)


def test_the_trace():
    rules = read_rules(TUNING / "IDQL_0.7").set_index(["seed", "rule"])
    order = [*RULES[1:], PARKS]
    assert [round(rules.loc[(10, rule), "score"]) for rule in order] == [86, 68, 94]
    assert [round(rules.loc[(11, rule), "score"]) for rule in order] == [71, 42, 59]
    assert (rules.loc[[(10, "best of 50"), (11, "best of 50")], "short"] == 1).all()
    assert (
        rules.loc[(11, "best of 50"), "arrives"] > rules.loc[(11, "softmax of 50"), "arrives"] + 3
    )
