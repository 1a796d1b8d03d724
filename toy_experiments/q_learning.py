"""Figure 2: the bandit with a reward, by TD3+BC, BCQ, BEAR and Diffusion-QL.

    python toy_experiments/q_learning.py                   # the figure, and its numbers
    python toy_experiments/q_learning.py --n-timesteps 50  # with the N of the paper
    python toy_experiments/q_learning.py --seeds 5         # mean and spread over five seeds

All numbers are measured on 2,000 samples of a policy; *acting*, on 2,000 actions that are chosen by
their Q as the method's paper does.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from repository import FIGURES

from toy_experiments.bandit import CORNERS, REWARDS, make_data, measure
from toy_experiments.command_line import Options, run_script
from toy_experiments.figures import (
    REWARD_COLUMNS,
    draw_methods,
    reward_caption,
    run_seeds,
    save,
    table,
)
from toy_experiments.guided import METHODS
from toy_experiments.training import learn


@dataclass
class Args(Options):
    steps: int = 0  # gradient steps of each method (0: 6000, of Diffusion-QL 10000)
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    out: Path = FIGURES  # folder of the figure
    n_timesteps: int = 5  # denoising steps N of Diffusion-QL


def make_figure(args):
    rows = {}
    for method in args.methods:
        settings = dict(method=method, steps=args.steps, n_timesteps=args.n_timesteps)
        rows[method] = (learn, settings)
    results = run_seeds(rows, args)
    compared = references(args.seed)

    mean_reward = REWARDS.mean().item()
    figure = draw_methods(
        results,
        args.seed,
        data_caption=f"mean reward of each corner;\nof the data: {mean_reward:.3f}",
        caption=reward_caption,
    )
    for (x, y), reward in zip(CORNERS.tolist(), REWARDS.tolist(), strict=True):
        place = (x / 2, y / 2)
        figure.axes[0].annotate(f"{reward:g}", place, ha="center", va="center", fontsize=12)
    title = "With reward: 2,000 samples of each policy "
    title += f"(Diffusion-QL with N = {args.n_timesteps}; seed {args.seed})"
    if "Diffusion-QL" in results:
        _, numbers = results["Diffusion-QL"][0]
        title += "\n" + overshoot(numbers["history"])
    figure.suptitle(title, fontsize=9)

    name = "q_learning"
    if args.n_timesteps != Args.n_timesteps:
        name += f"_N{args.n_timesteps}"
    save(name, figure, args, results=results, references=compared)
    print(table({**compared, **results}, REWARD_COLUMNS))


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


def overshoot(history):
    """A line on how Diffusion-QL first leaves the data for the edge of the square."""
    moments = []
    for row in history[:5]:
        moments.append(f"{100 * row['best_corner']:.0f} % ({100 * row['edge']:.0f} %)")
    line = "Diffusion-QL's share on the best corner (and at the edge of the square), "
    line += f"as training goes on: {', '.join(moments)} after each {history[0]['step']:,} steps"
    return line


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
