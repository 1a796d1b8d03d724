"""Loading: three kinds of name, D4RL's and Minari's conventions, and what goes wrong."""
import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS, make_d4rl, make_minari

import diffusion_ql
from diffusion_ql import MINARI_IDS, PAPER_TASKS, Args, UserError, evaluate, load_dataset, paper_name


class Goal(gym.Env):
    """A goal task with an asymmetric action space; it hands back the last action, so that the scaling can be checked."""
    action_space = gym.spaces.Box(np.float32([-1, 0]), np.float32([3, 1]))
    observation_space = gym.spaces.Dict({key: gym.spaces.Box(-9, 9, (width,)) for key, width in (
        ("observation", 3), ("achieved_goal", 2), ("desired_goal", 1))})

    def __init__(self, **kwargs):
        self.actions = []

    def obs(self):
        return {"observation": np.full(3, 2, "f4"), "achieved_goal": np.full(2, 1, "f4"), "desired_goal": np.full(1, 3, "f4")}

    def reset(self, seed=None, options=None):
        return self.obs(), {}

    def step(self, action):
        self.actions.append(action)
        return self.obs(), 1.0, False, False, {}


class Reach(Goal):
    """Like AntMaze in Minari: reward 1 whenever at the goal, which the odd seeds reach at the third step; never ends."""
    def reset(self, seed=None, options=None):
        self.t, self.reaches = 0, bool(seed is not None and seed % 2)
        return self.obs(), {}

    def step(self, action):
        self.t += 1
        return self.obs(), float(self.reaches and self.t >= 3), False, False, {}


class Pixels(Goal):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def obs(self):
        return np.zeros((8, 8, 3), np.uint8)


class Discrete(Goal):
    action_space = gym.spaces.Discrete(3)


for cls, name in (("Goal", "Goal-v0"), ("Reach", "AntMazeLike-v0"), ("Pixels", "Pixels-v0"), ("Discrete", "Discrete-v0")):
    gym.register(name, f"test_data:{cls}", max_episode_steps=6)


class Constant:
    """An agent that always plays the same action, inside [-1, 1]."""
    device = torch.device("cpu")

    def __init__(self, action):
        self.action, self.calls = torch.tensor(action), []

    def act(self, states):
        self.calls.append(len(states))
        return self.action.repeat(len(states), 1)


def test_every_paper_task_has_a_row_and_a_name():
    assert len(PAPER_TASKS) == 20
    assert paper_name("mujoco/walker2d/medium-v0") == "walker2d-medium-v2"
    assert paper_name("hopper-medium-expert") == "hopper-medium-expert-v2"
    assert paper_name("walker2d-expert") == "walker2d-medium-expert-v2"
    assert paper_name("data/pen-human-v1.hdf5") == "pen-human-v1"
    assert paper_name("halfcheetah_medium_replay-v2.hdf5") == "halfcheetah-medium-replay-v2"
    assert paper_name("my/dataset-v1") is None
    assert MINARI_IDS["walker2d-medium-expert"] == ["mujoco/walker2d/medium-v0", "mujoco/walker2d/expert-v0"]
    assert MINARI_IDS["antmaze-medium-play"] == ["D4RL/antmaze/medium-play-v1"]
    assert MINARI_IDS["kitchen-mixed"] == ["D4RL/kitchen/mixed-v2"] and MINARI_IDS["pen-human"] == ["D4RL/pen/human-v2"]


def test_the_papers_hyperparameters_are_defaults_that_can_be_overridden():
    args = Args.for_env("antmaze-large-play")
    assert (args.lr, args.eta, args.max_q_backup, args.reward_tune, args.steps, args.grad_norm, args.top_k) == (
        3e-4, 4.5, True, "cql_antmaze", 1_000_000, 10, 2)
    assert args.eval_every == 50_000
    assert Args.for_env("antmaze-large-play", eta=1.0, steps=100).eta == 1.0


def test_minari_episodes_keep_their_last_step(pendulum):
    data = load_dataset("test/pendulum-v0")
    episodes = list(pendulum.iterate_episodes())
    assert len(data.transitions.state) == pendulum.total_steps
    ends = np.cumsum([len(episode.actions) for episode in episodes]) - 1
    for end, episode in zip(ends, episodes):
        np.testing.assert_allclose(data.transitions.next_state[end], episode.observations[-1], rtol=1e-6)
        assert data.transitions.not_done[end] == 1 - episode.terminations[-1]
    np.testing.assert_allclose(data.transitions.action[0], episodes[0].actions[0] / 3, rtol=1e-6)  # Box(-3, 3)
    assert data.score(np.array([3.0, 950.0])).tolist() == [0, 100] and data.eval_episodes == 10


def test_without_reference_scores_the_score_is_the_return():
    make_minari("test/plain-v0")
    assert load_dataset("test/plain-v0").score(np.array([42.0])).tolist() == [42]


