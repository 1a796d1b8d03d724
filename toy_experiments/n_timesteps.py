"""Figure 3: what the number of denoising steps N means for cloning.

    python toy_experiments/n_timesteps.py

The exact denoiser is not learned: it shows the most that cloning with N steps can reach. What N
means with a reward is the question of few_steps.py.
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from toy_experiments import pictures
from toy_experiments.bandit import exact_policy, measure

STEPS = (2, 5, 10, 50)  # denoising steps N
ROWS = {f"diffusion, N = {n}": ("BCDiffusion", "bandit", f"--n-timesteps {n}") for n in STEPS}


def exact_clones():
    """{row: [result]} of the exact denoiser, with each N."""
    results = {}
    for n in STEPS:
        torch.manual_seed(0)
        actions = exact_policy(n).sample(torch.zeros(2000, 2))
        results[f"exact denoiser, N = {n}"] = [(actions, measure(actions))]
    return results


def draw(results):
    figure = Figure(figsize=(2.5 * len(STEPS), 7.2), layout="constrained")
    axes = figure.subplots(2, len(STEPS)).flat
    for axis, (row, runs) in zip(axes, results.items(), strict=True):
        color = pictures.COLORS[row.split(",")[0]]
        pictures.draw_actions(axis, runs[0][0], row, pictures.cloning_caption(runs), color)
    figure.suptitle("2,000 samples of the first seed; numbers: mean ± std over the seeds", size=10)
    return figure


def main():
    pictures.experiment("n_timesteps", __doc__, ROWS, draw, pictures.CLONING, exact_clones())


if __name__ == "__main__":
    main()
