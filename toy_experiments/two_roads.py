"""Two roads to one goal: a task with real physics that Diffusion-QL learns on a laptop in minutes.

A ball starts on the left, the goal is on the right, and a block lies between them, with a pocket on
its left side. Half of the demonstrations take the short road below the block, half the long one
above it. Every step at the goal is worth 1. So the data has two modes at the start, whose average
runs into the pocket, and one of them is better.

This file holds the environment TwoRoads-v0, the collecting of the Minari dataset toy/two-roads-v1,
and how paths are driven, counted and drawn.
"""

import sys

import numpy as np

sys.modules["farama_notifications"] = None  # or gymnasium-robotics prints news
import gymnasium as gym
import torch
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffusion_ql import evaluate

MAZE = [
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [1, 0, 0, 0, 0, 0, 0, 0, 1],
    [1, 0, 0, 1, 1, 1, 0, 0, 1],
    [1, "r", 0, 0, 1, 1, 0, 0, 1],
    [1, 0, 0, 1, 1, 1, 0, 0, 1],
    [1, 0, 0, 0, 0, 0, 0, "g", 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
]  # r: start, g: goal; cells of 1 by 1, the origin in the middle
START = (-3, 0)
GOAL = (3, -2)
ROADS = {"short": [(-2, -2), GOAL], "long": [(-2, 2), (2.5, 2), GOAL]}  # waypoints (x, y)
STEPS = 60  # decisions in an episode
HOLD = 5  # simulator steps (of 0.01 s) for which an action is held
NAME = "toy/two-roads-v1"
COLORS = {"short": "#882255", "long": "#DDCC77", "stuck": "#999999"}  # of no method


class TwoRoads(PointMazeEnv):
    """gymnasium-robotics' PointMaze with the maze above.

    Actions (2,) are forces in [-1, 1], held for 5 simulator steps.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # a decision is 0.05 s

    def __init__(self, render_mode=None):
        super().__init__(maze_map=MAZE)
        self.render_mode = render_mode

    def step(self, action):
        for _ in range(HOLD):
            result = super().step(action)
        return result

    def render(self):
        """The maze and the ball (280, 360, 3), uint8. MuJoCo's own renderer needs a screen."""
        figure = Figure(figsize=(4.5, 3.5), dpi=80)  # 40 pixels are a cell
        canvas = FigureCanvasAgg(figure)
        axis = figure.add_axes((0, 0, 1, 1))
        draw_maze(axis)
        axis.plot(*self.data.qpos, "o", color="#0072B2", ms=7)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]


if "TwoRoads-v0" not in gym.registry:
    gym.register("TwoRoads-v0", "toy_experiments.two_roads:TwoRoads", max_episode_steps=STEPS)


def draw_maze(axis):
    """The walls and the goal, on an axis of matplotlib."""
    walls = np.array(MAZE, dtype=str) == "1"
    height, width = walls.shape
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    axis.imshow(np.where(walls, 0.27, 1), extent=extent, cmap="gray", vmin=0, vmax=1)
    axis.plot(*GOAL, "k*", ms=12, zorder=3)
    axis.set(xticks=[], yticks=[])


def drive(env, road, rng, noise, speed, seed):
    """One episode of a controller that heads for waypoints.

    Returns observations (STEPS + 1 of them), actions (STEPS, 2), rewards (STEPS,).
    """
    observation, _ = env.reset(seed=seed)
    observations = [observation]
    actions = []
    rewards = []
    waypoints = [np.array(point) + 0.3 * noise * rng.standard_normal(2) for point in ROADS[road]]
    while len(rewards) < STEPS:
        position, velocity = np.split(observation["observation"], 2)
        if len(waypoints) > 1 and np.linalg.norm(waypoints[0] - position) < 0.5:
            waypoints.pop(0)
        ahead = waypoints[0] - position
        wanted_velocity = speed * ahead / max(np.linalg.norm(ahead), 1)
        action = 5 * (wanted_velocity - velocity) + noise * rng.standard_normal(2)
        action = np.clip(action, -1, 1).astype(np.float32)
        observation, reward, _, _, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    return observations, np.array(actions), np.array(rewards)


