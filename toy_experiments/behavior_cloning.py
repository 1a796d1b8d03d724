"""Figure 1: cloning the bandit's four corners by a Gaussian, a CVAE, MMD and diffusion.

    python toy_experiments/behavior_cloning.py             # five seeds
    python toy_experiments/behavior_cloning.py --seeds 0   # one seed

Two honest rivals of diffusion are beside them: a mixture of eight Gaussians, and the CVAE with the
settings that cvae_settings.py finds better than BCQ's.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from toy_experiments import pictures

ROWS = {
    "Gaussian": ("BCGaussian", "bandit", ""),
    "mixture of 8": ("BCMixture", "bandit", ""),
    "CVAE": ("BCCVAE", "bandit", ""),
    "CVAE, repaired": ("BCCVAE", "bandit", "--kl-weight 0.1 --latent-clip 100"),
    "MMD": ("BCMMD", "bandit", ""),
    "diffusion": ("BCDiffusion", "bandit", "--n-timesteps 50"),
}
DATA = {"the data": pictures.references()["the data"]}


def draw(results):
    figure = Figure(figsize=(2.4 * len(results), 3.8), layout="constrained")
    axes = figure.subplots(1, len(results))
    for axis, (row, runs) in zip(axes, results.items(), strict=True):
        pictures.draw_actions(axis, runs[0][0], row, pictures.cloning_caption(runs))
    figure.suptitle("2,000 samples of the first seed; numbers: mean ± std over the seeds", size=10)
    return figure


def main():
    pictures.experiment("behavior_cloning", __doc__, ROWS, draw, pictures.CLONING, DATA)


if __name__ == "__main__":
    main()
