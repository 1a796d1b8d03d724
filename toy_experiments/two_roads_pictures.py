"""Pictures of two roads: the paths that were driven, and how many took which road."""

from pathlib import Path

import minari
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from toy_experiments.two_roads import GOAL, MAZE, NAME, START, STEPS, TwoRoads

COLORS = {"short": "#882255", "long": "#DDCC77", "stuck": "#999999"}  # of no method


class DrawnTwoRoads(TwoRoads):
    """TwoRoads that remembers the paths that were driven, and draws them: TwoRoads-v0."""

    episodes = []  # the paths (STEPS, 2) of the episodes that were driven in this process

    def reset(self, **kwargs):
        self.path = []
        return super().reset(**kwargs)

    def step(self, action):
        self.path.append(self.point_env.data.qpos.copy())
        if len(self.path) == STEPS:
            DrawnTwoRoads.episodes.append(np.array(self.path))
        return super().step(action)

    def draw_episodes(self, folder, last=100):
        """Draws the demonstrations and this process's last episodes, if any: folder/roads.png.

        diffusion_ql.train calls it at the end of a run.
        """
        driven = DrawnTwoRoads.episodes[-last:]
        if not driven:
            return
        demonstrations = []
        for episode in minari.load_dataset(NAME).iterate_episodes():
            demonstrations.append(episode.observations["observation"][:-1, :2])
        panels = {"demonstrations": demonstrations, "the last episodes": driven}
        figure = Figure(figsize=(8, 4), layout="constrained")
        for axis, (title, paths) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            draw_paths(axis, np.array(paths), title, describe(shares(np.array(paths))))
        path = Path(folder) / "roads.png"
        figure.savefig(path, dpi=150)
        print(f"picture: {path}")


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
    walls = np.array(MAZE, dtype=str) == "1"
    height, width = walls.shape
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    axis.imshow(walls, extent=extent, cmap=ListedColormap(["white", "#444444"]))
    for path in paths:
        share = shares(path[None])
        road = max(share, key=share.get)
        axis.plot(path[:, 0], path[:, 1], color=COLORS[road], lw=0.7, alpha=0.5)
    axis.plot(*START, "ko", ms=7)
    axis.plot(*GOAL, "k*", ms=12)
    axis.set(title=title, xlabel=caption, xticks=[], yticks=[])
