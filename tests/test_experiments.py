"""The long runs of the tutorials: each script makes its runs, here of a few steps."""

import json
from pathlib import Path

import pytest

import diffusion_ql
from tutorials.experiments import failures

pytestmark = pytest.mark.slow
SHORT = dict(steps=4, eval_every=2, eval_episodes=1, hidden_dim=16, batch_size=8)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Results go to the test's own folder, and nothing is compiled."""
    monkeypatch.setattr(failures, "RESULTS", Path("results").resolve())
    monkeypatch.setattr(diffusion_ql, "compile_losses", lambda agent: None)


def test_failures(monkeypatch, run_main):
    monkeypatch.setattr(failures, "BUDGET", {**failures.BUDGET, **SHORT})
    names = ("healthy", "timeouts", "fork-a")
    options = ["--runs", *names, "--seeds", 0, "--work", "work"]
    assert run_main(failures, *options)[0] == 0
    for name in names:
        assert json.loads(Path("results", name, "0/score.json").read_text())["episodes"] == 40
