"""Two roads to one goal: a task with real physics that Diffusion-QL learns on a laptop in minutes.

A ball starts on the left, the goal is on the right, a block lies between them, with a pocket on its left side. Half of the
demonstrations take the short road below the block, half the long one above; every step at the goal is worth 1. So the data
has two modes at the start, whose average runs into the pocket, and one of them is better: cloning takes both roads,
Q-guidance should take the short one.

    python toy_experiments/two_roads.py                       # make the Minari dataset toy/two-roads-v0
    python toy_experiments/two_roads.py --plot RUN [RUN ...]  # draw the paths of trained policies: roads.png
"""
import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.modules.setdefault("farama_notifications", None)  # gymnasium-robotics would print news of other environments
import gymnasium as gym  # noqa: E402
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv  # noqa: E402

from diffusion_ql import Args, DiffusionQL, UserError, evaluate, load_dataset, load_weights, require, write  # noqa: E402
from toy_experiments.behavior_cloning import Gaussian  # noqa: E402

NAME = "toy/two-roads-v0"
MAZE = [[1, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 1, 1, 1, 0, 0, 1],
        [1, "r", 0, 0, 1, 1, 0, 0, 1],
        [1, 0, 0, 1, 1, 1, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0, "g", 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1]]  # r: start, g: goal; cells of 1 by 1, the origin in the middle
START, GOAL = (-3, 0), (3, -2)
ROADS = {"short": [(-2, -2), GOAL], "long": [(-2, 2), (2.5, 2), GOAL]}  # waypoints (x, y)
COLORS = {"short": "#0072B2", "long": "#E69F00", "stuck": "#999999"}
STEPS = 60  # decisions in an episode
HOLD = 5  # simulator steps (of 0.01 s) for which an action is held


class TwoRoads(PointMazeEnv):
    """gymnasium-robotics' PointMaze with the maze above; actions (2,) are forces in [-1, 1], held for 5 simulator steps."""

    def __init__(self, render_mode=None):
        super().__init__(maze_map=MAZE, render_mode=render_mode)

    def step(self, action):
        for _ in range(HOLD):
            result = super().step(action)
        return result


if "TwoRoads-v0" not in gym.registry:  # run as a script, this file is loaded a second time when the environment is made
    gym.register("TwoRoads-v0", "toy_experiments.two_roads:TwoRoads", max_episode_steps=STEPS)


def drive(env, road, rng, noise, speed, seed):
    """One episode of the waypoint controller: observations (61 of them), actions (60, 2), rewards (60,)."""
    observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
    waypoints = [np.array(point) + 0.3 * noise * rng.standard_normal(2) for point in ROADS[road]]
    while len(rewards) < STEPS:
        position, velocity = np.split(observations[-1]["observation"], 2)
        if len(waypoints) > 1 and np.linalg.norm(waypoints[0] - position) < 0.5:
            waypoints.pop(0)
        ahead = waypoints[0] - position
        wanted = speed * ahead / max(np.linalg.norm(ahead), 1)
        action = np.clip(5 * (wanted - velocity) + noise * rng.standard_normal(2), -1, 1).astype(np.float32)
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    return observations, np.array(actions), np.array(rewards)


