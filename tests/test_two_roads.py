"""The embedded default: the dataset, its pictures, and a shortened `python diffusion_ql.py`."""

from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from conftest import TINY, flags

from diffusion_ql import Args, load_agent, load_dataset, train
from forks import BCGaussian
from toy_experiments import two_roads, two_roads_figure
from toy_experiments.two_roads import describe, drive_policy, shares


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """The default dataset, made once."""
    root = tmp_path_factory.mktemp("two-roads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        two_roads.make()
    return root


@pytest.fixture
def dataset(demonstrations, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(demonstrations))
    return load_dataset("two-roads")


def test_demonstrations_take_both_roads_half_the_time_and_one_is_better(dataset):
    paths = dataset.transitions.state[:, :2].reshape(-1, 60, 2).numpy()
    returns = dataset.transitions.reward.reshape(-1, 60).sum(1)
    share = shares(paths)
    assert len(paths) == 200 and share["short"] > 0.45 and share["long"] > 0.45
    assert returns[::2].mean() > 2 * returns[1::2].mean() > 0
    assert dataset.state_dim == 8 and dataset.action_dim == 2


def test_an_action_is_held_for_5_steps_of_10_milliseconds(dataset):
    env = minari.load_dataset("toy/two-roads-v1").recover_environment()
    env.reset(seed=0)
    assert env.spec.max_episode_steps == 60 and env.action_space.shape == (2,)
    before = env.unwrapped.data.time
    env.step(env.action_space.sample())
    assert env.unwrapped.data.time - before == pytest.approx(0.05)


def test_the_same_seed_gives_the_same_dataset():
    def made(name, seed):
        two_roads.make(f"toy/{name}-v0", episodes=4, seed=seed)
        episodes = minari.load_dataset(f"toy/{name}-v0").iterate_episodes()
        return [(episode.observations["observation"], episode.actions) for episode in episodes]

    first = made("a", 1)
    np.testing.assert_equal(made("b", 1), first)
    assert not np.array_equal(made("c", 2)[0][1], first[0][1])


def test_shares_of_known_paths():
    below = np.array([[-3, 0], [0, -2], [3, -2]])
    above = np.array([[-3, 0], [0, 2], [3, -2]])
    blocked = np.array([[-3, 0], [-2, 0], [-1.6, 0]])
    share = shares(np.array([below, above, blocked, below]))
    assert share == {"short": 0.5, "long": 0.25, "stuck": 0.25}


def test_its_picture_shows_where_the_ball_is():
    env = gym.make("TwoRoads-v0", render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(6):
        env.step(np.float32([1, 0]))
    frame = env.render()
    assert frame.shape == (280, 360, 3) and frame.dtype == np.uint8
    blue = frame[..., 2].astype(int) - frame[..., 0] > 100
    row, column = np.argwhere(blue).mean(axis=0)
    x, y = env.unwrapped.data.qpos
    assert [column / 40 - 4.5, 3.5 - row / 40] == pytest.approx([x, y], abs=0.1)


@pytest.mark.slow
def test_the_default_command_in_short(dataset, cli, run_main):
    """Where a Gaussian clone takes both roads or gets stuck, Diffusion-QL takes the short one."""
    short = dict(steps=2500, eval_every=2500, eval_episodes=20, compile="off")
    code, _, err = cli(*flags(**short), "--out", "ql")
    assert code == 0, err
    code, out, err = run_main(two_roads_figure, "--run", "ql")
    assert code == 0, err
    assert "demonstrations: short 50 %, long 50 %, stuck 0 %" in out
    assert Path("ql/roads.png").read_bytes().startswith(b"\x89PNG")
    learned, returns = drive_policy(load_agent("ql"), dataset)
    assert f"the agent: {describe(shares(learned))}" in out
    assert shares(learned)["short"] > 0.9
    assert returns.mean() > 60 * dataset.transitions.reward.mean()  # an episode has 60 steps
    train(Args(env="two-roads", out="clone", **short), dataset, BCGaussian)
    cloned, _ = drive_policy(load_agent("clone"), dataset, 20)
    assert shares(cloned)["short"] < 0.85


def test_only_runs_of_two_roads_are_drawn(fails, pendulum):
    assert "no run folder" in fails("--run", "nowhere", module=two_roads_figure)
    train(Args(env="test/pendulum-v0", out="other", **TINY))
    assert "of test/pendulum-v0" in fails("--run", "other", module=two_roads_figure)


def test_paths_of_more_episodes_than_go_side_by_side(dataset):
    class Still:
        def act(self, states):
            return torch.zeros(len(states), 2)

    paths, returns = drive_policy(Still(), dataset, episodes=23)
    assert paths.shape == (23, 60, 2) and returns.shape == (23,)
    assert np.abs(paths - paths[:, :1]).max() < 0.01  # no path goes on in another episode
    assert len(np.unique(paths[:, 0], axis=0)) == 23
