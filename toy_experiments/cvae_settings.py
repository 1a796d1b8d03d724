"""What ruins the CVAE: the weight of its KL term, or the clip of its latent?

    python toy_experiments/cvae_settings.py

BCQ's CVAE has a KL weight of 0.5, and clips its latent to [-0.5, 0.5] when it samples. Each of the
two is varied while the other stays; then the KL weight once more, without a clip.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from toy_experiments import pictures

NO_CLIP = 100  # no draw from a normal distribution is that large
VARIED = {  # a line of panels each: (KL weight, clip of the latent)
    "the clip": [(0.5, 0.5), (0.5, 1), (0.5, 2), (0.5, NO_CLIP)],
    "the KL weight": [(0.5, 0.5), (0.1, 0.5), (0.02, 0.5), (0.004, 0.5)],
    "the KL weight, no clip": [(0.5, NO_CLIP), (0.1, NO_CLIP), (0.02, NO_CLIP), (0.004, NO_CLIP)],
}


def row_name(kl_weight, clip):
    clip = "no clip" if clip == NO_CLIP else f"clip {clip}"
    return f"KL weight {kl_weight}, {clip}"


ROWS = {}
for settings in VARIED.values():
    for kl_weight, clip in settings:
        options = f"--kl-weight {kl_weight} --latent-clip {clip}"
        ROWS[row_name(kl_weight, clip)] = ("BCCVAE", "bandit", options)


def draw(results):
    figure = Figure(figsize=(10, 3.6 * len(VARIED)), layout="constrained")
    for line, (varied, settings) in zip(figure.subplots(3, 4), VARIED.items(), strict=True):
        for axis, (kl_weight, clip) in zip(line, settings, strict=True):
            row = row_name(kl_weight, clip)
            caption = pictures.cloning_caption(results[row])
            pictures.draw_actions(axis, results[row][0][0], row, caption, pictures.COLORS["CVAE"])
        line[0].set_ylabel(f"varied: {varied}")
    figure.suptitle("2,000 samples of the first seed; numbers: mean ± std over the seeds", size=10)
    return figure


def main():
    pictures.experiment("cvae_settings", __doc__, ROWS, draw, pictures.CLONING)


if __name__ == "__main__":
    main()
