"""Proof that the algorithm is the authors': the numbers of their released implementation, to 1e-5 relative.

official_numbers.json says where they come from. Inputs are rebuilt here from NumPy's frozen RandomState.
"""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from diffusion_ql import REWARD_TRANSFORMS, Args, Batch, DiffusionQL, Draws, vp_schedule

OFFICIAL = json.loads(Path(__file__).with_name("official_numbers.json").read_text())
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def float32(array):
    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


def fill(network, seed):
    for i, parameter in enumerate(network.parameters()):
        fan = parameter.shape[1] if parameter.ndim == 2 else 16
        parameter.data = float32(RandomState(seed + i).standard_normal(tuple(parameter.shape)) / np.sqrt(fan))


def make_agent(config):
    args = Args(n_timesteps=config["n_timesteps"], eta=config.get("eta", 1.0), max_q_backup=config.get("max_q_backup", False),
                grad_norm=config.get("grad_norm", 1.0), lr=config.get("actor_lr", 3e-4), critic_lr=config.get("critic_lr", 3e-4),
                ema_decay=config.get("ema_decay", 0.995), ema_start=config.get("step_start_ema", 0),
                ema_every=config.get("update_ema_every", 1), tau=config.get("tau", 0.005), discount=config.get("discount", 0.99))
    agent = DiffusionQL(config["state_dim"], config["action_dim"], args)
    for network, seed in ((agent.actor, 1000), (agent.ema_actor, 1000), (agent.critic, 2000), (agent.critic_target, 2000)):
        fill(network, config["seed"] + seed)
    return agent


def make_update(config, u):
    """The batch and the randomness of update u."""
    B, S, A, N = (config[name] for name in ("batch_size", "state_dim", "action_dim", "n_timesteps"))
    M = 10 * B if config["max_q_backup"] else B
    r = RandomState(config["seed"] + 3000 + u)
    state, action = r.standard_normal((B, S)), r.uniform(-config["max_action"], config["max_action"], (B, A))
    next_state, reward, not_done = r.standard_normal((B, S)), r.standard_normal((B, 1)), r.uniform(size=(B, 1)) > 0.1
    start, steps = r.standard_normal((M, A)), r.standard_normal((N, M, A))
    timestep, epsilon = r.randint(0, N, size=(B,)), r.standard_normal((B, A))
    policy_start, policy_steps = r.standard_normal((B, A)), r.standard_normal((N, B, A))
    batch = Batch(*map(float32, (state, action, next_state, reward, not_done)))
    # the release draws a noise for the last step too, and multiplies it by 0; ours has none
    draws = Draws(float32([start, *steps[:-1]]), torch.as_tensor(timestep), float32(epsilon),
                  float32([policy_start, *policy_steps[:-1]]), torch.tensor(r.uniform() > 0.5))
    return batch, draws


@pytest.mark.parametrize("n", ["5", "10", "50"])
def test_schedule(n):
    ours = vp_schedule(int(n))
    assert ours.keys() == OFFICIAL["schedule"][n].keys()
    for name, values in OFFICIAL["schedule"][n].items():
        np.testing.assert_allclose(ours[name], values, **CLOSE, err_msg=name)


@pytest.mark.parametrize("run", OFFICIAL["updates"], ids=["ema and clipping", "max-Q backup", "N=10, walker2d sizes"])
def test_updates(run):
    agent = make_agent(run["config"])
    assert [[name, list(p.shape)] for name, p in agent.actor.named_parameters()] == run["actor_parameters"]
    assert [[name, list(p.shape)] for name, p in agent.critic.named_parameters()] == run["critic_parameters"]
    for u in range(run["config"]["updates"]):
        batch, draws = make_update(run["config"], u)
        assert draws.coin == run["q1_is_maximised"][u]
        metrics = agent.update(batch, draws)
        for name, values in run["metrics"].items():
            np.testing.assert_allclose(metrics[name].item(), values[u], **CLOSE, err_msg=f"{name} of update {u}")
    networks = {"actor": agent.actor, "critic": agent.critic, "critic_target": agent.critic_target, "ema_actor": agent.ema_actor}
    assert networks.keys() == run["final"].keys()
    for network, figures in run["final"].items():
        parameters = dict(networks[network].named_parameters())
        assert parameters.keys() == figures.keys()
        for name, expected in figures.items():
            p = parameters[name].detach().double().flatten()
            got = [p.sum(), p.square().sum(), p[0], p[-1]]
            np.testing.assert_allclose(got, expected, **CLOSE, err_msg=f"{network} {name}")


def test_acting():
    config = OFFICIAL["sample"]["config"]
    agent = make_agent(config)
    r = RandomState(config["seed"] + 4000)
    state = float32(r.standard_normal(config["state_dim"]))[None]
    start, steps = r.standard_normal((50, config["action_dim"])), r.standard_normal((config["n_timesteps"], 50, config["action_dim"]))
    actions, q = agent.propose(state, float32([start, *steps[:-1]]))
    np.testing.assert_allclose(actions[0], OFFICIAL["sample"]["actions"], **CLOSE)
    np.testing.assert_allclose(q[0], np.ravel(OFFICIAL["sample"]["q_min"]), **CLOSE)
    np.testing.assert_allclose(q[0].softmax(-1), np.ravel(OFFICIAL["sample"]["probabilities"]), **CLOSE)


@pytest.mark.parametrize("how", REWARD_TRANSFORMS)
def test_reward_transforms_of_the_papers_tasks(how):
    got = REWARD_TRANSFORMS[how](float32(OFFICIAL["rewards"]["rewards"]))
    np.testing.assert_allclose(got, OFFICIAL["rewards"]["tuned"][how], **CLOSE)
