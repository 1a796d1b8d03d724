"""The committed runs: their tables can be made again without training, and the claims hold."""

import json
from pathlib import Path

import numpy as np
import pytest

from sweep import collect, make_table
from toy_experiments import behavior_cloning, cvae_settings, expressiveness, n_timesteps, pictures
from toy_experiments import q_learning as with_reward
from toy_experiments.bandit import make_data, reward_of
from tutorials.experiments import lesson_3, lesson_4

RESULTS = Path(__file__).resolve().parents[1] / "results"
COMMANDS = {
    "behavior_cloning": behavior_cloning,
    "n_timesteps": n_timesteps,
    "cvae_settings": cvae_settings,
    "q_learning": with_reward,
    "expressiveness": expressiveness,
    "lesson_3": lesson_3,
    "lesson_4": lesson_4,
}
DATA_REWARD = 2.375  # the mean of the four corners' rewards


def values(experiment, row, measure):
    """A measure of the five seeds of a row (5,)."""
    found = [numbers[measure] for _, numbers in pictures.read_row(RESULTS / experiment, row)]
    assert len(found) == 5
    return np.array(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_committed_table_is_that_of_the_runs(name, monkeypatch):
    made = {}
    monkeypatch.setattr(pictures, "train", lambda rows, options: None)
    monkeypatch.setattr(pictures, "save", lambda folder, figure, text: made.update(text=text))
    monkeypatch.setattr("sys.argv", [name, "--out", str(RESULTS / name)])
    COMMANDS[name].main()
    assert made["text"] == (RESULTS / name / "table.md").read_text()


def test_runs_say_how_they_were_made():
    for path in RESULTS.rglob("config.json"):
        config = json.loads(path.read_text())
        assert config["versions"]["torch"] and not Path(config["settings"]["out"]).is_absolute()
        assert path.parent.name == str(config["settings"]["seed"])


def test_cloning():
    def on_mode(row):
        return values("behavior_cloning", row, "on_mode")

    assert on_mode("diffusion").min() > 0.98
    assert on_mode("Gaussian").max() < 0.06
    assert on_mode("mixture of 8").max() > 0.9 and on_mode("mixture of 8").min() < 0.1
    assert on_mode("CVAE, repaired").min() > 0.78 and on_mode("CVAE, repaired").max() < 0.81
    assert values("behavior_cloning", "MMD", "smallest_corner").min() > 0.03
    exact = [0.0, 0.49, 0.93, 1.0]  # what endless data would teach, by n_timesteps's table
    for n, most in zip((2, 5, 10, 50), exact, strict=True):
        learned = values("n_timesteps", f"diffusion, N = {n}", "on_mode").mean()
        assert most - 0.05 < learned < most + 0.01


def test_what_ruins_the_cvae():
    def on_mode(settings):
        return values("cvae_settings", settings, "on_mode")

    assert on_mode("KL weight 0.5, clip 0.5").min() < 0.3
    assert on_mode("KL weight 0.5, no clip").min() > 0.65
    for settings in cvae_settings.ROWS:
        assert on_mode(settings).max() < 0.82  # threads remain


def test_with_reward():
    def reward(row, measure="reward"):
        return values("q_learning", row, measure)

    assert reward_of(make_data().action).mean().item() == pytest.approx(DATA_REWARD, abs=0.01)
    for method in ("TD3+BC", "Gaussian with Q", "BCQ", "BEAR", "FQL", "IDQL"):
        assert reward(method).max() < DATA_REWARD < reward("EDP").min(), method
    for method in ("AWR", "weighted diffusion"):
        assert reward(method).min() > 4.98 > reward("Diffusion-QL").max()
    assert reward("Diffusion-QL", "best_corner").min() > 0.87
    assert reward("IDQL", "score").min() > 4.98  # by its own rule, though it clones


def test_when_a_policy_needs_to_be_expressive():
    def reward(method, top_left):
        return values("expressiveness", f"{method}, top left pays {top_left}", "score")

    cold = "AWR, temperature 0.05"
    assert reward("AWR", "3").min() > 4.98 and reward(cold, "4.5").min() > 4.98
    for method in ("AWR", cold):
        assert reward(method, "5").max() < DATA_REWARD < reward("Diffusion-QL", "5").min()
    assert reward("weighted diffusion", "5").min() > 4


def test_two_roads_in_the_readme():
    front = (RESULTS.parent / "README.md").read_text()
    runs = collect(RESULTS / "two-roads")
    assert set(runs.groupby("method").size()) == {5}
    for row in make_table(runs).to_dict("records"):
        assert row["final"] in front, row["method"]


def test_kitchen_is_the_table_of_its_runs_and_says_what_the_readme_says():
    runs = collect(RESULTS / "kitchen")
    (row,) = make_table(runs).to_dict("records")
    text = (RESULTS / "kitchen" / "table.md").read_text()
    assert all(row[selection] in text for selection in ("final", "online", "offline"))
    assert runs["final"].max() < 75 < runs["online"].min()
    front = (RESULTS.parent / "README.md").read_text()
    section = front[front.index("### kitchen-complete") : front.index("### The bandit")]
    for selection in ("final", "online", "offline"):
        assert all(f"| {score:.1f} " in section for score in runs[selection])
