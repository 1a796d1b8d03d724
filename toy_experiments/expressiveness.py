"""When does a policy need to be expressive, once there is a reward?

    python toy_experiments/expressiveness.py

The best corner (bottom right) pays 5. The second best one, top left, pays 3 in Figure 2; here it
pays more and more, up to the same 5. Two policies are each improved in two ways:

                  climbs Q's gradient    clones good actions more
    Gaussian      TD3+BC                 AWR
    diffusion     Diffusion-QL           weighted diffusion

A Gaussian can represent one corner, which is all that it takes to earn 5. But a likelihood with
weights on two corners has its maximum between them.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from repository import FIGURES

from toy_experiments import figures
from toy_experiments.bandit import make_data, measure
from toy_experiments.command_line import Options, check_number, run_script
from toy_experiments.guided import AWR, TD3BC, GuidedDiffusion, WeightedDiffusion
from toy_experiments.training import learn

METHODS = {
    "TD3+BC": TD3BC,
    "AWR": AWR,
    "AWR, temperature 0.05": partial(AWR, 0.05),
    "weighted diffusion": partial(WeightedDiffusion, 5, 0.05),
    "Diffusion-QL": partial(GuidedDiffusion, 5),
}
STYLES = {  # how each is drawn
    "the data": dict(color="#555555", linestyle=":"),
    "uniformly random": dict(color="#AAAAAA"),
    "TD3+BC": dict(color=figures.COLORS["TD3+BC"], marker="o"),
    "AWR": dict(color=figures.COLORS["AWR"], marker="o"),
    "AWR, temperature 0.05": dict(color=figures.COLORS["AWR"], marker="s", linestyle="--"),
    "weighted diffusion": dict(color=figures.COLORS["diffusion"], marker="s", linestyle="--"),
    "Diffusion-QL": dict(color=figures.COLORS["Diffusion-QL"], marker="o"),
}


@dataclass
class Args(Options):
    seeds: int = 5  # how many seeds: the table gives mean ± std over them
    steps: int = 5000  # gradient steps of each policy
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    out: Path = FIGURES  # folder of the figure
    top_left: tuple[float, ...] = (3, 4.5, 5)  # mean rewards of the second best corner

    def __post_init__(self):
        super().__post_init__()
        check_number("top_left", self.top_left, lowest=0)
        if max(self.top_left) > 5:
            raise ValueError("--top-left: give numbers up to 5, what the best corner pays")


def make_figure(args):
    rows = {}
    for method in args.methods:
        for top_left in args.top_left:
            rewards = corner_rewards(top_left)
            settings = dict(make_policy=METHODS[method], rewards=rewards, steps=args.steps)
            rows[row_name(method, top_left)] = (learn, settings)
    results = figures.run_seeds(rows, args)
    compared = references(args.top_left, args.seed)

    columns = len(args.top_left)
    lines = len(args.methods)
    figure = Figure(figsize=(2.6 * columns + 5, 3 * lines), layout="constrained")
    chart, panels = figure.subfigures(1, 2, width_ratios=[5, 2.6 * columns])
    axis = chart.subplots()
    draw_rewards(axis, {**compared, **results}, args)
    chart.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    axes = panels.subplots(lines, columns, squeeze=False)
    for method, line in zip(args.methods, axes, strict=True):
        for axis, top_left in zip(line, args.top_left, strict=True):
            runs = results[row_name(method, top_left)]
            caption = f"top left pays {top_left:g}\nreward {figures.summary(runs, 'reward', '.2f')}"
            figures.draw(axis, runs[0][0], method, caption, STYLES[method]["color"])
    panels.suptitle(figures.seeds_text(args), fontsize=10)
    figures.save("expressiveness", figure, args, results=results, references=compared)
    print(figures.table({**compared, **results}, figures.REWARD_COLUMNS))


def corner_rewards(top_left):
    return (float(top_left), 1.5, 0.0, 5.0)


def row_name(method, top_left):
    return f"{method}, top left pays {top_left:g}"


def references(top_lefts, seed):
    """What the data's own actions earn, and actions drawn from the whole square."""
    torch.manual_seed(seed)
    uniform = 2 * torch.rand(2000, 2) - 1
    compared = {}
    for name in ("the data", "uniformly random"):
        for top_left in top_lefts:
            rewards = torch.tensor(corner_rewards(top_left))
            data = make_data(seed=seed, rewards=rewards)
            actions = data.action[:2000] if name == "the data" else uniform
            compared[row_name(name, top_left)] = [(actions, measure(actions, data, rewards))]
    return compared


def draw_rewards(axis, results, args):
    """The chart: what the samples earn over what the second best corner pays."""
    for method in ("the data", "uniformly random", *args.methods):
        rows = {top_left: row_name(method, top_left) for top_left in args.top_left}
        figures.draw_line(axis, rows, results, "reward", label=method, **STYLES[method])
    axis.set(xlabel="mean reward of the top left corner", ylabel="mean reward of the samples")
    axis.set(ylim=(-0.2, 5.2), xticks=args.top_left)


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