def random_return(env, seed, episodes=10):
    """The mean return of uniformly random actions."""
    env.action_space.seed(seed)
    env.reset(seed=seed)
    total = 0
    for _ in range(episodes):
        env.reset()
        for _ in range(STEPS):
            _, reward, _, _, _ = env.step(env.action_space.sample())
            total += reward
    return float(total / episodes)


def make(minari_id=NAME, episodes=200, seed=0):
    """Makes the Minari dataset: half of the episodes on each road.

    Its folder appears only when it is whole. Reference scores: 0 is the return of uniformly random
    actions, 100 that of the short road without noise at full speed.
    """
    from minari.data_collector import EpisodeBuffer

    from d4rl_to_minari import store

    print(f"collecting {episodes} demonstrations for {minari_id}: some seconds, once", flush=True)
    env = gym.make("TwoRoads-v0")
    rng = np.random.default_rng(seed)
    buffers = []
    for i in range(episodes):
        road = ("short", "long")[i % 2]
        observations, actions, rewards = drive(env, road, rng, noise=0.3, speed=4.5, seed=seed + i)
        stacked = {}
        for name in observations[0]:
            stacked[name] = np.stack([observation[name] for observation in observations])
        never = np.zeros(STEPS, dtype=bool)
        at_the_end = np.arange(STEPS) == STEPS - 1
        buffers.append(
            EpisodeBuffer(i, seed + i, None, stacked, actions, rewards, never, at_the_end)
        )
    low = random_return(env, seed)
    _, _, fastest = drive(env, "short", rng, noise=0, speed=5, seed=seed)

    about = dict(algorithm_name="waypoint controller with noise", author_email="none")
    about.update(author="the authors of this repository", ref_min_score=low)
    about.update(code_permalink="toy_experiments/two_roads.py", ref_max_score=float(fastest.sum()))
    store(minari_id, buffers, env, {**about, "description": __doc__.split("\n\n")[1]})


# ---- Paths ---------------------------------------------------------------------------------------
class Recorder:
    """Acts as `agent` does, and keeps where the ball was at every step."""

    def __init__(self, agent):
        self.agent = agent
        self.device = getattr(agent, "device", torch.device("cpu"))
        self.positions = []

    def act(self, states):
        self.positions.append(states[:, :2].cpu().numpy())
        return self.agent.act(states)


def drive_policy(agent, dataset, episodes=100, seed=100):
    """Paths (episodes, 60, 2) and returns (episodes,) of an agent, or of anything that can act."""
    recorder = Recorder(agent)
    returns = evaluate(recorder, dataset, episodes, seed)
    paths = []
    for begin in range(0, len(recorder.positions), STEPS):  # some episodes go side by side
        paths.append(np.stack(recorder.positions[begin : begin + STEPS], axis=1))
    return np.concatenate(paths), returns


def demonstrations(dataset):
    """The paths (200, 60, 2) of the dataset."""
    return dataset.transitions.state[:, :2].reshape(-1, STEPS, 2).numpy()


def shares(paths):
    """The shares of paths (episodes, steps, 2) that pass the block on each road, or not at all."""
    passed = paths[:, :, 0].max(axis=1) > 1.5  # the block's right edge
    middle = np.abs(paths[:, :, 0]).argmin(axis=1)  # the step at which a path crosses x = 0
    above = paths[np.arange(len(paths)), middle, 1] > 0
    return {
        "short": float(np.mean(passed & ~above)),
        "long": float(np.mean(passed & above)),
        "stuck": float(np.mean(~passed)),
    }


def describe(share):
    return ", ".join(f"{name} {100 * part:.0f} %" for name, part in share.items())


def draw_paths(axis, paths, title, caption=""):
    """One panel: the maze and paths (episodes, steps, 2) in it, coloured by road."""
    draw_maze(axis)
    for path in paths:
        share = shares(path[None])
        road = max(share, key=share.get)
        axis.plot(path[:, 0], path[:, 1], color=COLORS[road], lw=0.7, alpha=0.5)
    axis.plot(*START, "ko", ms=7)
    axis.set(title=title, xlabel=caption)