def collect(name=NAME, episodes=200, seed=0):
    """Makes the Minari dataset `name`: half of the episodes on each road. The folder appears only when it is whole.

    Reference scores: 0 is the return of uniformly random actions, 100 that of the short road without noise at full speed.
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.storage import get_dataset_path
    folder = Path(get_dataset_path(name))
    require(not folder.exists(), f"{folder} is there already: delete it first, or choose another --name")
    print(f"collecting {episodes} demonstrations for {name}: some seconds, once", flush=True)
    env, rng, buffers = gym.make("TwoRoads-v0"), np.random.default_rng(seed), []
    for i in range(episodes):
        observations, actions, rewards = drive(env, ("short", "long")[i % 2], rng, noise=0.3, speed=4.5, seed=seed + i)
        observations = {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
        ends = np.arange(STEPS) == STEPS - 1
        buffers.append(EpisodeBuffer(i, seed + i, None, observations, actions, rewards, np.zeros(STEPS, bool), ends))
    env.action_space.seed(seed)
    env.reset(seed=seed)
    random_return = np.mean([sum(env.step(env.action_space.sample())[1] for _ in range(STEPS)) for _ in range(10) if env.reset()])
    best_return = drive(env, "short", rng, noise=0, speed=5, seed=seed)[2].sum()
    root = folder.parents[len(Path(name).parts) - 1]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as workshop, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari misses an author and a link to the code
        before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = workshop
        try:
            minari.create_dataset_from_buffers(
                name, buffers, env, algorithm_name="waypoint controller with noise", ref_min_score=float(random_return),
                ref_max_score=float(best_return), description=__doc__.split("\n\n")[1])
        finally:
            os.environ.pop("MINARI_DATASETS_PATH") if before is None else os.environ.update(MINARI_DATASETS_PATH=before)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for metadata in Path(workshop, name).parent.glob("namespace_metadata.json"):
            os.replace(metadata, folder.parent / metadata.name)
        os.replace(Path(workshop, name), folder)
    return minari.load_dataset(name)


def gaussian_cloning(dataset, steps=3000, seed=0):
    """An agent that clones the dataset with the Gaussian of the bandit experiments."""
    torch.manual_seed(seed)
    policy = Gaussian(dataset.state_dim, dataset.action_dim)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = dataset.sample(256)
        optimizer.zero_grad()
        policy.loss(batch.action, batch.state).backward()
        optimizer.step()
    policy.device, policy.act = torch.device("cpu"), torch.no_grad()(policy.sample)
    return policy


def drive_policy(agent, dataset, episodes=100, seed=100):
    """Paths (episodes, 60, 2) and returns (episodes,) of a policy."""
    positions = []

    class Recorder:
        device = agent.device

        def act(self, states):
            positions.append(states[:, :2].cpu().numpy())
            return agent.act(states)

    returns = evaluate(Recorder(), dataset, episodes, seed)
    return np.stack(positions, 1), returns


def shares(paths):
    """The shares of paths (episodes, steps, 2) that pass the block by the short road, by the long one, or not at all."""
    passed = paths[:, :, 0].max(1) > 1.5  # the block's right edge
    above = np.array([path[np.abs(path[:, 0]).argmin(), 1] > 0 for path in paths])  # where the path crosses the middle
    return {"short": float(np.mean(passed & ~above)), "long": float(np.mean(passed & above)), "stuck": float(np.mean(~passed))}


def draw_paths(axis, paths, title, caption=""):
    """One panel: the maze and paths (episodes, steps, 2) in it, coloured by road."""
    from matplotlib.colors import ListedColormap
    walls = np.array([[cell == 1 for cell in row] for row in MAZE])
    height, width = walls.shape
    axis.imshow(walls, extent=(-width / 2, width / 2, -height / 2, height / 2), cmap=ListedColormap(["white", "#444444"]))
    for path in paths:
        (road,) = (name for name, share in shares(path[None]).items() if share)
        axis.plot(*path.T, color=COLORS[road], lw=0.7, alpha=0.5)
    axis.plot(*START, "ko", ms=7)
    axis.plot(*GOAL, "k*", ms=12)
    axis.set(title=title, xlabel=caption, xticks=[], yticks=[])


def load_run(run):
    """The agents (one for each seed, with its settings as `args`) and the dataset of a run folder of diffusion_ql.py."""
    config = Path(run, "config.json")
    require(config.exists(), f"{run} is no run folder: it has no config.json")
    args = Args(**json.loads(config.read_text()))
    dataset = load_dataset(args.env)
    require(dataset.env_id == "TwoRoads-v0", f"{run} was trained on {args.env}: give runs of --env two-roads")
    agents = [DiffusionQL(dataset.state_dim, dataset.action_dim, dataclasses.replace(args, seed=seed)) for seed in args.seeds or [args.seed]]
    for agent in agents:
        load_weights(agent, [str(run)])
    return agents, dataset


def plot(runs, out=None, episodes=100, seed=None):
    """Draws roads.png (in the last run's folder, or `out`): the demonstrations' paths, each run's, and a Gaussian's per seed.

    Of runs with several seeds it draws all of them, or `seed` alone. Returns {title: {short, long, stuck, score}}.
    """
    from matplotlib.figure import Figure
    loaded, datasets = zip(*map(load_run, runs))
    trained, dataset = [agent for agents in loaded for agent in agents if seed in (None, agent.args.seed)], datasets[-1]
    require(trained, f"none of {' '.join(map(str, runs))} has a seed {seed}")
    seeds = sorted({agent.args.seed for agent in trained})
    agents = [("Gaussian cloning", one, gaussian_cloning(dataset, seed=one)) for one in seeds]
    agents += [({"ql": "Diffusion-QL", "bc": "diffusion cloning"}[agent.args.algo], agent.args.seed, agent) for agent in trained]
    state, reward = dataset.transitions.state.numpy(), dataset.transitions.reward.numpy()
    panels = {"demonstrations": (state[:, :2].reshape(-1, STEPS, 2), reward.reshape(-1, STEPS).sum(1))}
    for method, one, agent in agents:
        title = method if len(seeds) == 1 else f"{method}, seed {one}"
        while title in panels:  # two runs of one method and seed
            title += "*"
        panels[title] = drive_policy(agent, dataset, episodes)
    titles = list(panels)
    if len(seeds) > 1:  # the demonstrations, and below them a row of all seeds for each method
        titles = [titles[0], *[None] * (len(seeds) - 1), *titles[1:]]
    columns, result = len(seeds) if len(seeds) > 1 else len(titles), {}
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[[title is None for title in titles] + [True] * (len(axes) - len(titles))]:
        axis.set_axis_off()
    for axis, title in [(axis, title) for axis, title in zip(axes, titles) if title]:
        paths, returns = panels[title]
        result[title] = {**shares(paths), "score": float(dataset.score(returns).mean())}
        share = ", ".join(f"{name} {100 * result[title][name]:.0f} %" for name in COLORS)
        draw_paths(axis, paths, title, f"{share}\nscore {result[title]['score']:.0f}")
    figure.suptitle("dot: start, star: goal; blue: the short road, orange: the long one, grey: stuck")
    out = Path(out or Path(runs[-1], "roads.png"))
    write(out, lambda partial: figure.savefig(partial, format="png", dpi=150))
    for title, numbers in result.items():
        print(f"{title:28}" + "  ".join(f"{name} {100 * numbers[name]:3.0f} %" for name in COLORS) + f"  score {numbers['score']:5.1f}")
    for method in dict.fromkeys(method for method, *_ in agents) if len(seeds) > 1 else ():
        numbers = [values for title, values in result.items() if title.startswith(method)]
        mean, std = ({name: f([one[name] for one in numbers]) for name in numbers[0]} for f in (np.mean, np.std))
        print(f"{method + f', {len(numbers)} seeds':28}" + "  ".join(f"{name} {100 * mean[name]:.0f} ± {100 * std[name]:.0f} %" for name in COLORS)
              + f"  score {mean['score']:.1f} ± {std['score']:.1f}")
    print(f"picture: {out}")
    return result


def main():
    parser = argparse.ArgumentParser(description="Two roads to one goal: makes the dataset, or draws the paths of trained policies.")
    parser.add_argument("--episodes", type=int, default=200, help="demonstrations to collect (default: 200)")
    parser.add_argument("--seed", type=int, help="random seed of the demonstrations (default: 0); with --plot: draw this seed alone")
    parser.add_argument("--name", default=NAME, help=f"Minari id of the dataset (default: {NAME})")
    parser.add_argument("--plot", nargs="+", metavar="RUN", help="draw roads.png from these run folders instead")
    parser.add_argument("--out", help="where to write the picture (default: roads.png in the last RUN)")
    args = parser.parse_args()
    try:
        if args.plot:
            plot(args.plot, args.out, seed=args.seed)
            return
        require(args.episodes >= 2, f"--episodes {args.episodes}: give at least 2, one for each road")
        dataset = collect(args.name, args.episodes, args.seed or 0)
        print(f"made {args.name}: {dataset.total_episodes} episodes of {STEPS} steps in {dataset.spec.data_path}")
    except (UserError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
