"""Figure 2: the bandit with a reward, by Diffusion-QL and nine other methods of forks.py.

    python toy_experiments/q_learning.py             # five seeds
    python toy_experiments/q_learning.py --seeds 0   # one seed

The table has the reward that each method earns by its own rule of acting, what 2,000 plain samples
of its policy earn, and what all of them earn by the same rules: a sample, or one of 50 samples that
is chosen by its Q.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from toy_experiments import pictures
from toy_experiments.bandit import CORNERS, REWARDS

METHODS = {
    "TD3+BC": "TD3BC",
    "Gaussian with Q": "GaussianQL",
    "AWR": "AWR",
    "BCQ": "BCQ",
    "BEAR": "BEAR",
    "weighted diffusion": "WeightedDiffusion",
    "EDP": "EDP",
    "FQL": "FQL",
    "IDQL": "IDQL",
    "Diffusion-QL": "DiffusionQL",
}
ROWS = {row: (method, "bandit", "") for row, method in METHODS.items()}
RULES = {f"reward, {rule}": (rule, ".2f") for rule in pictures.RULES[1:]}


def draw(results):
    figure = Figure(figsize=(15, 8), layout="constrained")
    axes = figure.subplots(2, 6).flat
    for axis, (row, runs) in zip(axes, results.items(), strict=True):
        pictures.draw_actions(axis, runs[0][0], row, pictures.reward_caption(runs))
    for (x, y), reward in zip(CORNERS.tolist(), REWARDS, strict=True):
        figure.axes[0].annotate(f"{reward:g}", (x / 2, y / 2), ha="center", va="center", size=12)
    figure.suptitle("2,000 samples of the first seed; numbers: mean ± std over the seeds", size=10)
    return figure


def main():
    columns = {**pictures.REWARD, **RULES}
    compared = pictures.references()
    pictures.experiment("q_learning", __doc__, ROWS, draw, columns, compared)


if __name__ == "__main__":
    main()
