"""Figure 2: the bandit with a reward, by TD3+BC, AWR, BCQ, BEAR and Diffusion-QL.

    python toy_experiments/q_learning.py                   # the figure, and its numbers
    python toy_experiments/q_learning.py --n-timesteps 50  # with the N of the paper
    python toy_experiments/q_learning.py --seeds 5         # mean and spread over five seeds

The first table is measured on 2,000 samples of a policy. The second one compares all methods under
the same rules of acting: a sample, or one of 50 samples that is chosen by its Q.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from repository import FIGURES

from toy_experiments import figures
from toy_experiments.bandit import CORNERS, REWARDS, make_data, measure
from toy_experiments.command_line import Options, run_script
from toy_experiments.guided import METHODS
from toy_experiments.training import learn


@dataclass
class Args(Options):
    steps: int = 5000  # gradient steps of each method
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    out: Path = FIGURES  # folder of the figure
    n_timesteps: int = 5  # denoising steps N of Diffusion-QL


def make_figure(args):
    rows = {}
    for method in args.methods:
        make_policy = METHODS[method]
        if method == "Diffusion-QL":
            make_policy = partial(make_policy, args.n_timesteps)
        settings = dict(make_policy=make_policy, rewards=tuple(REWARDS.tolist()), steps=args.steps)
        rows[method] = (learn, settings)
    results = figures.run_seeds(rows, args)
    compared = references(args.seed)

    figure = figures.draw_methods(
        results,
        args.seed,
        data_caption=f"mean reward of each corner;\nof the data: {REWARDS.mean():.3f}",
        caption=figures.reward_caption,
    )
    for (x, y), reward in zip(CORNERS.tolist(), REWARDS.tolist(), strict=True):
        place = (x / 2, y / 2)
        figure.axes[0].annotate(f"{reward:g}", place, ha="center", va="center", fontsize=12)
    settings = f"{args.steps:,} steps; Diffusion-QL with N = {args.n_timesteps}"
    figure.suptitle(f"With reward ({settings}; {figures.seeds_text(args)})", fontsize=10)

    name = "q_learning"
    if args.n_timesteps != Args.n_timesteps:
        name += f"_N{args.n_timesteps}"
    figures.save(name, figure, args, results=results, references=compared)
    print(figures.table({**compared, **results}, figures.REWARD_COLUMNS))
    print()
    print(figures.table(results, figures.ACTING_COLUMNS))


def references(seed):
    """Results to compare with: the data's own actions, and actions drawn from the whole square."""
    torch.manual_seed(seed)
    data = make_data(seed=seed)
    own = data.action[:2000]
    uniform = 2 * torch.rand(2000, 2) - 1
    return {
        "the data": [(own, measure(own, data))],
        "uniformly random": [(uniform, measure(uniform, data))],
    }


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
