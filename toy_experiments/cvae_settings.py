"""What ruins the CVAE: the weight of its KL term, or the clip of its latent?

    python toy_experiments/cvae_settings.py

BCQ's CVAE has a KL weight of 0.5, and clips its latent to [-0.5, 0.5] when it samples. Each of the
two is varied while the other stays; then the KL weight once more, without a clip.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from repository import FIGURES

from toy_experiments import figures
from toy_experiments.cloning import CVAE
from toy_experiments.command_line import Options, run_script
from toy_experiments.training import clone

NO_CLIP = 100.0  # no draw from a normal distribution is that large
VARIED = {  # a line of panels each: (KL weight, clip of the latent)
    "clip": [(0.5, 0.5), (0.5, 1.0), (0.5, 2.0), (0.5, NO_CLIP)],
    "KL weight": [(0.5, 0.5), (0.1, 0.5), (0.02, 0.5), (0.004, 0.5)],
    "KL weight, no clip": [(0.5, NO_CLIP), (0.1, NO_CLIP), (0.02, NO_CLIP), (0.004, NO_CLIP)],
}


@dataclass
class Args(Options):
    seeds: int = 5  # how many seeds: the table gives mean ± std over them
    steps: int = 3000  # gradient steps of each CVAE
    methods: tuple[str, ...] = tuple(VARIED)  # what to vary
    out: Path = FIGURES  # folder of the figure


def make_figure(args):
    rows = {}
    for method in args.methods:
        for kl_weight, clip in VARIED[method]:
            make_policy = partial(CVAE, kl_weight=kl_weight, latent_clip=clip)
            settings = dict(make_policy=make_policy, steps=args.steps)
            rows[row_name(kl_weight, clip)] = (clone, settings)
    results = figures.run_seeds(rows, args)

    lines = len(args.methods)
    figure = Figure(figsize=(10, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, 4, squeeze=False)
    for method, line in zip(args.methods, axes, strict=True):
        for axis, (kl_weight, clip) in zip(line, VARIED[method], strict=True):
            row = row_name(kl_weight, clip)
            samples, _ = results[row][0]
            figures.draw(
                axis, samples, row, figures.cloning_caption(results[row]), figures.COLORS["CVAE"]
            )
        line[0].set_ylabel(f"varied: {method}")
    figure.suptitle(f"The CVAE's two settings ({figures.seeds_text(args)})", fontsize=10)
    figures.save("cvae_settings", figure, args, results=results)
    print(figures.table(results, figures.CLONING_COLUMNS))


def row_name(kl_weight, clip):
    if clip == NO_CLIP:
        return f"KL weight {kl_weight}, no clip"
    return f"KL weight {kl_weight}, clip {clip}"


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
