"""Datasets: their names and settings, Minari's conventions, evaluation, and what goes wrong."""

import json
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import conftest as kit
import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from conftest import ENV, TINY, TINY_FLAGS, edit_metadata, make_minari
from environments import MIRRORED, UMAZE

import diffusion_ql
from diffusion_ql import TASKS, Args, Dataset, evaluate, find_task, load_dataset, make_env, train

PENDULUM = "InvertedPendulum-v5"
NO_ENV = dict(env_spec=None, eval_env_spec=None)  # of a dataset's metadata


# ---- Names and settings --------------------------------------------------------------------------
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
NAMES = {  # of --env, and the Minari dataset that each leads to
    "walker2d-medium": "mujoco/walker2d/medium-v0",
    "mujoco/hopper/medium-v0": "mujoco/hopper/medium-v0",
    "hopper-medium-replay": "d4rl/hopper/medium-replay-v2",
    "d4rl/hopper/medium-v2": "d4rl/hopper/medium-v2",
    "pen-human": "D4RL/pen/human-v2",
    "pen-human-v1": "d4rl/pen/human-v1",
    "kitchen-complete-v0": "d4rl/kitchen/complete-v0",
    "two-roads": "toy/two-roads-v1",
}
LOST = {  # names that lead to nothing, and what is said about them
    "": "two-roads",
    "walker2d-mediun": "walker2d-medium",
    "some.hdf5": "d4rl_to_minari.py",
    "my/missing-v0": "my/missing-v0",
    "hf://user/name": "name",
    "pen-human": "D4RL/pen/human-v2",
}


@pytest.mark.parametrize("env", PAPER)
def test_the_papers_settings(env):
    args = Args(env=env)
    settings = (args.lr, args.eta, args.max_q_backup, args.reward_tune, args.steps)
    assert (*settings, args.grad_norm, args.top_k) == PAPER[env]
    assert args.eval_episodes == (10 if args.steps == 2_000_000 else 100)
    shared = (args.critic_lr, args.batch_size, args.n_timesteps, args.discount, args.tau)
    assert shared == (3e-4, 256, 5, 0.99, 0.005)
    assert diffusion_ql.parse_args(["--env", env])[1] == args


def test_settings_of_a_task_can_be_overridden():
    args = Args(env="antmaze-large-play", eta=1.0, steps=100)
    assert (args.eta, args.steps, args.lr, args.reward_tune) == (1.0, 100, 3e-4, "cql_antmaze")
    assert Args(env="my/data-v0").steps == Args().steps == 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_names_of_datasets(name):
    row, minari_ids = find_task(name)
    assert minari_ids == [NAMES[name]] and row in TASKS.values()


# ---- Minari's conventions ------------------------------------------------------------------------
def test_minari_episodes_keep_their_last_step(pendulum):
    data = load_dataset(ENV)
    episodes = list(pendulum.iterate_episodes())
    assert len(data.transitions.state) == pendulum.total_steps
    ends = np.cumsum([len(episode.actions) for episode in episodes]) - 1
    for last, episode in zip(data.transitions.next_state[ends], episodes, strict=True):
        np.testing.assert_allclose(last, episode.observations[-1], rtol=1e-6)
    terminals = [episode.terminations[-1] for episode in episodes]
    assert data.transitions.not_done[ends, 0].tolist() == np.logical_not(terminals).tolist()
    scaled = episodes[0].actions[0] / 3  # Box(-3, 3)
    np.testing.assert_allclose(data.transitions.action[0], scaled, rtol=1e-6)
    assert data.score(np.array([3.0, 950.0])).tolist() == [0, 100]


def test_medium_expert_is_both_datasets():
    for seed, level in enumerate(("medium", "expert")):
        make_minari(f"mujoco/hopper/{level}-v0", "Hopper-v5", episodes=2, seed=seed)
    medium = load_dataset("mujoco/hopper/medium-v0").transitions.state
    expert = load_dataset("hopper-expert").transitions.state
    data = load_dataset("hopper-medium-expert")
    assert torch.equal(data.transitions.state, torch.cat([medium, expert]))
    assert data.score(np.array([-20.272305, 3234.3])) == pytest.approx([0, 100])


