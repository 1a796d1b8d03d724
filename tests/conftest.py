"""Small datasets that the tests make themselves, through Minari's and h5py's own writers."""

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

import d4rl_to_minari
import diffusion_ql

torch.set_num_threads(1)  # for networks of 16 units, a second thread costs more than it brings
os.environ["OMP_NUM_THREADS"] = "1"  # the same in subprocesses

TINY = dict(
    steps=20,
    eval_every=10,
    eval_episodes=2,
    batch_size=16,
    hidden_dim=16,
    candidates=4,
    device="cpu",
)


def flags(**settings):
    """Settings as options of the command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


TINY_FLAGS = flags(**TINY)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, with its own data folders and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(d4rl_to_minari, "URL", "http://127.0.0.1:9/")  # nothing listens there


def make_minari(
    name, env_id="InvertedPendulum-v5", episodes=8, seed=0, refs=(None, None), **kwargs
):
    """A Minari dataset of uniformly random actions (Minari's DataCollector would need JAX)."""
    gym.register_envs(gymnasium_robotics)
    env = gym.make(env_id, **kwargs)
    env.action_space.seed(seed)
    buffers = []
    for i in range(episodes):
        observation, _ = env.reset(seed=seed + i)
        observations = [observation]
        steps = []
        done = False
        while not done:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(copy.deepcopy(observation))
            steps.append((action, float(reward), bool(terminated), bool(truncated)))
            done = terminated or truncated
        columns = [np.array(column) for column in zip(*steps, strict=True)]
        buffers.append(EpisodeBuffer(i, seed + i, None, stack(observations), *columns))
    return minari.create_dataset_from_buffers(
        name,
        buffers,
        env,
        eval_env=env,
        algorithm_name="random",
        author="tests",
        author_email="tests@example.com",
        code_permalink="tests",
        description="made by the tests",
        ref_min_score=refs[0],
        ref_max_score=refs[1],
    )


def stack(observations):
    if isinstance(observations[0], dict):
        return {key: stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


@pytest.fixture
def pendulum():
    return make_minari("test/pendulum-v0", refs=(3.0, 950.0))


def make_d4rl(path, n=60, width=4, action_width=1, **changes):
    """A file in D4RL's format; returns its columns."""
    r = np.random.RandomState(0)
    columns = {
        "observations": r.standard_normal((n, width)).astype("f4"),
        "actions": r.uniform(-1, 1, (n, action_width)).astype("f4"),
        "rewards": r.standard_normal(n).astype("f4"),
        "terminals": np.arange(n) % 10 == 9,
        "timeouts": np.arange(n) % 20 == 4,
    }
    columns.update(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            if column is not None:
                file[key] = column
    return columns


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Runs the main() of a module as its command line; returns exit code, output, errors."""

    def run(module, *argv):
        monkeypatch.setattr(sys, "argv", [module.__name__ + ".py", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            module.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def cli(run_main):
    def run(*argv):
        return run_main(diffusion_ql, *argv)

    return run


@pytest.fixture
def fails(run_main):
    """Runs a command line, which must end with one or two lines of error and no traceback."""

    def run(*argv, code=2, module=diffusion_ql):
        got, _, err = run_main(module, *argv)
        message = err[err.index("error: ") :].strip()
        assert got == code and "Traceback" not in err and len(message.splitlines()) <= 2, err
        return message

    return run
