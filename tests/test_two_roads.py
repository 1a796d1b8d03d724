"""The embedded default: the dataset, its picture, and a shortened form of `python diffusion_ql.py`."""

import functools
import json
from pathlib import Path

import minari
import numpy as np
import pytest

from diffusion_ql import Args, UserError, load_dataset, train
from toy_experiments import two_roads


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """The default dataset, made once."""
    root = tmp_path_factory.mktemp("two-roads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        two_roads.collect()
    return root


@pytest.fixture
def dataset(demonstrations, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(demonstrations))
    return load_dataset("two-roads")


def test_demonstrations_take_both_roads_half_the_time_and_one_is_better(dataset):
    state, reward = dataset.transitions.state.numpy(), dataset.transitions.reward.numpy()
    paths, returns = state[:, :2].reshape(-1, 60, 2), reward.reshape(-1, 60).sum(1)
    share = two_roads.shares(paths)
    assert len(paths) == 200 and share["short"] > 0.45 and share["long"] > 0.45
    assert returns[::2].mean() > 2 * returns[1::2].mean() > 0
    assert dataset.state_dim == 8 and dataset.action_dim == 2 and dataset.eval_episodes == 100


def test_it_is_an_ordinary_minari_dataset(dataset):
    data = minari.load_dataset("toy/two-roads-v0")
    assert (
        data.storage.metadata["ref_max_score"] > 25 and data.storage.metadata["ref_min_score"] < 1
    )
    env = data.recover_environment()
    env.reset(seed=0)
    assert env.spec.max_episode_steps == 60 and env.action_space.shape == (2,)
    before = env.unwrapped.data.time
    env.step(env.action_space.sample())
    assert env.unwrapped.data.time - before == pytest.approx(
        0.05
    )  # an action is held for 5 steps of 0.01 s


def test_the_same_seed_gives_the_same_dataset():
    first, second, other = (
        two_roads.collect(f"toy/{name}-v0", 4, seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for a, b, c in zip(first, second, other):
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.observations["observation"], b.observations["observation"])
        assert not np.array_equal(a.actions, c.actions)


def test_a_half_made_dataset_is_never_left_behind(monkeypatch, tmp_path):
    def power_cut(*args, **kwargs):
        folder = Path(minari.storage.get_dataset_path("toy/two-roads-v0"), "data")
        folder.mkdir(parents=True)
        (folder / "main_data.hdf5").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(minari, "create_dataset_from_buffers", power_cut)
        with pytest.raises(KeyboardInterrupt):
            two_roads.collect(episodes=2)
    assert not (tmp_path / "minari/toy/two-roads-v0").exists()
    assert two_roads.collect(episodes=2).total_episodes == 2


def test_shares_of_known_paths():
    below, above = np.array([[-3, 0], [0, -2], [3, -2]]), np.array([[-3, 0], [0, 2], [3, -2]])
    blocked = np.array([[-3, 0], [-2, 0], [-1.6, 0]])
    share = two_roads.shares(np.array([below, above, blocked, below]))
    assert share == {"short": 0.5, "long": 0.25, "stuck": 0.25}


def test_the_default_command_in_short(dataset, cli):
    """Diffusion-QL's score rises above the cloning's, and the command ends with the picture."""
    cloning = train(Args.for_env("two-roads", algo="bc", steps=3000, eval_every=3000, out="bc"))
    code, out, err = cli("--steps", 3000, "--eval-every", 3000, "--out", "ql")
    assert code == 0, err
    assert "two-roads: 12,000 transitions" in out and "picture: ql/roads.png" in out
    result = json.loads(Path("ql/result.json").read_text())
    assert result["final"]["score"] > cloning["final"]["score"] + 5
    numbers = two_roads.plot(["bc", "ql"], "both.png", episodes=20)
    assert {
        "demonstrations",
        "Gaussian cloning",
        "diffusion cloning",
        "Diffusion-QL",
    } == numbers.keys()
    assert numbers["Diffusion-QL"]["short"] > numbers["diffusion cloning"]["short"]
    for share in numbers.values():
        assert share["short"] + share["long"] + share["stuck"] == pytest.approx(1)
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")


def test_several_seeds_in_one_picture(dataset, cli, capsys, monkeypatch):
    quick = functools.partial(two_roads.gaussian_cloning, steps=20)
    monkeypatch.setattr(two_roads, "gaussian_cloning", quick)
    assert (
        cli(
            "--seeds", 0, 7, "--steps", 20, "--eval-every", 20, "--eval-episodes", 2, "--out", "two"
        )[0]
        == 0
    )
    numbers = two_roads.plot(["two"], episodes=3)
    assert {
        "demonstrations",
        "Gaussian cloning, seed 0",
        "Gaussian cloning, seed 7",
        "Diffusion-QL, seed 0",
        "Diffusion-QL, seed 7",
    } == numbers.keys()
    mean = np.mean([numbers[f"Diffusion-QL, seed {seed}"]["score"] for seed in (0, 7)])
    assert (
        "Diffusion-QL, 2 seeds" in (out := capsys.readouterr().out) and f"score {mean:.1f} ±" in out
    )
    assert two_roads.plot(["two"], episodes=2, seed=7).keys() == {
        "demonstrations",
        "Gaussian cloning",
        "Diffusion-QL",
    }
    with pytest.raises(UserError, match="seed 3"):
        two_roads.plot(["two"], seed=3)
