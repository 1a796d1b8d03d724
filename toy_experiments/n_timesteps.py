"""Figure 3: what the number of denoising steps N means for cloning, and with a reward.

    python toy_experiments/n_timesteps.py                      # the figure: N = 2, 5, 10 and 50
    python toy_experiments/n_timesteps.py --n-timesteps 3 100  # other N

The exact denoiser is not learned: it shows the most that cloning with N steps can reach.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from repository import FIGURES

from diffusion_ql import DiffusionPolicy
from toy_experiments.bandit import make_data, measure, sample
from toy_experiments.cloning import ExactDenoiser
from toy_experiments.command_line import Options, run_script
from toy_experiments.figures import COLORS, REWARD_COLUMNS, draw, run_seeds, save, table
from toy_experiments.training import clone, learn

STEPS = {"diffusion": 6000, "Diffusion-QL": 7000}


@dataclass
class Args(Options):
    steps: int = 0  # gradient steps (0: 6000, of Diffusion-QL 7000)
    methods: tuple[str, ...] = ("exact denoiser", "diffusion", "Diffusion-QL")  # what to compare
    out: Path = FIGURES  # folder of the figure
    n_timesteps: tuple[int, ...] = (2, 5, 10, 50)  # numbers of denoising steps


def make_figure(args):
    rows = {}
    for method in args.methods:
        for n in args.n_timesteps:
            rows[row_name(method, n)] = job(method, n, args.steps)
    results = run_seeds(rows, args)

    columns = len(args.n_timesteps)
    lines = len(args.methods)
    figure = Figure(figsize=(2.5 * columns, 3.1 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for method, line in zip(args.methods, axes, strict=True):
        for n, axis in zip(args.n_timesteps, line, strict=True):
            row = row_name(method, n)
            samples, numbers = results[row][0]
            draw(axis, samples, row, caption(method, numbers), COLORS[method])
    title = f"The number of denoising steps N (2,000 samples of each policy; seed {args.seed})"
    figure.suptitle(title, fontsize=10)
    save("n_timesteps", figure, args, results=results)
    print(table(results, REWARD_COLUMNS))


def row_name(method, n):
    return f"{method}, N = {n}"


def job(method, n, steps):
    """The function and the settings that run a method with N = n."""
    if method == "exact denoiser":
        return sample_exact, dict(n_timesteps=n)
    if not steps:
        steps = STEPS[method]
    settings = dict(method=method, n_timesteps=n, steps=steps)
    if method == "diffusion":
        return clone, settings
    return learn, settings


def sample_exact(seed, n_timesteps):
    """As training.clone, for a policy with the exact denoiser: nothing is trained."""
    torch.manual_seed(seed)
    policy = DiffusionPolicy(2, 2, n_timesteps)
    policy.model = ExactDenoiser(n_timesteps)
    samples = sample(policy)
    return policy, samples, measure(samples, make_data(seed=seed))


def caption(method, numbers):
    """The lines under a panel."""
    on_mode = f"on mode {100 * numbers['on_mode']:.0f} %"
    if method == "Diffusion-QL":
        best_corner = f"best corner {100 * numbers['best_corner']:.0f} %"
        return f"{best_corner}, {on_mode}\nreward {numbers['reward']:.2f}"
    return on_mode


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
