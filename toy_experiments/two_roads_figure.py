"""Two-roads' picture and table: cloning and Q-guidance, each by a Gaussian and by diffusion.

    python toy_experiments/two_roads_figure.py

Trains all four with sweep.py, five seeds each, in runs/two-roads-figure/; what is finished there is
not trained again. Then it drives 100 episodes with each, and writes two_roads.png and .json.
"""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from repository import FIGURES

from diffusion_ql import load_agent, load_dataset, write
from sweep import sweep
from toy_experiments.two_roads import STEPS
from toy_experiments.two_roads_agents import drive_policy
from toy_experiments.two_roads_pictures import demonstrations, describe, draw_paths, shares

CLONING = "--lr 5e-4 --batch-size 1024 --steps 20000 --eval-every 20000".split()
METHODS = {  # the agent's class, and its settings where they are not those of --env two-roads
    "cloning by a Gaussian": ("forks.BCGaussian", CLONING),
    "cloning by diffusion": ("forks.BCDiffusion", [*CLONING, "--n-timesteps", "20"]),
    "Gaussian with Q": ("forks.GaussianQL", []),
    "Diffusion-QL": ("diffusion_ql.DiffusionQL", []),
}
COLUMNS = {"short": ".0%", "long": ".0%", "stuck": ".0%", "score": ".1f"}


@dataclass
class Args:
    """Trains what is missing, then draws two_roads.png and prints its table."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of each method
    drawn_seed: int = 2  # whose paths are drawn
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    steps: int = 0  # gradient steps of every method (0: as in METHODS)
    episodes: int = 100  # that each agent drives
    runs: Path = Path("runs/two-roads-figure")  # folder of the runs
    out: Path = FIGURES  # folder of the figure


def train_all(args):
    """Sweeps over the seeds with each method. Raises ValueError if a run failed."""
    for method in args.methods:
        agent_class, settings = METHODS[method]
        if args.steps:
            short = {"steps": args.steps, "eval-every": args.steps, "eval-episodes": args.episodes}
            settings = [*settings, *[f"--{name}={value}" for name, value in short.items()]]
        print(method)
        failed = sweep(["two-roads"], args.seeds, args.runs, settings, [agent_class])
        if failed:
            raise ValueError("\n".join(failed))


def drive_all(args, dataset):
    """{method: {seed: (paths, numbers)}}: paths (episodes, 60, 2), shares and score."""
    results = {}
    for method in args.methods:
        agent_class, _ = METHODS[method]
        results[method] = {}
        for seed in args.seeds:
            folder = args.runs / agent_class.split(".")[-1] / "two-roads" / str(seed)
            paths, returns = drive_policy(load_agent(folder), dataset, args.episodes)
            results[method][seed] = (paths, numbers_of(paths, returns, dataset))
    return results


def demonstrated(dataset):
    """The paths (200, 60, 2) of the dataset, and their numbers."""
    paths = demonstrations(dataset)
    returns = dataset.transitions.reward.reshape(-1, STEPS).sum(1).numpy()
    return paths, numbers_of(paths, returns, dataset)


def random_actions(dataset, episodes):
    """The paths of uniformly random actions, and their numbers."""

    class Random:
        def act(self, states):
            return 2 * torch.rand(len(states), dataset.action_dim) - 1

    paths, returns = drive_policy(Random(), dataset, episodes)
    return paths, numbers_of(paths, returns, dataset)


def numbers_of(paths, returns, dataset):
    """Shares of the roads, and the mean score of returns (episodes,)."""
    return {**shares(paths), "score": float(dataset.score(returns).mean())}


def draw(data, results, seed):
    """A panel for the demonstrations, and one for each method's run with this seed."""
    panels = {"demonstrations": data}
    for method, by_seed in results.items():
        panels[method] = by_seed[seed]
    figure = Figure(figsize=(3.3 * len(panels), 3.9), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (title, (paths, numbers)) in zip(axes, panels.items(), strict=True):
        share = {road: numbers[road] for road in ("short", "long", "stuck")}
        draw_paths(axis, paths, title, f"{describe(share)}\nscore {numbers['score']:.0f}")
    colors = "dark red: short road, yellow: long, grey: stuck"
    figure.suptitle(f"dot: start, star: goal; {colors}; seed {seed}")
    return figure


def table(rows):
    """A Markdown table of {row: [numbers of each seed]}: mean ± std over the seeds."""
    lines = ["| | short | long | stuck | score |", "|---|---|---|---|---|"]
    for row, runs in rows.items():
        cells = []
        for column, form in COLUMNS.items():
            values = np.array([numbers[column] for numbers in runs])
            cell = f"{values.mean():{form}}"
            if len(values) > 1:
                cell += f" ± {values.std():{form}}"
            cells.append(cell)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    args = tyro.cli(Args, description=__doc__)
    try:
        unknown = set(args.methods) - set(METHODS)
        if unknown or args.drawn_seed not in args.seeds:
            raise ValueError(f"--methods: some of {list(METHODS)}; --drawn-seed: one of --seeds")
        train_all(args)
        dataset = load_dataset("two-roads")
        data = demonstrated(dataset)
        results = drive_all(args, dataset)
        rows = {"demonstrations": [data[1]]}
        rows["uniformly random"] = [random_actions(dataset, args.episodes)[1]]
        for method, by_seed in results.items():
            rows[method] = [numbers for _, numbers in by_seed.values()]
        figure = draw(data, results, args.drawn_seed)
        args.out.mkdir(parents=True, exist_ok=True)
        write(args.out / "two_roads.png", partial(figure.savefig, format="png", dpi=110))
        text = json.dumps(rows, indent=1)
        write(args.out / "two_roads.json", lambda path: path.write_text(text))
        print(table(rows))
        print(f"picture and numbers: {args.out / 'two_roads'}.png, .json")
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
