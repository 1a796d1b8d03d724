"""Proof that the algorithm is the authors': the numbers of their released code, to 1e-5 relative.

official_numbers.json says where they come from. Its inputs, the noise included, are rebuilt here
from NumPy's frozen RandomState; the noise is handed in by replacing PyTorch's random functions.
"""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from diffusion_ql import Args, Batch, DiffusionQL, tune_rewards, vp_schedule
from toy_experiments.benchmark import Release

OFFICIAL = json.loads(Path(__file__).with_name("official_numbers.json").read_text())
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def float32(array):
    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


@pytest.fixture
def hand_in(monkeypatch):
    """hand_in(draws): PyTorch's next random numbers, in the order in which they are drawn."""
    waiting = []

    def replacement(name):
        def draw(*args, **kwargs):
            expected, values = waiting.pop(0)
            assert name == expected, f"{name} was called where {expected} should be"
            if name == "randn_like":
                assert args[0].shape == values.shape
            return values

        return draw

    for name in ("randn", "randn_like", "randint", "rand"):
        monkeypatch.setattr(torch, name, replacement(name))

    def hand_in(draws):
        assert not waiting, "an update left random numbers over"
        waiting.extend(draws)

    yield hand_in
    assert not waiting


def chain(start, steps, whole=False):
    """The draws of one denoising chain. The release (whole) draws noise for the last step, too."""
    if not whole:
        steps = steps[:-1]
    return [("randn", float32(start)), *[("randn_like", float32(step)) for step in steps]]


def fill(network, seed):
    for i, parameter in enumerate(network.parameters()):
        fan = parameter.shape[1] if parameter.ndim == 2 else 16
        values = RandomState(seed + i).standard_normal(tuple(parameter.shape)) / np.sqrt(fan)
        parameter.data = float32(values)


def make_args(config):
    """The settings of a run of the release."""
    ours = {"actor_lr": "lr", "step_start_ema": "ema_start", "update_ema_every": "ema_every"}
    names = {field.name for field in fields(Args)}
    settings = {ours.get(name, name): value for name, value in config.items()}
    return Args(**{name: value for name, value in settings.items() if name in names})


def make_agent(config):
    """An agent with the settings and the weights of a run of the release."""
    agent = DiffusionQL(config["state_dim"], config["action_dim"], make_args(config))
    fill(agent.actor, config["seed"] + 1000)
    fill(agent.ema_actor, config["seed"] + 1000)
    fill(agent.critic, config["seed"] + 2000)
    fill(agent.critic_target, config["seed"] + 2000)
    return agent


def make_update(config, u, whole=False):
    """The batch and the random numbers of update u; whole: as in `chain`."""
    B = config["batch_size"]
    S = config["state_dim"]
    A = config["action_dim"]
    N = config["n_timesteps"]
    M = 10 * B if config["max_q_backup"] else B
    r = RandomState(config["seed"] + 3000 + u)
    state = r.standard_normal((B, S))
    action = r.uniform(-config["max_action"], config["max_action"], (B, A))
    next_state = r.standard_normal((B, S))
    reward = r.standard_normal((B, 1))
    not_done = r.uniform(size=(B, 1)) > 0.1
    batch = Batch(*[float32(column) for column in (state, action, next_state, reward, not_done)])
    draws = chain(r.standard_normal((M, A)), r.standard_normal((N, M, A)), whole)
    draws.append(("randint", torch.as_tensor(r.randint(0, N, size=(B,)))))
    draws.append(("randn_like", float32(r.standard_normal((B, A)))))
    draws += chain(r.standard_normal((B, A)), r.standard_normal((N, B, A)), whole)
    coin = r.uniform()
    draws.append(("rand", torch.tensor(coin)))
    return batch, draws, coin > 0.5


@pytest.mark.parametrize("n", OFFICIAL["schedule"])
def test_schedule(n):
    ours = vp_schedule(int(n))
    assert ours.keys() == OFFICIAL["schedule"][n].keys()
    for name, values in OFFICIAL["schedule"][n].items():
        np.testing.assert_allclose(ours[name], values, **CLOSE, err_msg=name)


@pytest.mark.parametrize("number", range(len(OFFICIAL["updates"])))
def test_updates(number, hand_in):
    run = OFFICIAL["updates"][number]
    agent = make_agent(run["config"])
    for network in ("actor", "critic"):
        parameters = getattr(agent, network).named_parameters()
        assert [[name, list(p.shape)] for name, p in parameters] == run[f"{network}_parameters"]

    for u in range(run["config"]["updates"]):
        batch, draws, first_is_maximised = make_update(run["config"], u)
        assert first_is_maximised == run["q1_is_maximised"][u]
        hand_in(draws)
        metrics = agent.update(batch)
        for name, values in run["metrics"].items():
            where = f"{name} of update {u}"
            np.testing.assert_allclose(metrics[name].item(), values[u], **CLOSE, err_msg=where)

    assert run["final"].keys() == {"actor", "critic", "critic_target", "ema_actor"}
    for network, figures in run["final"].items():
        parameters = dict(getattr(agent, network).named_parameters())
        assert parameters.keys() == figures.keys()
        for name, expected in figures.items():
            p = parameters[name].detach().double().flatten()
            got = [p.sum(), p.square().sum(), p[0], p[-1]]
            np.testing.assert_allclose(got, expected, **CLOSE, err_msg=f"{network} {name}")


@pytest.mark.parametrize("number", [0, 2])  # it has no max-Q backup
def test_the_benchmarks_transcription_of_the_release(number, hand_in, monkeypatch):
    run = OFFICIAL["updates"][number]
    config = run["config"]
    release = Release(config["state_dim"], config["action_dim"], make_args(config))
    for name, seed in {"actor": 1000, "ema_actor": 1000, "critic": 2000}.items():
        fill(getattr(release, name), config["seed"] + seed)
    fill(release.critic_target, config["seed"] + 2000)
    for u in range(config["updates"]):
        batch, draws, first_is_maximised = make_update(config, u, whole=True)
        monkeypatch.setattr(np.random, "uniform", lambda coin=first_is_maximised: float(coin))
        hand_in(draws[:-1])  # the last one is PyTorch's coin
        losses = release.update(batch)
        names = ("critic_loss", "bc_loss", "ql_loss", "actor_loss")
        for name, loss in zip(names, losses, strict=True):
            np.testing.assert_allclose(loss, run["metrics"][name][u], **CLOSE, err_msg=name)


def test_acting(hand_in):
    config = OFFICIAL["sample"]["config"]
    agent = make_agent(config)
    r = RandomState(config["seed"] + 4000)
    n = config["candidates"]
    state = float32(r.standard_normal(config["state_dim"]))[None]
    start = r.standard_normal((n, config["action_dim"]))
    hand_in(chain(start, r.standard_normal((config["n_timesteps"], n, config["action_dim"]))))
    actions, q = agent.propose(state)
    np.testing.assert_allclose(actions[0], OFFICIAL["sample"]["actions"], **CLOSE)
    np.testing.assert_allclose(q[0], np.ravel(OFFICIAL["sample"]["q_min"]), **CLOSE)
    probabilities = np.ravel(OFFICIAL["sample"]["probabilities"])
    np.testing.assert_allclose(q[0].softmax(-1), probabilities, **CLOSE)


@pytest.mark.parametrize("how", OFFICIAL["rewards"]["tuned"])
def test_reward_transforms_of_the_papers_tasks(how):
    got = tune_rewards(float32(OFFICIAL["rewards"]["rewards"]), how)
    np.testing.assert_allclose(got, OFFICIAL["rewards"]["tuned"][how], **CLOSE)
