"""Environments that the tests register: goal tasks, time limits, and spaces that do not fit."""

import gymnasium as gym
import numpy as np

# AntMaze's umaze as in D4RL's data, and as Minari's evaluation environment has it (Minari#304)
UMAZE = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
MIRRORED = [row[::-1] for row in UMAZE]
MIRRORED[1] = [1, 0, 0, "r", 1]
MIRRORED[3] = [1, 0, 0, "g", 1]


class Goal(gym.Env):
    """A goal task with asymmetric actions, which it remembers, so that scaling can be checked."""

    action_space = gym.spaces.Box(np.float32([-1, 0]), np.float32([3, 1]))
    observation_space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(-9, 9, (3,)),
            "achieved_goal": gym.spaces.Box(-9, 9, (2,)),
            "desired_goal": gym.spaces.Box(-9, 9, (1,)),
        }
    )

    def __init__(self, **kwargs):
        self.actions = []

    def observe(self):
        return {
            "observation": np.full(3, 2, "f4"),
            "achieved_goal": np.full(2, 1, "f4"),
            "desired_goal": np.full(1, 3, "f4"),
        }

    def reset(self, seed=None, options=None):
        return self.observe(), {}

    def step(self, action):
        self.actions.append(action)
        return self.observe(), 1.0, False, False, {}


class Reach(Goal):
    """Like AntMaze in Minari: reward 1 whenever at the goal, and no end.

    Odd seeds reach it at the third step. dense: as with dense rewards, each step is worth 0.25.
    """

    def __init__(self, dense=False):
        super().__init__()
        self.dense = dense

    def reset(self, seed=None, options=None):
        self.t = 0
        self.reaches = seed is not None and seed % 2 == 1
        return super().reset()

    def step(self, action):
        self.t += 1
        reward = float(self.reaches and self.t >= 3)
        if self.dense:
            reward = 0.25
        return self.observe(), reward, False, False, {}


class Line(gym.Env):
    """A walk without an end, of two numbers; each step is worth 1."""

    action_space = gym.spaces.Box(-1, 1, (1,))
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def observe(self):
        return self.np_random.standard_normal(2).astype("f4")

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        return self.observe(), 1.0, False, False, {}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)


class AnyObservation(Goal):
    """Shows some observation of its space, which a subclass names."""

    def observe(self):
        return self.observation_space.sample()


class Pixels(AnyObservation):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Categories(AnyObservation):
    observation_space = gym.spaces.Discrete(4)


class Pair(AnyObservation):
    observation_space = gym.spaces.Tuple([gym.spaces.Box(-9, 9, (2,)), gym.spaces.Box(-9, 9, (1,))])


class Camera(AnyObservation):
    """A Dict with keys of its own, as robots have."""

    observation_space = gym.spaces.Dict(
        {"agent_pos": gym.spaces.Box(-9, 9, (2,)), "velocity": gym.spaces.Box(-9, 9, (2,))}
    )


class Discrete(Goal):
    action_space = gym.spaces.Discrete(3)


class Unbounded(Goal):
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,))


for name in "Goal Pixels Categories Pair Camera Discrete Unbounded".split():
    gym.register(f"{name}-v0", f"environments:{name}", max_episode_steps=6)
gym.register("AntMazeLike-v0", "environments:Reach", max_episode_steps=6)
dense = dict(max_episode_steps=6, kwargs={"dense": True})
gym.register("AntMazeLikeDense-v0", "environments:Reach", **dense)
for name, limit in {"Line": 5, "LongLine": 1500, "EndlessLine": None}.items():
    gym.register(f"{name}-v0", "environments:Line", max_episode_steps=limit)