def test_medium_expert_is_both_datasets():
    for seed, level in enumerate(("medium", "expert")):
        make_minari(f"mujoco/hopper/{level}-v0", "Hopper-v5", episodes=2, seed=seed)
    sizes = [len(load_dataset(f"mujoco/hopper/{level}-v0").transitions.state) for level in ("medium", "expert")]
    data = load_dataset("hopper-medium-expert")
    assert len(data.transitions.state) == sum(sizes)
    assert data.reference == pytest.approx([-20.272305, 3234.3]) and data.env_id == "Hopper-v5"


def test_goal_tasks_and_asymmetric_actions():
    dataset = make_minari("test/goal-v0", "Goal-v0", episodes=3)
    data = load_dataset("test/goal-v0")
    np.testing.assert_array_equal(data.transitions.state[0], [1, 1, 2, 2, 2, 3])  # achieved goal, observation, desired goal
    raw = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    np.testing.assert_allclose(data.transitions.action, (raw - [1, 0.5]) / [2, 0.5], atol=1e-6)
    evaluate(Constant([-1.0, 1.0]), data, episodes=1)
    np.testing.assert_allclose(data.envs[0].unwrapped.actions, [[-1, 1]] * 6)


def test_antmaze_ends_at_the_goal_and_scores_success():
    make_minari("test/antmaze-v0", "AntMazeLike-v0", episodes=4)
    data = load_dataset("test/antmaze-v0")
    rewards, not_done = data.transitions.reward, data.transitions.not_done
    assert 0 < rewards.sum() == (1 - not_done).sum()
    agent = Constant([0.0, 0.0])
    returns = evaluate(agent, data, episodes=4, seed=100)
    assert returns.tolist() == [0, 1, 0, 1]
    assert agent.calls == [4, 4, 4, 2, 2, 2]  # episodes that reached the goal no longer take part


def test_real_antmaze_and_kitchen_environments():
    """The environments of two Minari domains, from datasets of one short episode each."""
    make_minari("test/maze-v0", "AntMaze_UMaze-v4", episodes=1, max_episode_steps=5)
    make_minari("test/kitchen-v0", "FrankaKitchen-v1", episodes=1, max_episode_steps=5, tasks_to_complete=["kettle"])
    assert load_dataset("test/maze-v0").state_dim == 31
    kitchen = load_dataset("test/kitchen-v0")
    assert kitchen.state_dim == 59 and evaluate(Constant([0.0] * 9), kitchen, episodes=1).tolist() == [0]


def test_evaluation_counts_one_episode_each_and_leaves_the_random_state(pendulum):
    data = load_dataset("test/pendulum-v0")
    before = torch.get_rng_state()
    agent = Constant([0.2])
    returns = evaluate(agent, data, episodes=5)
    assert torch.equal(before, torch.get_rng_state())
    alone = []
    for i in range(5):
        env = data.make_env()
        env.reset(seed=100 + i)
        total, done = 0, False
        while not done:
            _, reward, terminated, truncated, _ = env.step(np.float32([0.2]))
            total, done = total + reward, terminated or truncated
        alone.append(total)
    np.testing.assert_allclose(returns, alone)
    assert len(agent.calls) == max(alone) + 1 or len(agent.calls) == max(alone)  # reward 1 per step that stands
    np.testing.assert_allclose(evaluate(agent, data, episodes=5), returns)


def test_d4rl_q_learning_view(tmp_path):
    arrays = make_d4rl(tmp_path / "file.hdf5")
    data = load_dataset("file.hdf5", "InvertedPendulum-v5").transitions
    keep = [i for i in range(59) if not arrays["timeouts"][i]]
    np.testing.assert_allclose(data.state, arrays["observations"][keep])
    np.testing.assert_allclose(data.next_state, arrays["observations"][[i + 1 for i in keep]])
    np.testing.assert_allclose(data.reward[:, 0], arrays["rewards"][keep])
    np.testing.assert_array_equal(data.not_done[:, 0], 1 - arrays["terminals"][keep])


def test_d4rl_names_look_in_d4rls_cache(tmp_path):
    make_d4rl(tmp_path / "d4rl" / "hopper_medium_replay-v2.hdf5", width=11, action_width=3, actions=np.zeros((60, 3), "f4"))
    make_d4rl(tmp_path / "d4rl" / "pen-human-v1.hdf5", width=45, action_width=24, actions=np.zeros((60, 24), "f4"))
    data = load_dataset("hopper-medium-replay-v2")
    assert data.env_id == "Hopper-v4" and data.score(np.array([3234.3])) == pytest.approx(100)
    pen = load_dataset("pen-human-v1")
    assert pen.env_id == "AdroitHandPen-v1" and pen.eval_episodes == 100


