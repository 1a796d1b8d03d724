"""The forks of notebook 5: they train, resume and act, and their data is what the notebook says."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from conftest import TINY

from diffusion_ql import Args, Batch, DiffusionQL, train
from tutorials.experiments import forks as experiments
from tutorials.forks import EDP, FQL, IDQL, RULES, choose
from tutorials.pendulum import controller, make_pendulum_data, play

ENV = "test/pendulum-v0"
FORKS = {"EDP": EDP, "FQL": partial(FQL, alpha=3.0), "IDQL": partial(IDQL, expectile=0.9)}


def checkpoint(folder):
    return torch.load(f"{folder}/checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("name", FORKS)
def test_fork_trains_and_resumes(name, pendulum):
    train(Args(env=ENV, out="whole", **TINY), agent_class=FORKS[name])
    train(Args(env=ENV, out="part", **{**TINY, "steps": 10}), agent_class=FORKS[name])
    train(Args(env=ENV, resume="part", **TINY), agent_class=FORKS[name])
    whole, part = checkpoint("whole"), checkpoint("part")
    for weights in whole.keys() - {"_extra_state"}:
        assert torch.equal(whole[weights], part[weights]), weights


def test_the_critics_of_idql_never_ask_the_policy():
    agent = IDQL(2, 2, Args(device="cpu", hidden_dim=8))
    agent.actor = agent.ema_actor = None
    loss, _ = agent.critic_loss(Batch(*[torch.rand(4, width) for width in (2, 2, 2, 1, 1)]))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", FORKS)
def test_actions_by_every_rule(name):
    agent = FORKS[name](2, 2, Args(device="cpu", hidden_dim=8))
    for rule in RULES:
        actions = choose(agent, torch.zeros(5, 2), rule)
        assert actions.shape == (5, 2) and actions.abs().max() <= 1


def test_best_of_50_has_the_largest_q():
    torch.manual_seed(0)
    agent = DiffusionQL(2, 2, Args(device="cpu", hidden_dim=8))
    states = torch.randn(20, 2)
    q = {}
    for rule in RULES:
        actions = choose(agent, states, rule)
        q[rule] = torch.minimum(*agent.critic_target(states, actions)).mean()
    assert q["best of 50"] > q["a sample"] and q["best of 50"] > q["softmax of 50"]


def test_the_pendulums_controller_swings_up():
    _, returns = play(controller, episodes=20)
    assert returns.mean() > -250
    _, idle = play(lambda state: 0.0, episodes=20)
    assert idle.mean() < -800
    dataset, with_noise = make_pendulum_data(episodes=5)
    assert dataset.transitions.not_done.all() and with_noise.mean() > -400
    assert np.isfinite(with_noise).all()


@pytest.fixture(scope="module")
def results():
    return experiments.Results().content


def test_committed_runs_are_those_of_the_script(results):
    seeds = [str(seed) for seed in experiments.PENDULUM_SEEDS]
    tuned = results["pendulum tuning"]
    best = max(tuned, key=lambda name: np.mean(tuned[name]["softmax of 50"]))
    untuned = [name for name in experiments.PENDULUM_RUNS if name not in tuned]
    assert list(results["pendulum"]) == [*untuned, best]
    for runs in results["pendulum"].values():
        assert list(runs) == seeds
        for run in runs.values():
            assert {len(returns) for returns in run.values()} == {experiments.PENDULUM_EPISODES}
    for method, (knob, values) in experiments.ROADS_KNOBS.items():
        scores = results["roads tuning"][method]
        assert set(scores) == {str(value) for value in values}
        best = float(max(scores, key=scores.get))
        runs = results["roads"][f"{method}, {knob} {best:g}"]
        assert list(runs) == [str(seed) for seed in experiments.ROADS_SEEDS]
        for run in runs.values():
            for numbers in run.values():
                assert sum(numbers[road] for road in ("short", "long", "stuck")) == pytest.approx(1)


def test_diffusion_ql_on_two_roads_is_that_of_toy_experiments(results):
    """Both were trained by sweep.py with the same settings and seeds, and act by the softmax."""
    figures = experiments.HERE.parents[1] / "toy_experiments" / "figures"
    rows = json.loads((figures / "two_roads.json").read_text())
    here = results["roads"]["Diffusion-QL, eta 1"].values()
    scores = [run["softmax of 50"]["score"] for run in here]
    assert scores == pytest.approx([numbers["score"] for numbers in rows["Diffusion-QL"]])
