"""Datasets: their names and settings, Minari's conventions, evaluation, and what goes wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import environments  # noqa: F401  (registers them)
import h5py
import minari
import numpy as np
import pytest
import torch
from conftest import TINY, TINY_FLAGS, make_minari

import diffusion_ql
from diffusion_ql import (
    TASKS,
    Args,
    Dataset,
    UserError,
    evaluate,
    load_dataset,
    make_env,
    minari_ids,
    task_of,
    train,
)

# The release's settings: lr, eta, max-Q backup, rewards, steps, gradient norm, top_k.
PAPER = {
    "halfcheetah-medium-v2": (3e-4, 1.0, False, "no", 2_000_000, 9, 1),
    "hopper-medium-v2": (3e-4, 1.0, False, "no", 2_000_000, 9, 2),
    "walker2d-medium-v2": (3e-4, 1.0, False, "no", 2_000_000, 1, 1),
    "halfcheetah-medium-replay-v2": (3e-4, 1.0, False, "no", 2_000_000, 2, 0),
    "hopper-medium-replay-v2": (3e-4, 1.0, False, "no", 2_000_000, 4, 2),
    "walker2d-medium-replay-v2": (3e-4, 1.0, False, "no", 2_000_000, 4, 1),
    "halfcheetah-medium-expert-v2": (3e-4, 1.0, False, "no", 2_000_000, 7, 0),
    "hopper-medium-expert-v2": (3e-4, 1.0, False, "no", 2_000_000, 5, 2),
    "walker2d-medium-expert-v2": (3e-4, 1.0, False, "no", 2_000_000, 5, 1),
    "antmaze-umaze": (3e-4, 0.5, False, "cql_antmaze", 1_000_000, 2, 2),
    "antmaze-umaze-diverse": (3e-4, 2.0, True, "cql_antmaze", 1_000_000, 3, 2),
    "antmaze-medium-play": (1e-3, 2.0, True, "cql_antmaze", 1_000_000, 2, 1),
    "antmaze-medium-diverse": (3e-4, 3.0, True, "cql_antmaze", 1_000_000, 1, 1),
    "antmaze-large-play": (3e-4, 4.5, True, "cql_antmaze", 1_000_000, 10, 2),
    "antmaze-large-diverse": (3e-4, 3.5, True, "cql_antmaze", 1_000_000, 7, 1),
    "pen-human-v1": (3e-5, 0.15, False, "normalize", 1_000_000, 7, 2),
    "pen-cloned-v1": (3e-5, 0.1, False, "normalize", 1_000_000, 8, 2),
    "kitchen-complete": (3e-4, 0.005, False, "no", 250_000, 9, 2),
    "kitchen-partial": (3e-4, 0.005, False, "no", 1_000_000, 10, 2),
    "kitchen-mixed": (3e-4, 0.005, False, "no", 1_000_000, 10, 0),
}


class Constant:
    """An agent that always plays the same action, inside [-1, 1]."""

    def __init__(self, action):
        self.action = torch.tensor(action)
        self.calls = []

    def act(self, states):
        self.calls.append(len(states))
        return self.action.repeat(len(states), 1)


@pytest.mark.parametrize("env", PAPER)
def test_the_papers_settings(env):
    args = Args.for_env(env)
    settings = (args.lr, args.eta, args.max_q_backup, args.reward_tune, args.steps)
    assert (*settings, args.grad_norm, args.top_k) == PAPER[env]
    assert args.eval_episodes == (10 if args.steps == 2_000_000 else 100)
    assert args.eval_every == 50_000
    assert (args.critic_lr, args.batch_size, args.n_timesteps, args.discount) == (
        3e-4,
        256,
        5,
        0.99,
    )


def test_every_task_is_checked_and_settings_can_be_overridden():
    assert {task_of(env) for env in PAPER} == TASKS.keys() - {"two-roads"}
    args = Args.for_env("antmaze-large-play", eta=1.0, steps=100)
    assert (args.eta, args.steps, args.lr, args.eval_every) == (1.0, 100, 3e-4, 10)


@pytest.mark.parametrize(
    "env, task, ids",
    [
        ("walker2d-medium", "walker2d-medium", ["mujoco/walker2d/medium-v0"]),
        ("mujoco/hopper/medium-v0", "hopper-medium", ["mujoco/hopper/medium-v0"]),
        ("walker2d-expert", "walker2d-medium-expert", ["mujoco/walker2d/expert-v0"]),
        ("mujoco/hopper/expert-v0", "hopper-medium-expert", ["mujoco/hopper/expert-v0"]),
        (
            "hopper-medium-expert",
            "hopper-medium-expert",
            ["mujoco/hopper/medium-v0", "mujoco/hopper/expert-v0"],
        ),
        (
            "hopper-medium-replay-v2",
            "hopper-medium-replay",
            ["d4rl/hopper/medium-replay-v2"],
        ),
        ("antmaze-large-diverse", "antmaze-large-diverse", ["D4RL/antmaze/large-diverse-v1"]),
        ("pen-human", "pen-human", ["D4RL/pen/human-v2"]),
        ("pen-human-v1", "pen-human", ["d4rl/pen/human-v1"]),
        ("D4RL/kitchen/mixed-v2", "kitchen-mixed", ["D4RL/kitchen/mixed-v2"]),
        ("kitchen-complete", "kitchen-complete", ["D4RL/kitchen/complete-v2"]),
        ("two-roads", "two-roads", ["toy/two-roads-v0"]),
        ("my/dataset-v1", "my-dataset", ["my/dataset-v1"]),
    ],
)
def test_names_of_datasets(env, task, ids):
    assert task_of(env) == task and minari_ids(env) == ids


def test_minari_episodes_keep_their_last_step(pendulum):
    data = load_dataset("test/pendulum-v0")
    episodes = list(pendulum.iterate_episodes())
    assert len(data.transitions.state) == pendulum.total_steps
    ends = np.cumsum([len(episode.actions) for episode in episodes]) - 1
    for end, episode in zip(ends, episodes, strict=True):
        last = data.transitions.next_state[end]
        np.testing.assert_allclose(last, episode.observations[-1], rtol=1e-6)
        assert data.transitions.not_done[end] == 1 - episode.terminations[-1]
    scaled = episodes[0].actions[0] / 3  # Box(-3, 3)
    np.testing.assert_allclose(data.transitions.action[0], scaled, rtol=1e-6)
    assert data.score(np.array([3.0, 950.0])).tolist() == [0, 100]


def test_without_reference_scores_the_score_is_the_return():
    make_minari("test/plain-v0")
    assert load_dataset("test/plain-v0").score(np.array([42.0])).tolist() == [42]


def test_medium_expert_is_both_datasets():
    for seed, level in enumerate(("medium", "expert")):
        make_minari(f"mujoco/hopper/{level}-v0", "Hopper-v5", episodes=2, seed=seed)
    medium = load_dataset("mujoco/hopper/medium-v0").transitions.state
    expert = load_dataset("mujoco/hopper/expert-v0").transitions.state
    data = load_dataset("hopper-medium-expert")
    assert torch.equal(data.transitions.state, torch.cat([medium, expert]))
    assert data.reference == pytest.approx([-20.272305, 3234.3]) and data.env_id == "Hopper-v5"


def test_goal_tasks_and_asymmetric_actions():
    dataset = make_minari("test/goal-v0", "Goal-v0", episodes=3)
    data = load_dataset("test/goal-v0")
    # achieved goal, observation, desired goal
    np.testing.assert_array_equal(data.transitions.state[0], [1, 1, 2, 2, 2, 3])
    raw = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    np.testing.assert_allclose(data.transitions.action, (raw - [1, 0.5]) / [2, 0.5], atol=1e-6)
    evaluate(Constant([-1.0, 1.0]), data, episodes=1)
    np.testing.assert_allclose(data.envs[0].unwrapped.actions, [[-1, 1]] * 6)


def test_antmaze_ends_at_the_goal_and_scores_success():
    make_minari("test/antmaze-v0", "AntMazeLike-v0", episodes=4)
    data = load_dataset("test/antmaze-v0")
    rewards = data.transitions.reward
    assert 0 < rewards.sum() == (1 - data.transitions.not_done).sum()
    agent = Constant([0.0, 0.0])
    assert evaluate(agent, data, episodes=4, seed=100).tolist() == [0, 1, 0, 1]
    assert agent.calls == [4, 4, 4, 2, 2, 2]  # who reached the goal no longer takes part


def test_real_antmaze_and_kitchen_environments():
    """The environments of two Minari domains, from datasets of one short episode each."""
    make_minari("test/maze-v0", "AntMaze_UMaze-v4", episodes=1, max_episode_steps=5)
    kitchen_kwargs = {"max_episode_steps": 5, "tasks_to_complete": ["kettle"]}
    make_minari("test/kitchen-v0", "FrankaKitchen-v1", episodes=1, **kitchen_kwargs)
    assert load_dataset("test/maze-v0").state_dim == 31
    kitchen = load_dataset("test/kitchen-v0")
    assert kitchen.state_dim == 59
    assert evaluate(Constant([0.0] * 9), kitchen, episodes=1).tolist() == [0]


def test_evaluation_counts_one_episode_each_and_leaves_the_random_state(pendulum):
    data = load_dataset("test/pendulum-v0")
    before = torch.get_rng_state()
    agent = Constant([0.2])
    returns = evaluate(agent, data, episodes=5)
    assert torch.equal(before, torch.get_rng_state())
    for i in range(5):
        env = make_env(data.env_spec)
        env.reset(seed=100 + i)
        total = 0
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(np.float32([0.2]))
            total += reward
            done = terminated or truncated
        assert returns[i] == pytest.approx(total)
    np.testing.assert_allclose(evaluate(agent, data, episodes=5), returns)


def test_a_dataset_made_in_memory(tmp_path):
    r = np.random.RandomState(0)
    states = r.standard_normal((50, 4))
    arrays = [states[:-1], r.uniform(-3, 3, (49, 1)), states[1:], np.ones(49), np.zeros(49, bool)]
    data = Dataset(*arrays, env="InvertedPendulum-v5", reference=(0, 1000))
    result = train(Args(out="run", **TINY), data)
    assert data.transitions.reward.sum() == 49 and np.isfinite(result["final"]["score"])
    arrays[0] = arrays[0][:, :3]
    with pytest.raises(UserError, match="InvertedPendulum-v5 needs"):
        Dataset(*arrays, env="InvertedPendulum-v5")


@pytest.mark.parametrize(
    "column, row, value, says",
    [
        ("observations", 3, np.nan, "NaN"),
        ("rewards", 2, np.inf, "NaN or infinity"),
        ("actions", 1, 3.1, "out of the bounds"),
        ("actions", 1, np.nan, "out of the bounds"),
    ],
)
def test_values_that_do_not_fit(column, row, value, says, fails, pendulum, tmp_path):
    with h5py.File(tmp_path / "minari/test/pendulum-v0/data/main_data.hdf5", "a") as file:
        file["episode_0"][column][row] = value
    assert says in fails("--env", "test/pendulum-v0", *TINY_FLAGS)
    assert not (tmp_path / "runs").exists()


def test_unknown_names(fails):
    assert "walker2d-medium" in fails("--env", "walker2d-mediun")
    assert "halfcheetah-medium-v2" in fails("--env", "halfcheetah-medium-v7")
    assert "halfcheetah-medium-replay-v2" in fails("--env", "halfcheetah-medium-replay")
    assert "--env antmaze-umaze" in fails("--env", "antmaze-umaze-v0")
    assert "--env kitchen-mixed" in fails("--env", "kitchen-mixed-v0")
    assert "python d4rl_to_minari.py" in fails("--env", "some.hdf5")


def test_no_network_says_where_to_put_what(fails, tmp_path):
    message = fails("--env", "hopper-medium-v2")
    assert "http://127.0.0.1:9/gym_mujoco_v2/hopper_medium-v2.hdf5" in message
    assert str(tmp_path / "d4rl" / "hopper_medium-v2.hdf5") in message
    assert str(tmp_path / "minari" / "D4RL/pen/human-v2") in fails("--env", "pen-human")


def test_half_a_dataset(fails, pendulum, tmp_path):
    (tmp_path / "minari/my/half-v0/data").mkdir(parents=True)
    assert "delete it" in fails("--env", "my/half-v0")
    path = tmp_path / "minari/test/pendulum-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    assert "delete it" in fails("--env", "test/pendulum-v0")


def test_a_damaged_episode(fails, pendulum, tmp_path):
    with h5py.File(tmp_path / "minari/test/pendulum-v0/data/main_data.hdf5", "a") as file:
        rewards = file["episode_0/rewards"][:-1]
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = rewards
    assert "InvertedPendulum-v5 needs" in fails("--env", "test/pendulum-v0", *TINY_FLAGS)


def test_too_few_transitions(fails, pendulum):
    settings = {**TINY, "batch_size": 10_000}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    assert "smaller --batch-size" in fails("--env", "test/pendulum-v0", *flags)


@pytest.mark.parametrize("env_id", ["Pixels-v0", "Categories-v0", "Discrete-v0", "Unbounded-v0"])
def test_spaces_that_do_not_fit(env_id):
    with pytest.raises(UserError, match="vectors, and bounded, continuous actions"):
        make_env(env_id)


def test_a_dataset_without_an_environment(fails, pendulum, tmp_path):
    path = tmp_path / "minari/test/pendulum-v0/data/metadata.json"
    path.write_text(path.read_text().replace('"InvertedPendulum-v5', '"NoSuchThing-v0'))
    text = path.read_text().replace('{\\"id\\": \\"InvertedPendulum-v5', '{\\"id\\": \\"Gone-v0')
    path.write_text(text.replace("inverted_pendulum_v5", "gone"))
    assert "test/pendulum-v0" in fails("--env", "test/pendulum-v0", *TINY_FLAGS)


def test_local_minari_names_without_a_namespace():
    make_minari("plain-v3")
    assert "plain-v3" in minari.list_local_datasets()
    assert len(load_dataset("plain-v3").transitions.state) > 0


def test_a_copy_of_the_file_alone(pendulum, tmp_path):
    """It trains on Minari's datasets, and says in a line what is missing for the others."""
    shutil.copy(diffusion_ql.__file__, tmp_path / "one_file.py")
    command = [sys.executable, "one_file.py", *TINY_FLAGS]
    subprocess.run([*command, "--env", "test/pendulum-v0", "--out", "run"], check=True)
    assert Path("run/result.json").exists()
    for env, module in (("two-roads", "toy_experiments"), ("hopper-medium-v2", "d4rl_to_minari")):
        done = subprocess.run([*command, "--env", env], capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"No module named '{module}" in done.stderr
