"""The README's film: noise becomes actions, by cloning and by Diffusion-QL, on the bandit.

    python toy_experiments/noise_to_actions.py

It writes noise_to_actions.gif, and the shares on the corners at its end as JSON.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imageio
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from repository import FIGURES

from diffusion_ql import write
from toy_experiments import figures
from toy_experiments.bandit import CORNERS, REWARDS
from toy_experiments.cloning import Diffusion
from toy_experiments.command_line import Options, run_script
from toy_experiments.guided import GuidedDiffusion
from toy_experiments.training import clone, learn

METHODS = ("cloning", "Diffusion-QL")
POINTS = 600  # that are drawn
BETWEEN = 2  # frames between two denoising steps


@dataclass
class Args(Options):
    steps: int = 5000  # gradient steps of each policy
    methods: tuple[str, ...] = METHODS  # what to show
    out: Path = FIGURES  # folder of the film
    n_timesteps: int = 20  # N, denoising steps


def make_film(args):
    paths = {}
    results = {}
    settings = dict(seed=args.seed, steps=args.steps)
    for method in args.methods:
        if method == "cloning":
            policy, _, numbers = clone(partial(Diffusion, args.n_timesteps), **settings)
        else:
            policy, _, _, numbers = learn(partial(GuidedDiffusion, args.n_timesteps), **settings)
        paths[method] = denoise(policy)
        results[method] = [(None, numbers)]
        print(
            f"{method}: {numbers['on_mode']:.0%} on mode, {numbers['best_corner']:.0%} on the best"
        )
    frames = [draw(paths, at) for at in moments(args.n_timesteps)]
    film = partial(
        imageio.mimsave, ims=frames, format="gif", duration=60, loop=0, subrectangles=True
    )
    write(args.out / "noise_to_actions.gif", film)
    figures.save_numbers("noise_to_actions", args, results=results)


@torch.no_grad()
def denoise(policy):
    """Actions in the making: (N + 1, POINTS, 2), from noise to actions."""
    state = torch.zeros(POINTS, 2)
    x = torch.randn(POINTS, 2)
    steps = [x]
    for i in reversed(range(policy.n_timesteps)):
        x = policy.p_sample(x, i, state)
        steps.append(x)
    return torch.stack(steps).numpy()


def moments(n_timesteps):
    """The moments of the frames, in denoising steps: a pause at both ends."""
    way = np.linspace(0, n_timesteps, n_timesteps * BETWEEN + 1)
    return [*[0.0] * 6, *way, *[float(n_timesteps)] * 18]


def draw(paths, at):
    """A frame: the points of each method after `at` denoising steps, as an image (h, w, 3)."""
    figure = Figure(figsize=(6.4, 3.5), dpi=90, layout="constrained")
    for axis, (method, path) in zip(figure.subplots(1, len(paths)), paths.items(), strict=True):
        before = int(at)
        after = min(before + 1, len(path) - 1)
        points = path[before] + (at - before) * (path[after] - path[before])
        color = figures.COLORS["data"]
        if method == "Diffusion-QL":
            color = figures.COLORS["Diffusion-QL"]
        axis.scatter(*points.T, s=5, color=color, linewidths=0)
        for (x, y), reward in zip(CORNERS.tolist(), REWARDS.tolist(), strict=True):
            if method == "Diffusion-QL":
                axis.text(1.25 * x, 1.35 * y, f"pays {reward:g}", ha="center", va="center")
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[], yticks=[], aspect="equal")
        axis.set(title=method, xlabel=f"denoising step {before} of {len(path) - 1}")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


if __name__ == "__main__":
    run_script(Args, make_film, description=__doc__)