def test_goal_tasks_and_asymmetric_actions():
    dataset = make_minari("test/goal-v0", "Goal-v0", episodes=3)
    data = load_dataset("test/goal-v0")
    # achieved goal, observation, desired goal
    np.testing.assert_array_equal(data.transitions.state[0], [1, 1, 2, 2, 2, 3])
    raw = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    np.testing.assert_allclose(data.transitions.action, (raw - [1, 0.5]) / [2, 0.5], atol=1e-6)
    evaluate(kit.Constant(-1.0, 1.0), data, episodes=1)
    np.testing.assert_allclose(data.envs[0].unwrapped.actions, [[-1, 1]] * 6)


def test_antmaze_ends_at_the_goal_and_scores_success():
    make_minari("test/antmaze-v0", "AntMazeLike-v0", episodes=4)
    data = load_dataset("test/antmaze-v0")
    assert 0 < data.transitions.reward.sum() == (1 - data.transitions.not_done).sum()
    agent = kit.Constant(0.0, 0.0)
    returns = evaluate(agent, data, episodes=8)
    assert set(returns) == {0, 1}
    running = [len(states) for states in agent.states]  # who reached the goal no longer takes part
    assert running == [8] * 3 + [8 - returns.sum()] * 3

    make_minari("test/dense-v0", "AntMazeLikeDense-v0", episodes=2)
    dense = load_dataset("test/dense-v0")  # with dense rewards it goes on
    assert dense.transitions.not_done.all()
    assert evaluate(kit.Constant(0.0, 0.0), dense, episodes=1) == [1.5]


@pytest.mark.parametrize("part", ["umaze", "umaze-diverse"])
def test_umaze_is_scored_in_the_maze_of_the_data(part, capsys):
    """Minari's evaluation environment has the mirrored maze (Minari#304)."""
    eval_env = gym.make("AntMaze_UMaze-v4", maze_map=MIRRORED)
    settings = {"max_episode_steps": 5, "maze_map": UMAZE, "eval_env": eval_env}
    make_minari(f"D4RL/antmaze/{part}-v1", "AntMaze_UMaze-v4", episodes=1, **settings)
    data = load_dataset(f"antmaze-{part}")
    assert "Minari#304" in capsys.readouterr().out
    walls = [[str(cell) == "1" for cell in row] for row in data.env_spec.kwargs["maze_map"]]
    assert walls == [[cell == 1 for cell in row] for row in UMAZE]
    start, goal = np.split(data.envs[0].reset(seed=0)[0][[0, 1, -2, -1]], 2)
    assert start[0] < -2 and start[1] > 2 and goal[0] < -2 and goal[1] < -2  # left; up, and down
    assert data.env_spec.max_episode_steps == 700


@pytest.mark.parametrize(
    "env_id, state_dim", [("FrankaKitchen-v1", 59), ("AntMaze_UMaze-v4", 31), (PENDULUM, 4)]
)
def test_real_environments_and_no_warnings(env_id, state_dim, capsys):
    make_minari("quiet-v0", env_id, episodes=1, max_episode_steps=5)
    edit_metadata("quiet-v0", requirements=["mujoco==3.2.3", "not-installed>=1"])
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset("quiet-v0")
    assert data.state_dim == state_dim and capsys.readouterr() == ("", "")
    assert data.score(np.array([42.0])) == [42]  # the return, where there are no references
    assert len(evaluate(kit.Constant(*[0.0] * data.action_dim), data, episodes=1)) == 1


def test_minaris_pen_says_what_its_scores_mean(capsys):
    make_minari("D4RL/pen/human-v2", "AdroitHandPen-v1", episodes=1)
    assert load_dataset("pen-human").env_spec.max_episode_steps == 200
    assert "100" in capsys.readouterr().out


# ---- Evaluation ----------------------------------------------------------------------------------
def test_an_evaluation_counts_one_episode_each(pendulum):
    data = load_dataset(ENV)
    before = torch.get_rng_state()
    agent = kit.Constant(0.2)
    returns = evaluate(agent, data, episodes=5)
    assert torch.equal(before, torch.get_rng_state())
    seeds = np.random.SeedSequence(0).generate_state(6)[1:].tolist()
    for start, seed, episode_return in zip(agent.states[0], seeds, returns, strict=True):
        env = gym.wrappers.RecordEpisodeStatistics(make_env(data.env_spec))
        assert env.reset(seed=seed)[0].tolist() == start.tolist()
        info = {}
        while "episode" not in info:
            *_, info = env.step(np.float32([0.2]))
        assert info["episode"]["r"] == pytest.approx(episode_return)


