"""Pictures of two roads: the paths that were driven, and how many took which road.

    python toy_experiments/two_roads_pictures.py RUN    # of a run of --env two-roads

Drives 100 episodes with the run's agent, and draws them beside the demonstrations: RUN/roads.png.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from diffusion_ql import find_task, load_agent, load_dataset, write
from toy_experiments.two_roads import NAME, START, STEPS, TwoRoads, draw_maze
from toy_experiments.two_roads_agents import drive_policy

COLORS = {"short": "#882255", "long": "#DDCC77", "stuck": "#999999"}  # of no method
DrawnTwoRoads = TwoRoads  # its name in datasets that were made earlier


@dataclass
class Args:
    run: tyro.conf.Positional[Path]  # run folder
    episodes: int = 100  # to drive


def draw_run(args):
    """Writes RUN/roads.png, and prints the shares of the roads. Raises ValueError, OSError."""
    agent = load_agent(args.run)
    _, minari_ids = find_task(agent.args.env)
    if minari_ids != [NAME]:
        raise ValueError(f"{args.run} is a run of {agent.args.env}: give one of --env two-roads")
    dataset = load_dataset(agent.args.env)
    driven, _ = drive_policy(agent, dataset, args.episodes)
    panels = {"demonstrations": demonstrations(dataset), "the agent": driven}
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axis, (title, paths) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        caption = describe(shares(paths))
        draw_paths(axis, paths, title, caption)
        print(f"{title}: {caption}")
    write(args.run / "roads.png", partial(figure.savefig, dpi=150))
    print(f"picture: {args.run / 'roads.png'}")


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


def main():
    args = tyro.cli(Args, description=__doc__)
    try:
        draw_run(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
