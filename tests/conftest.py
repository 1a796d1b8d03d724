"""Small datasets that the tests make themselves, through Minari's and h5py's own writers, on a tiny MuJoCo task."""
import copy
import os
import sys

import gymnasium as gym
import gymnasium_robotics
import h5py
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer

import diffusion_ql

torch.set_num_threads(1)  # for networks of 16 units, a second thread costs more than it brings
os.environ["OMP_NUM_THREADS"] = "1"  # the same in subprocesses

TINY = dict(steps=20, eval_every=10, eval_episodes=2, batch_size=16, hidden_dim=16, candidates=4, device="cpu")
TINY_FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, with data folders of its own and no way to the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(diffusion_ql, "D4RL_URL", "http://127.0.0.1:9/")  # nothing listens there


def make_minari(name, env_id="InvertedPendulum-v5", episodes=8, seed=0, ref_scores=(None, None), **kwargs):
    """A Minari dataset of uniformly random actions (Minari's DataCollector would need JAX)."""
    gym.register_envs(gymnasium_robotics)
    env, buffers = gym.make(env_id, **kwargs), []
    env.action_space.seed(seed)
    for i in range(episodes):
        steps, done = [(env.reset(seed=seed + i)[0], None, None, None, None)], False
        while not done:
            action = env.action_space.sample()
            obs, reward, terminated, truncated, _ = env.step(action)
            steps.append((copy.deepcopy(obs), action, float(reward), bool(terminated), bool(truncated)))
            done = terminated or truncated
        observations, *columns = zip(*steps)
        columns = [np.array(column[1:]) for column in columns]
        buffers.append(EpisodeBuffer(i, seed + i, None, stack(observations), *columns))
    return minari.create_dataset_from_buffers(
        name, buffers, env, algorithm_name="random", author="tests", author_email="tests@example.com",
        description="made by the tests", ref_min_score=ref_scores[0], ref_max_score=ref_scores[1])


def stack(observations):
    if isinstance(observations[0], dict):
        return {key: stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


@pytest.fixture
def pendulum():
    return make_minari("test/pendulum-v0", ref_scores=(3.0, 950.0))


def make_d4rl(path, n=60, width=4, action_width=1, **changes):
    r = np.random.RandomState(0)
    arrays = {"observations": r.standard_normal((n, width)).astype("f4"), "actions": r.uniform(-3, 3, (n, action_width)).astype("f4"),
              "rewards": r.standard_normal(n).astype("f4"), "terminals": np.arange(n) % 10 == 9, "timeouts": np.arange(n) % 20 == 4}
    arrays.update(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file[key] = array
    return arrays


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the command line; returns exit code, standard output, standard error."""
    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["diffusion_ql.py", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            diffusion_ql.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return run


@pytest.fixture
def fails(cli):
    """Runs the command line, which must end with one or two lines of error and without a traceback; returns the lines."""
    def run(*argv, code=2):
        got, _, err = cli(*argv)
        message = err[err.index("error: "):].strip()
        assert got == code and "Traceback" not in err and len(message.splitlines()) <= 2, err
        return message
    return run
