"""The long runs of the tutorials: each script makes its runs, here of a few steps."""

import json
from pathlib import Path

import pytest

import diffusion_ql
from tutorials.experiments import failures, forks, locomotion, q_guidance

pytestmark = pytest.mark.slow
SHORT = dict(steps=4, eval_every=2, eval_episodes=1, hidden_dim=16, batch_size=8)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Results go to the test's own folder, and nothing is compiled."""
    for module in (failures, q_guidance, locomotion):
        monkeypatch.setattr(module, "RESULTS", Path("results").resolve())
    monkeypatch.setattr(forks.Results, "path", Path("forks.json").resolve())
    monkeypatch.setattr(forks, "compile_losses", lambda agent: None)
    monkeypatch.setattr(diffusion_ql, "compile_losses", lambda agent: None)


def test_failures(monkeypatch, run_main):
    monkeypatch.setattr(failures, "BUDGET", {**failures.BUDGET, **SHORT})
    names = ("healthy", "timeouts", "fork-a")
    options = ["--runs", *names, "--seeds", 0, "--work", "work"]
    assert run_main(failures, *options)[0] == 0
    for name in names:
        assert json.loads(Path("results", name, "0/score.json").read_text())["episodes"] == 40


def test_q_guidance(monkeypatch, run_main):
    monkeypatch.setattr(q_guidance, "ROADS_STEPS", 100)
    monkeypatch.setattr(q_guidance, "ROADS_SEEDS", (0,))
    assert run_main(q_guidance, "--part", "roads")[0] == 0
    assert list(q_guidance.read("roads")) == list(q_guidance.VARIANTS)


def test_forks(monkeypatch, run_main):
    monkeypatch.setattr(forks, "PENDULUM_STEPS", 2)
    monkeypatch.setattr(forks, "PENDULUM_EPISODES", 2)
    monkeypatch.setattr(forks, "PENDULUM_SEEDS", (0,))
    monkeypatch.setattr(forks, "BANDIT_STEPS", 2)
    assert run_main(forks, "--part", "pendulum")[0] == 0
    assert len(forks.Results().content["pendulum"]) == 6


def test_locomotion(monkeypatch, run_main):
    monkeypatch.setattr(locomotion, "SETTINGS", {**locomotion.SETTINGS, **SHORT})
    monkeypatch.setattr(locomotion, "EPISODES", 1)
    monkeypatch.setattr(locomotion, "SEEDS", (1,))
    monkeypatch.setattr(locomotion, "SEED_STEPS", 2)
    monkeypatch.setattr(locomotion, "REPETITIONS", 1)
    assert run_main(locomotion)[0] == 0
    assert len(json.loads(Path("results/seeds.json").read_text())["1"]) == 5