def test_download_is_kept_only_when_whole(tmp_path, monkeypatch, fails):
    make_d4rl(tmp_path / "web" / "gym_mujoco_v2" / "hopper_medium-v2.hdf5", width=11, action_width=3, actions=np.zeros((60, 3), "f4"))
    monkeypatch.setattr(diffusion_ql, "D4RL_URL", (tmp_path / "web").as_uri() + "/")
    whole = tmp_path / "web" / "gym_mujoco_v2" / "hopper_medium-v2.hdf5"
    content = whole.read_bytes()
    whole.write_bytes(content[:len(content) // 2])
    assert "cannot download" in fails("--env", "hopper-medium-v2")
    assert list((tmp_path / "d4rl").iterdir()) == [] or not (tmp_path / "d4rl" / "hopper_medium-v2.hdf5").exists()
    whole.write_bytes(content)
    assert len(load_dataset("hopper-medium-v2").transitions.state) == 56
    assert (tmp_path / "d4rl" / "hopper_medium-v2.hdf5").read_bytes() == content


def test_unknown_names(fails):
    assert "walker2d-medium" in fails("--env", "walker2d-mediun")
    assert "halfcheetah-medium-replay-v2" in fails("--env", "halfcheetah-medium-replay")
    assert "--env antmaze-umaze" in fails("--env", "antmaze-umaze-v0")
    assert "--env kitchen-mixed" in fails("--env", "kitchen-mixed-v0")
    assert "--env-id" in fails("--env", "some.hdf5")
    assert "no file" in fails("--env", "some.hdf5", "--env-id", "Hopper-v4")


def test_no_network_says_where_to_put_what(fails, tmp_path):
    message = fails("--env", "hopper-medium-v2")
    assert "http://127.0.0.1:9/gym_mujoco_v2/hopper_medium-v2.hdf5" in message and str(tmp_path / "d4rl" / "hopper_medium-v2.hdf5") in message
    message = fails("--env", "pen-human")
    assert "D4RL/pen/human-v2" in message and str(tmp_path / "minari") in message


@pytest.mark.parametrize("change, says", [
    ({"rewards": None}, "has no rewards"),
    ({"rewards": np.zeros(59, "f4")}, "lengths"),
    ({"observations": np.zeros((60, 5), "f4")}, "wide"),
    ({"actions": np.zeros((60, 2), "f4")}, "wide"),
    ({"observations": np.full((60, 4), np.nan, "f4")}, "NaN"),
    ({"rewards": np.full(60, np.inf, "f4")}, "NaN or infinity"),
    ({"actions": np.full((60, 1), 3.1, "f4")}, "out of the bounds"),
    ({key: np.zeros((0, 4) if key == "observations" else (0, 1) if key == "actions" else 0, "f4") for key in (
        "observations", "actions", "rewards", "terminals", "timeouts")}, "no transitions"),
    ({"observations": np.zeros(60, "f4")}, "wide"),
])
def test_files_that_do_not_fit(change, says, fails, tmp_path):
    make_d4rl(tmp_path / "bad.hdf5", **change)
    assert says in fails("--env", "bad.hdf5", "--env-id", "InvertedPendulum-v5", *TINY_FLAGS)
    assert not (tmp_path / "runs").exists()


def test_files_that_cannot_be_read(fails, tmp_path):
    (tmp_path / "text.hdf5").write_text("not HDF5")
    assert "cannot read" in fails("--env", "text.hdf5", "--env-id", "Hopper-v4")
    make_d4rl(tmp_path / "half.hdf5")
    content = (tmp_path / "half.hdf5").read_bytes()
    (tmp_path / "half.hdf5").write_bytes(content[:len(content) // 2])
    assert "cut off" in fails("--env", "half.hdf5", "--env-id", "Hopper-v4")
    (tmp_path / "minari" / "my" / "half-v0" / "data").mkdir(parents=True)
    assert "cut off" in fails("--env", "my/half-v0")


def test_a_minari_dataset_with_a_damaged_episode(fails, pendulum, tmp_path):
    with h5py.File(tmp_path / "minari/test/pendulum-v0/data/main_data.hdf5", "a") as file:
        rewards = file["episode_0/rewards"][:-1]
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = rewards
    assert "episode 0" in fails("--env", "test/pendulum-v0", *TINY_FLAGS)


def test_spaces_and_sizes(fails, pendulum):
    assert "smaller --batch-size" in fails("--env", "test/pendulum-v0", *TINY_FLAGS, "--batch-size", 10_000)
    for env_id, says in ("Pixels-v0", "not for images"), ("Discrete-v0", "continuous"), ("NoSuchThing-v0", "--env-id"):
        assert says in fails("--env", "test/pendulum-v0", "--env-id", env_id, *TINY_FLAGS)


def test_errors_can_be_caught_in_a_notebook():
    with pytest.raises(UserError, match="no task"):
        load_dataset("walker2d-mediun")


def test_local_minari_names_without_a_namespace():
    make_minari("plain-v3")
    assert "plain-v3" in minari.list_local_datasets()
    assert len(load_dataset("plain-v3").transitions.state) > 0
