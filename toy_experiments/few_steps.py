"""Why do few denoising steps suffice once there is a reward?

    python toy_experiments/few_steps.py

Cloning with N = 5 steps blurs: the last step outputs an average. With a reward it hardly does. Two
explanations are put to the test.

- Q trains the chain as one. Then Q's gradient through the last step alone should do worse than
  through the whole chain.
- With one mode left, there is nothing to average. Then N = 5 should blur again on a bandit whose
  two best corners pay the same, if the policy keeps both.

The network is shared by all steps, so a gradient through the last step changes the others, too. As
a control, each step gets a network of its own.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from repository import FIGURES

from toy_experiments import figures
from toy_experiments.bandit import CORNERS
from toy_experiments.cloning import exact_policy
from toy_experiments.command_line import Options, run_script
from toy_experiments.guided import GuidedDiffusion, LastStepDiffusion, own_networks
from toy_experiments.training import clone, learn

BANDITS = {  # rewards of the corners, and which corners are the best
    "one best corner": ((3.0, 1.5, 0.0, 5.0), [3]),
    "two best corners": ((5.0, 1.5, 0.0, 5.0), [0, 3]),
}
METHODS = {  # what makes a policy of N steps
    "whole chain": GuidedDiffusion,
    "last step": LastStepDiffusion,
    "whole chain, own networks": partial(own_networks, GuidedDiffusion),
    "last step, own networks": partial(own_networks, LastStepDiffusion),
}
CONTROL = 5  # the paper's N on D4RL: the panels, and the networks of their own, are of this N
LINES = {  # how each is drawn
    "exact clone of the best": dict(color="#555555", linestyle=":"),
    "whole chain": dict(color="#0072B2", marker="o"),
    "last step": dict(color="#E69F00", marker="o"),
    "whole chain, own networks": dict(color="#0072B2", marker="s", mfc="white", linestyle="--"),
    "last step, own networks": dict(color="#E69F00", marker="s", mfc="white", linestyle="--"),
}


@dataclass
class Args(Options):
    seeds: int = 5  # how many seeds: the table gives mean ± std over them
    steps: int = 5000  # gradient steps of each policy
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    out: Path = FIGURES  # folder of the figure
    n_timesteps: tuple[int, ...] = (2, 5, 10, 50)  # numbers of denoising steps


def make_figure(args):
    rows = {}
    for bandit, (rewards, best) in BANDITS.items():
        for n in args.n_timesteps:
            exact = partial(exact_policy, n, CORNERS[best].tolist())
            settings = dict(make_policy=exact, rewards=rewards, steps=0)
            rows[row_name(bandit, "exact clone of the best", n)] = (clone, settings)
            for method in args.methods:
                if method.endswith("own networks") and n != CONTROL:
                    continue
                make_policy = partial(METHODS[method], n)
                settings = dict(make_policy=make_policy, rewards=rewards, steps=args.steps)
                rows[row_name(bandit, method, n)] = (learn, settings)
    slow = [row for row in rows if is_slow(row)]
    results = figures.run_seeds(rows, args, first_seed_only=slow)

    shown = ["exact clone of the best", *args.methods]
    figure = Figure(figsize=(2.5 * len(shown), 7.5), layout="constrained")
    charts, panels = figure.subfigures(2, 1)
    for axis, bandit in zip(charts.subplots(1, 2, sharey=True), BANDITS, strict=True):
        draw_shares(axis, bandit, shown, results, args.n_timesteps)
    charts.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    n = args.n_timesteps[-1]
    if CONTROL in args.n_timesteps:
        n = CONTROL
    for axis, method in zip(panels.subplots(1, len(shown)), shown, strict=True):
        runs = results.get(row_name("two best corners", method, n))
        if runs:
            figures.draw(axis, runs[0][0], method, caption(runs), LINES[method]["color"])
        else:
            axis.set_axis_off()
    panels.suptitle(f"two best corners, N = {n} ({figures.seeds_text(args)})", fontsize=10)
    figures.save("few_steps", figure, args, results=results)
    print(figures.table(results, figures.REWARD_COLUMNS))


def row_name(bandit, method, n):
    return f"{bandit}: {method}, N = {n}"


def is_slow(row):
    """Whether only the first seed runs a row, because of the time that it takes."""
    if "exact clone" in row:
        return False
    if "own networks" in row or "N = 50" in row:
        return True
    return "N = 10" in row and row.startswith("one best corner")


def draw_shares(axis, bandit, methods, results, n_timesteps):
    """A chart: the share of the samples on a best corner over N, a line for each method."""
    for method in methods:
        rows = {n: row_name(bandit, method, n) for n in n_timesteps}
        figures.draw_line(axis, rows, results, "best_corner", label=method, **LINES[method])
    axis.set(title=bandit, xlabel="denoising steps N", xscale="log")
    axis.set_xticks(n_timesteps, n_timesteps)
    axis.minorticks_off()
    axis.set(ylabel="share on a best corner", ylim=(-0.03, 1.03))


def caption(runs):
    """The lines under a panel."""
    share = figures.summary(runs, "best_corner", ".0%")
    return f"on a best corner:\n{share}"


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
