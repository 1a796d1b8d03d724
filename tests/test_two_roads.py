"""The embedded default: the dataset, its pictures, and a shortened `python diffusion_ql.py`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import minari
import numpy as np
import pytest
import torch

from diffusion_ql import Args, UserError, load_dataset, train
from toy_experiments import two_roads
from toy_experiments.two_roads_agents import GaussianQL, drive_policy, load_run
from toy_experiments.two_roads_pictures import shares

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
    data = minari.load_dataset("toy/two-roads-v0")
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
        folder = Path(minari.storage.get_dataset_path("toy/two-roads-v0"), "data")
        folder.mkdir(parents=True)
        (folder / "main_data.hdf5").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(minari, "create_dataset_from_buffers", power_cut)
        with pytest.raises(KeyboardInterrupt):
            two_roads.make(episodes=2)
    assert not (tmp_path / "minari/toy/two-roads-v0").exists()
    two_roads.make(episodes=2)
    assert minari.load_dataset("toy/two-roads-v0").total_episodes == 2


def test_shares_of_known_paths():
    below = np.array([[-3, 0], [0, -2], [3, -2]])
    above = np.array([[-3, 0], [0, 2], [3, -2]])
    blocked = np.array([[-3, 0], [-2, 0], [-1.6, 0]])
    share = shares(np.array([below, above, blocked, below]))
    assert share == {"short": 0.5, "long": 0.25, "stuck": 0.25}


def without_numbers(text):
    return " ".join(re.sub(r"\d[\d,.]*", "0", text).split())


def shown_in_the_readme():
    """What the README says that a run prints at its end, without numbers and folders."""
    block = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    return without_numbers(re.sub(r"runs/\S*/", "", block))


def test_the_default_command_in_short(dataset, cli):
    """Where a Gaussian clone takes both roads or gets stuck, Diffusion-QL takes the short one."""
    short = ["--steps", 2500, "--eval-every", 2500, "--eval-episodes", 20]
    code, out, err = cli(*short, "--out", "ql")
    assert code == 0, err
    assert without_numbers(out.replace("ql/", "")).endswith(shown_in_the_readme())
    assert Path("ql/roads.png").read_bytes().startswith(b"\x89PNG")
    learned, returns = drive_policy(load_run("ql"), dataset, 20)
    assert shares(learned)["short"] > 0.9
    data_returns = dataset.transitions.reward.reshape(-1, 60).sum(1)
    assert returns.mean() > data_returns.mean()

    settings = dict(algo="bc", steps=2500, eval_every=2500, eval_episodes=2, out="clone")
    train(Args.for_env("two-roads", **settings), dataset, GaussianQL)
    cloned, _ = drive_policy(load_run("clone", GaussianQL), dataset, 20)
    assert shares(cloned)["short"] < 0.85
    with pytest.raises(UserError, match="no run folder"):
        load_run("nowhere")


def test_a_gaussian_with_q_climbs_q(dataset):
    """Its policy loss has a gradient of Q, and all of its networks are in the optimizer."""
    torch.manual_seed(0)
    agent = GaussianQL(8, 2, Args.for_env("two-roads"))
    batch = dataset.transitions.sample(256)
    loss, metrics = agent.policy_loss(batch)
    assert metrics["ql_loss"].requires_grad and metrics["bc_loss"].requires_grad
    before = [parameter.clone() for parameter in agent.parameters()]
    for _ in range(2):
        agent.update(batch)
    moved = [not torch.equal(*pair) for pair in zip(before, agent.parameters(), strict=True)]
    names = [name.split(".")[0] for name, _ in agent.named_parameters()]
    assert {name for name, has_moved in zip(names, moved, strict=True) if has_moved} == {
        "actor",
        "critic",
        "critic_target",
    }


def test_the_figure_trains_draws_and_tabulates(demonstrations):
    """One method, some steps; the same command again trains nothing."""
    script = ROOT / "toy_experiments/two_roads_figure.py"
    options = "--steps 20 --seeds 0 1 --drawn-seed 1 --episodes 2 --out here".split()
    command = [sys.executable, script, "--methods", "Gaussian with Q", *options]
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(demonstrations)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(Path("here/two_roads.json").read_text())
    assert list(numbers) == ["demonstrations", "uniformly random", "Gaussian with Q"]
    assert len(numbers["Gaussian with Q"]) == 2
    for runs in numbers.values():
        assert runs[0]["short"] + runs[0]["long"] + runs[0]["stuck"] == pytest.approx(1)
    assert "| Gaussian with Q |" in done.stdout
    assert Path("here/two_roads.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "2 runs, 2 of them are done" in again.stdout
    command[3] = "Gauss"
    bad = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert bad.returncode == 2 and "--methods" in bad.stderr and "Traceback" not in bad.stderr
