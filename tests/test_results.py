"""The committed runs: their tables can be made again without training, and the claims hold."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from sweep import collect, make_table
from toy_experiments import (
    behavior_cloning,
    cvae_settings,
    expressiveness,
    n_timesteps,
    pictures,
    q_learning,
)
from tutorials.experiments import lesson_3, lesson_4

RESULTS = Path(__file__).resolve().parents[1] / "results"
FRONT = (RESULTS.parent / "README.md").read_text()
DATA_REWARD = 2.375  # the mean of the four corners' rewards


@pytest.fixture
def remake(monkeypatch):
    """remake(module): its command makes the committed table again, of the committed runs.

    Returns a function of a row and a measure, whose values (5,) are those of the five seeds.
    """

    def remake(module):
        folder = RESULTS / module.__name__.split(".")[-1]
        table = Mock(wraps=pictures.table)
        save = Mock()
        monkeypatch.setattr(pictures, "table", table)
        monkeypatch.setattr(pictures, "save", save)
        monkeypatch.setattr(pictures, "train", Mock())
        monkeypatch.setattr(module, "draw", Mock())
        monkeypatch.setattr("sys.argv", [folder.name, "--out", str(folder)])
        module.main()
        assert save.call_args.args[-1] == (folder / "table.md").read_text()
        results = table.call_args.args[0]

        def values(row, measure):
            found = np.array([numbers[measure] for _, numbers in results[row]])
            assert len(found) == 5
            return found

        return values

    return remake


def test_cloning(remake):
    values = remake(behavior_cloning)
    assert values("diffusion", "on_mode").min() > 0.98
    assert values("Gaussian", "on_mode").max() < 0.06
    mixture = values("mixture of 8", "on_mode")
    assert mixture.min() < 0.1 and mixture.max() > 0.9
    repaired = values("CVAE, repaired", "on_mode")
    assert repaired.min() > 0.78 and repaired.max() < 0.81
    assert values("MMD", "smallest_corner").min() > 0.03


def test_how_many_steps_cloning_needs(remake):
    values = remake(n_timesteps)
    exact = {2: 0.0, 5: 0.49, 10: 0.93, 50: 1.0}  # what endless data would teach
    for n, most in exact.items():
        learned = values(f"diffusion, N = {n}", "on_mode").mean()
        assert most - 0.05 < learned < most + 0.01


def test_what_ruins_the_cvae(remake):
    values = remake(cvae_settings)
    assert values("KL weight 0.5, clip 0.5", "on_mode").min() < 0.3
    assert values("KL weight 0.5, no clip", "on_mode").min() > 0.65
    for row in cvae_settings.ROWS:
        assert values(row, "on_mode").max() < 0.82  # threads remain


def test_with_reward(remake):
    values = remake(q_learning)
    assert values("EDP", "reward").min() > DATA_REWARD
    for method in ("TD3+BC", "Gaussian with Q", "BCQ", "BEAR", "FQL", "IDQL"):
        assert values(method, "reward").max() < DATA_REWARD, method
    for method in ("AWR", "weighted diffusion"):
        assert values(method, "reward").min() > 4.98 > values("Diffusion-QL", "reward").max()
    assert values("Diffusion-QL", "best_corner").min() > 0.87
    assert values("IDQL", "score").min() > 4.98  # by its own rule, though it clones


def test_when_a_policy_needs_to_be_expressive(remake):
    values = remake(expressiveness)

    def earned(method, top_left):
        return values(f"{method}, top left pays {top_left}", "score")

    cold = "AWR, temperature 0.05"
    assert earned("AWR", "3").min() > 4.98 and earned(cold, "4.5").min() > 4.98
    for method in ("AWR", cold):
        assert earned(method, "5").max() < DATA_REWARD < earned("Diffusion-QL", "5").min()
    assert earned("weighted diffusion", "5").min() > 4


@pytest.mark.parametrize("module", [lesson_3, lesson_4], ids=["lesson 3", "lesson 4"])
def test_the_runs_of_a_lesson(remake, module):
    """test_lesson_3.py and test_lesson_4.py have what the lessons say of them."""
    remake(module)


BANDIT = {  # the experiment and the row that hold a method's runs on the bandit, with N = 5
    "BCGaussian": ("behavior_cloning", "Gaussian"),
    "BCDiffusion": ("n_timesteps", "diffusion, N = 5"),
    "TD3BC": ("q_learning", "TD3+BC"),
    "GaussianQL": ("q_learning", "Gaussian with Q"),
    "AWR": ("q_learning", "AWR"),
    "EDP": ("q_learning", "EDP"),
    "FQL": ("q_learning", "FQL"),
    "IDQL": ("q_learning", "IDQL"),
    "DiffusionQL": ("q_learning", "Diffusion-QL"),
}


def test_the_readmes_table_of_methods_is_that_of_the_runs():
    runs = collect(RESULTS / "two-roads")
    assert set(runs.groupby("method").size()) == {5}
    roads = {row["method"]: row for row in make_table(runs).to_dict("records")}
    assert set(roads) == set(BANDIT) - {"AWR"}
    for method, (experiment, row) in BANDIT.items():
        bandit = pictures.summary(pictures.read_row(RESULTS / experiment, row), "score", ".2f")
        cells = [f"`{method}`", bandit]
        if method in roads:
            cells += [roads[method]["final"], roads[method]["95 % of final"]]
        assert "| " + " | ".join(cells) + " |" in FRONT


def test_kitchen_is_the_table_of_its_runs_and_says_what_the_readme_says():
    runs = collect(RESULTS / "kitchen")
    rows = {row["method"]: row for row in make_table(runs).to_dict("records")}
    committed = (RESULTS / "kitchen" / "table.md").read_text()
    section = FRONT[FRONT.index("### kitchen-complete") : FRONT.index("### What others measured")]
    diffusion = runs[runs["method"] != "BCGaussian"]
    assert diffusion["final"].max() < 75 and diffusion["online"].min() > 73
    with_q = runs[runs["method"] == "DiffusionQL"]
    assert rows["BCDiffusion"]["seeds"] == rows["BCGaussian"]["seeds"] == 5
    for cell in (
        "54.1 ± 14.2 (*online* 84.9 ± 6.0)",
        "45.8 ± 11.0 (*online* 59.0 ± 6.9)",
        "46.9 ± 25.4 (two seeds; *online* 85.6 ± 5.1)",
    ):
        assert f"| {cell} |" in FRONT
    for selection in ("final", "online", "offline"):
        assert all(row[selection] in committed for row in rows.values())
        assert all(f"{score:.1f}" in section for score in with_q[selection])
        assert rows["BCDiffusion"][selection] in section


def test_velocities_ruin_a_diffusion_clone_and_no_gaussian_one():
    runs = collect(RESULTS / "velocities")
    rows = {row["method"]: row for row in make_table(runs).to_dict("records")}
    committed = (RESULTS / "velocities" / "table.md").read_text()
    assert all(row["final"] in committed and row["seeds"] == 3 for row in rows.values())
    finals = {method: list(group["final"]) for method, group in runs.groupby("method")}
    assert max(finals["BCDiffusion"]) < 8 and min(finals["DiffusionOfPositions"]) > 31
    for method in ("BCDiffusion", "DiffusionOfPositions"):
        first, second, third = (f"{score:.1f}" for score in finals[method])
        assert f"{first}, {second} and {third} with" in FRONT
    gaussian = [np.mean(finals[method]) for method in ("BCGaussian", "GaussianOfPositions")]
    assert "Gaussian clones {:.1f} and {:.1f} on average".format(*gaussian) in FRONT


def test_runs_say_how_they_were_made():
    for path in RESULTS.rglob("config.json"):
        config = json.loads(path.read_text())
        assert config["versions"]["torch"] and not Path(config["settings"]["out"]).is_absolute()
        assert path.parent.name == str(config["settings"]["seed"])