@pytest.mark.parametrize("seed", [(0, 20), (1, 10), (0, 10, 1), 0])
def test_another_seed_or_step_draws_other_starts_and_noise(seed, pendulum):
    agents = [kit.Constant(0.2) for _ in range(3)]
    for agent, its_seed in zip(agents, [(0, 10), (0, 10), seed], strict=True):
        evaluate(agent, load_dataset(ENV), episodes=3, seed=its_seed)
    a, same, other = [(agent.states[0].tolist(), agent.noise[0]) for agent in agents]
    assert a == same and a[0] != other[0] and a[1] != other[1]


def test_never_more_than_ten_simulators(pendulum, monkeypatch):
    made = []
    make = diffusion_ql.make_env
    monkeypatch.setattr(diffusion_ql, "make_env", lambda *a, **k: made.append(1) or make(*a, **k))
    data = load_dataset(ENV)
    for episodes in (3, 25, 12):
        agent = kit.Constant(0.2)
        assert len(evaluate(agent, data, episodes)) == episodes
        assert max(len(states) for states in agent.states) <= 10
    assert len(made) == len(data.envs) == 10


@pytest.mark.parametrize("kind, steps", [("Line", 5), ("LongLine", 1500), ("EndlessLine", 1000)])
def test_time_limits(kind, steps):
    """An environment's own, also above 1,000; 1,000 where it has none."""
    data = Dataset(*kit.some_columns(2), env=f"{kind}-v0")
    assert evaluate(kit.Constant(0.0), data, episodes=1).tolist() == [steps]


# ---- Data of one's own ---------------------------------------------------------------------------
@pytest.mark.parametrize("env", [PENDULUM, gym.spec(PENDULUM)])
def test_a_dataset_made_in_memory(env):
    arrays = kit.some_columns()
    data = Dataset(*arrays, env=env, reference=(0, 1000))
    assert np.isfinite(train(Args(out="run", **TINY), data)["final"]["score"])
    lists = [array.reshape(len(array), -1).tolist() for array in arrays]
    for a, b in zip(data.transitions, Dataset(*lists, env=env).transitions, strict=True):
        assert torch.equal(a, b)


COLUMNS = ["states", "actions", "next_states", "rewards", "terminals"]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("bad", ["NaN", "infinite", "short", "long", "wide", "empty"])
def test_columns_that_do_not_fit(bad, name):
    columns = dict(zip(COLUMNS, kit.some_columns(), strict=True))
    array = columns[name].astype(float).reshape(49, 1, -1)[:, 0]
    if bad in ("NaN", "infinite"):
        array[3] = np.nan if bad == "NaN" else np.inf
    rows = {"short": 48, "long": 50, "empty": 0}.get(bad, 49)
    columns[name] = np.resize(array, (rows, array.shape[1] * (2 if bad == "wide" else 1)))
    with pytest.raises(ValueError, match=name):
        Dataset(**columns, env=PENDULUM)


def test_constant_rewards_cannot_be_normalized():
    with pytest.raises(ValueError, match="rewards are equal"):
        train(Args(out="run", reward_tune="normalize", **TINY), Dataset(*kit.some_columns()))
    assert not Path("run").exists()


def test_without_an_environment_it_trains_and_says_that_it_cannot_score(cli, fails, pendulum):
    edit_metadata(ENV, **NO_ENV)
    assert load_dataset(ENV).transitions.action.abs().max() <= 1  # the dataset knows Box(-3, 3)
    code, out, err = cli("--env", ENV, *TINY_FLAGS, "--out", "run")
    assert code == 0 and "not scored" in out, err
    assert {path.name for path in Path("run/agents").iterdir()} == {"10.pt", "20.pt"}
    result = json.loads(Path("run/result.json").read_text())
    assert "online" not in result and result["final"]["step"] == 20
    assert "environment" in fails("--evaluate", "run")
    assert "online" in fails("--evaluate", "run", "--which", "online")


