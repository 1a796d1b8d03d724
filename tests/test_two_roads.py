"""The embedded default: the dataset, its pictures, and a shortened `python diffusion_ql.py`."""

import os
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from conftest import TINY

from diffusion_ql import Args, load_agent, load_dataset, train
from forks import BCGaussian
from toy_experiments import two_roads, two_roads_figure
from toy_experiments.two_roads import describe, drive_policy, shares

ROOT = Path(__file__).resolve().parents[1]


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


def test_it_is_an_ordinary_minari_dataset(dataset):
    data = minari.load_dataset("toy/two-roads-v1")
    metadata = data.storage.metadata
    assert metadata["ref_max_score"] > 25 and metadata["ref_min_score"] < 1
    env = data.recover_environment()
    env.reset(seed=0)
    assert env.spec.max_episode_steps == 60 and env.action_space.shape == (2,)
    before = env.unwrapped.data.time
    env.step(env.action_space.sample())
    # an action is held for 5 steps of 0.01 s
    assert env.unwrapped.data.time - before == pytest.approx(0.05)


def test_the_same_seed_gives_the_same_dataset():
    episodes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        two_roads.make(f"toy/{name}-v0", episodes=4, seed=seed)
        episodes.append(list(minari.load_dataset(f"toy/{name}-v0").iterate_episodes()))
    for a, b, c in zip(*episodes, strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
        observations = [one.observations["observation"] for one in (a, b)]
        np.testing.assert_array_equal(*observations)
        assert not np.array_equal(a.actions, c.actions)


def test_a_half_made_dataset_is_never_left_behind(monkeypatch, tmp_path):
    def power_cut(*args, **kwargs):
        folder = Path(minari.storage.get_dataset_path("toy/two-roads-v1"), "data")
        folder.mkdir(parents=True)
        (folder / "main_data.hdf5").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(minari, "create_dataset_from_buffers", power_cut)
        with pytest.raises(KeyboardInterrupt):
            two_roads.make(episodes=2)
    assert not (tmp_path / "minari/toy/two-roads-v1").exists()
    two_roads.make(episodes=2)
    assert minari.load_dataset("toy/two-roads-v1").total_episodes == 2


def test_another_process_may_make_the_dataset_in_the_meantime(monkeypatch):
    create = minari.create_dataset_from_buffers

    def create_after_another(*args, **kwargs):
        monkeypatch.setattr(minari, "create_dataset_from_buffers", create)
        with monkeypatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", root)
            two_roads.make(episodes=2)
        return create(*args, **kwargs)

    root = os.environ["MINARI_DATASETS_PATH"]
    monkeypatch.setattr(minari, "create_dataset_from_buffers", create_after_another)
    two_roads.make(episodes=4)
    assert minari.load_dataset("toy/two-roads-v1").total_episodes == 2


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
    short = ["--steps", 2500, "--eval-every", 2500, "--eval-episodes", 20, "--compile", "off"]
    code, _, err = cli(*short, "--out", "ql")
    assert code == 0, err
    code, out, err = run_main(two_roads_figure, "--run", "ql")
    assert code == 0, err
    assert "demonstrations: short 50 %, long 50 %, stuck 0 %" in out
    assert Path("ql/roads.png").read_bytes().startswith(b"\x89PNG")
    learned, returns = drive_policy(load_agent("ql"), dataset)
    assert f"the agent: {describe(shares(learned))}" in out
    assert shares(learned)["short"] > 0.9
    data_returns = dataset.transitions.reward.reshape(-1, 60).sum(1)
    assert returns.mean() > data_returns.mean()

    settings = dict(steps=2500, eval_every=2500, eval_episodes=2, compile="off", out="clone")
    train(Args(env="two-roads", **settings), dataset, BCGaussian)
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
