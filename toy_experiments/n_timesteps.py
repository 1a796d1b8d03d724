"""Figure 3: what the number of denoising steps N means for cloning.

    python toy_experiments/n_timesteps.py                      # the figure: N = 2, 5, 10 and 50
    python toy_experiments/n_timesteps.py --n-timesteps 3 100  # other N

The exact denoiser is not learned: it shows the most that cloning with N steps can reach.
What N means with a reward is the question of few_steps.py.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from repository import FIGURES

from toy_experiments import figures
from toy_experiments.cloning import Diffusion, exact_policy
from toy_experiments.command_line import Options, run_script
from toy_experiments.training import clone

METHODS = {"exact denoiser": exact_policy, "diffusion": Diffusion}


@dataclass
class Args(Options):
    steps: int = 5000  # gradient steps
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    out: Path = FIGURES  # folder of the figure
    n_timesteps: tuple[int, ...] = (2, 5, 10, 50)  # numbers of denoising steps


def make_figure(args):
    rows = {}
    for method in args.methods:
        for n in args.n_timesteps:
            steps = args.steps
            if method == "exact denoiser":
                steps = 0
            settings = dict(make_policy=partial(METHODS[method], n), steps=steps)
            rows[f"{method}, N = {n}"] = (clone, settings)
    results = figures.run_seeds(rows, args)

    columns = len(args.n_timesteps)
    lines = len(args.methods)
    figure = Figure(figsize=(2.5 * columns, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for axis, (row, runs) in zip(axes, results.items(), strict=True):
        samples, _ = runs[0]
        method = row.split(",")[0]
        figures.draw(axis, samples, row, figures.cloning_caption(runs), figures.COLORS[method])
    figure.suptitle(f"Cloning with N denoising steps ({figures.seeds_text(args)})", fontsize=10)
    figures.save("n_timesteps", figure, args, results=results)
    print(figures.table(results, figures.CLONING_COLUMNS))


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
