"""Environments that the tests register: goal tasks, and spaces that do not fit."""

import gymnasium as gym
import numpy as np


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

    Odd seeds reach it at the third step.
    """

    def reset(self, seed=None, options=None):
        self.t = 0
        self.reaches = seed is not None and seed % 2 == 1
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), float(self.reaches and self.t >= 3), False, False, {}


class Pixels(Goal):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def observe(self):
        return np.zeros((8, 8, 3), np.uint8)


class Categories(Goal):
    observation_space = gym.spaces.Discrete(4)

    def observe(self):
        return 0


class Discrete(Goal):
    action_space = gym.spaces.Discrete(3)


class Unbounded(Goal):
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,))


gym.register("Goal-v0", "environments:Goal", max_episode_steps=6)
gym.register("AntMazeLike-v0", "environments:Reach", max_episode_steps=6)
gym.register("Pixels-v0", "environments:Pixels", max_episode_steps=6)
gym.register("Categories-v0", "environments:Categories", max_episode_steps=6)
gym.register("Discrete-v0", "environments:Discrete", max_episode_steps=6)
gym.register("Unbounded-v0", "environments:Unbounded", max_episode_steps=6)