@pytest.mark.parametrize("kind", ["Discrete", "Unbounded"])
def test_without_an_environment_actions_have_to_be_bounded_vectors(kind, fails):
    make_minari("test/strange-v0", f"{kind}-v0", episodes=4)
    edit_metadata("test/strange-v0", **NO_ENV)
    message = fails("--env", "test/strange-v0", *TINY_FLAGS)
    assert "bounded" in message and "clip" not in message


# ---- What goes wrong -----------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, NO_ENV], ids=["scored", "not scored"])
@pytest.mark.parametrize(
    "column, change, says",
    [
        ("observations", kit.put(3, np.nan), "NaN or infinity in row 3 of states"),
        ("observations", lambda array: array[:-1], "T + 1 observations"),
        ("actions", kit.put(1, np.nan), "NaN or infinity in row 1 of actions"),
        ("actions", kit.put(1, 3.1), "out of the bounds"),
    ],
)
def test_values_that_do_not_fit(column, change, says, changes, fails, pendulum):
    kit.edit_episode(ENV, column, change)
    edit_metadata(ENV, **changes)
    assert says in fails("--env", ENV, *TINY_FLAGS) and not Path("runs").exists()


@pytest.mark.parametrize("env", LOST)
def test_names_that_lead_to_nothing(env, fails):
    message = fails("--env", env)
    assert LOST[env] in message and "delete" not in message and not Path("runs").exists()


def test_a_dataset_of_somebody_else_on_hugging_face(monkeypatch):
    monkeypatch.setattr(minari, "download_dataset", lambda name: make_minari(name[11:]))
    assert load_dataset("hf://owner/my/data-v0").state_dim == 4


def test_of_two_first_runs_one_waits_for_the_download(monkeypatch):
    def download(name):
        folder = minari.storage.get_dataset_path(name)
        folder.mkdir(parents=True)  # fails if another one is there
        time.sleep(0.3)
        folder.rmdir()
        make_minari(name)

    monkeypatch.setattr(minari, "download_dataset", download)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(load_dataset, ["my/data-v0"] * 2)
    assert torch.equal(first.transitions.state, second.transitions.state)


def test_half_a_dataset(fails, pendulum, tmp_path):
    (tmp_path / "minari/my/half-v0/data").mkdir(parents=True)
    assert "cannot load my/half-v0" in fails("--env", "my/half-v0")
    path = tmp_path / "minari/test/pendulum-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    assert f"cannot load {ENV}" in fails("--env", ENV)


SPEC = json.dumps({**json.loads(gym.spec(PENDULUM).to_json()), "entry_point": "gone:Env"})


@pytest.mark.parametrize(
    "need, metadata",
    [
        ("pyarrow", {"data_format": "arrow"}),
        ("99.0.0", {"minari_version": "99.0.0"}),
        ("gone", {"env_spec": SPEC, "eval_env_spec": SPEC}),
    ],
)
def test_whole_datasets_that_need_something_else(need, metadata, fails, pendulum, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    edit_metadata(ENV, **metadata)
    message = fails("--env", ENV, *TINY_FLAGS)
    assert need in message and "delete" not in message


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), BlockingIOError(11, "locked")])
def test_files_that_others_keep_are_not_damaged(error, fails, pendulum, monkeypatch):
    monkeypatch.setattr(minari, "load_dataset", Mock(side_effect=error))
    message = fails("--env", ENV)
    assert error.strerror in message and "delete" not in message


def test_data_folders_that_cannot_be_written(pendulum, monkeypatch):
    refuse = Mock(side_effect=PermissionError("read-only"))
    monkeypatch.setattr(diffusion_ql.FileLock, "acquire", refuse)
    assert load_dataset(ENV).state_dim == 4


@pytest.mark.parametrize("kind", "Pixels Categories Pair Camera Discrete Unbounded".split())
def test_spaces_that_do_not_fit(kind, fails):
    with pytest.raises(ValueError, match="vectors"):
        make_env(f"{kind}-v0")
    make_minari("test/strange-v0", f"{kind}-v0", episodes=2)
    message = fails("--env", "test/strange-v0", *TINY_FLAGS)
    assert "vectors" in message and "delete" not in message
