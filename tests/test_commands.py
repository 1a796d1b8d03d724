"""Every command of toy_experiments/ and tutorials/making/ once, with a few steps: it trains, draws,
and writes a table; and the same command again trains nothing."""

import pytest
import torch

from diffusion_ql import load_agent
from toy_experiments import (
    behavior_cloning,
    benchmark,
    cvae_settings,
    expressiveness,
    few_steps,
    n_timesteps,
    pictures,
    q_learning,
    two_roads_figure,
)
from tutorials.making import film, playground

pytestmark = pytest.mark.slow
CLONING = [behavior_cloning, cvae_settings, n_timesteps]
WITH_REWARD = [q_learning, expressiveness, few_steps]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Pictures of 50 actions are drawn as fast as they can be."""
    actions_of = pictures.actions_of
    monkeypatch.setattr(pictures, "actions_of", lambda folder: actions_of(folder, n=50))


@pytest.mark.parametrize("command", CLONING + WITH_REWARD)
def test_an_experiment_trains_draws_and_tabulates(command, run_main, tmp_path):
    options = ["--steps", "2", "--seeds", "3", "--out", tmp_path / "here"]
    code, out, err = run_main(command, *options)
    assert code == 0, err
    assert (tmp_path / "here/figure.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "here/table.md").read_text()
    assert table in out
    for row in command.ROWS:
        assert f"| {row} |" in table
    code, again, err = run_main(command, *options)
    count = len(command.ROWS)
    assert code == 0 and f"{count} runs, {count} of them are done" in again
    assert (tmp_path / "here/table.md").read_text() == table


def test_two_roads(run_main, monkeypatch, tmp_path):
    few = {row: two_roads_figure.METHODS[row] for row in ("Gaussian cloning", "FQL")}
    monkeypatch.setattr(two_roads_figure, "METHODS", few)
    options = ["--steps", "2", "--seeds", "0", "1", "--out", tmp_path / "here"]
    code, out, err = run_main(two_roads_figure, *options)
    assert code == 0, err
    assert (tmp_path / "here/figure.png").read_bytes().startswith(b"\x89PNG")
    roads = (tmp_path / "here/roads.md").read_text()
    for row in ("demonstrations", "uniformly random", *few):
        assert f"| {row} |" in roads


def test_the_playground_is_made_of_runs(run_main, monkeypatch, tmp_path):
    for name, value in {"ETAS": (0.0, 1.0), "N_TIMESTEPS": (2,), "MOMENTS": (2, 4)}.items():
        monkeypatch.setattr(playground, name, value)
    options = ["--steps", "4", "--out", tmp_path / "runs", "--page", tmp_path / "page.html"]
    monkeypatch.setattr(playground, "EVAL_EVERY", 2)
    code, _, err = run_main(playground, *options)
    assert code == 0, err
    networks = playground.networks_of((tmp_path / "page.html").read_text())
    committed = playground.networks_of(playground.PAGE.read_text())
    assert networks.keys() == committed.keys() and networks["shapes"] == committed["shapes"]
    policy = playground.policy_from_text(networks["diffusion"]["2"][1][1], 2)
    agent = load_agent(tmp_path / "runs/diffusion_eta=1.0_N=2/DiffusionQL/bandit/0", 4)
    x, t = torch.randn(12, 2), torch.randint(2, (12,))
    expected = agent.actor.model(x, t, torch.zeros(12, 2))
    torch.testing.assert_close(policy.model(x, t, x[:, :0]), expected, atol=0.01, rtol=0)


def test_the_film(run_main, tmp_path):
    code, out, err = run_main(film, "--out", tmp_path)
    assert code == 0, err
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF")


def test_the_benchmark(run_main):
    code, out, err = run_main(benchmark, "--rounds", "1", "--no-compile", "--hidden-dim", "16")
    assert code == 0, err
    assert "| diffusion_ql.py |" in out
