"""Two-roads' picture and table: paths of the demonstrations, of clones and of trained policies.

python toy_experiments/two_roads_figure.py RUN [RUN ...]  # run folders of --env two-roads
python toy_experiments/two_roads_figure.py RUN [RUN ...] --seed 2  # the picture of this seed alone

Runs of several seeds are drawn in a row for each method, and averaged in the table.
"""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from repository import FIGURES

from diffusion_ql import UserError, load_dataset, write
from toy_experiments.two_roads import STEPS
from toy_experiments.two_roads_agents import GaussianClone, drive_policy, load_run
from toy_experiments.two_roads_pictures import describe, draw_paths, shares

METHODS = {"ql": "Diffusion-QL", "bc": "cloning by diffusion"}


@dataclass
class Args:
    """Draws two_roads.png, and prints and saves its numbers, of trained runs."""

    runs: tyro.conf.Positional[tuple[str, ...]]  # run folders of diffusion_ql.py
    seed: int = -1  # draw the runs of this seed alone (-1: all)
    episodes: int = 100  # per policy
    out: Path = FIGURES  # folder of the picture


def collect_agents(args, dataset):
    """{method: {seed: agent}} of the runs, and of a Gaussian clone for each of their seeds."""
    agents = {"cloning by a Gaussian": {}}
    for run in args.runs:
        agent, settings = load_run(run)
        if args.seed in (-1, settings.seed):
            agents.setdefault(METHODS[settings.algo], {})[settings.seed] = agent
            if settings.seed not in agents["cloning by a Gaussian"]:
                clone = GaussianClone(dataset, seed=settings.seed)
                agents["cloning by a Gaussian"][settings.seed] = clone
    if not agents["cloning by a Gaussian"]:
        raise UserError(f"none of the runs has the seed {args.seed}: leave --seed away")
    return agents


def drive_all(agents, dataset, episodes):
    """{method: {seed: (paths, numbers)}}: paths (episodes, 60, 2), shares and score."""
    results = {}
    for method, by_seed in agents.items():
        results[method] = {}
        for seed, agent in by_seed.items():
            paths, returns = drive_policy(agent, dataset, episodes)
            numbers = {**shares(paths), "score": float(dataset.score(returns).mean())}
            results[method][seed] = (paths, numbers)
    return results


def demonstrations(dataset):
    """The paths (200, 60, 2) of the dataset, and their numbers."""
    paths = dataset.transitions.state[:, :2].reshape(-1, STEPS, 2).numpy()
    returns = dataset.transitions.reward.reshape(-1, STEPS).sum(1).numpy()
    return paths, {**shares(paths), "score": float(dataset.score(returns).mean())}


def panel(axis, title, paths, numbers):
    share = {name: numbers[name] for name in ("short", "long", "stuck")}
    draw_paths(axis, paths, title, f"{describe(share)}\nscore {numbers['score']:.0f}")


def draw_one_seed(data, results):
    """A row of panels: the demonstrations, and each method."""
    figure = Figure(figsize=(3.6 * (1 + len(results)), 4), layout="constrained")
    axes = figure.subplots(1, 1 + len(results))
    panel(axes[0], "demonstrations", *data)
    for axis, (method, by_seed) in zip(axes[1:], results.items(), strict=True):
        for paths, numbers in by_seed.values():
            panel(axis, method, paths, numbers)
    return figure


def draw_all_seeds(data, results):
    """A row for each method with a panel for each seed, below the demonstrations."""
    columns = max(len(by_seed) for by_seed in results.values())
    rows = 1 + len(results)
    figure = Figure(figsize=(3.6 * columns, 3.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].set_axis_on()
    panel(axes[0, 0], "demonstrations", *data)
    for row, (method, by_seed) in zip(axes[1:], results.items(), strict=True):
        for axis, (seed, (paths, numbers)) in zip(row, by_seed.items(), strict=False):
            axis.set_axis_on()
            panel(axis, f"{method}, seed {seed}", paths, numbers)
    return figure


def table(data, results):
    """A Markdown table with a row per method: mean ± std over its seeds."""
    lines = ["| | short | long | stuck | score |", "|---|---|---|---|---|"]
    rows = {"demonstrations": [data[1]]}
    for method, by_seed in results.items():
        rows[f"{method}, {len(by_seed)} seeds"] = [numbers for _, numbers in by_seed.values()]
    for name, numbers in rows.items():
        cells = []
        for column, scale, unit in (
            ("short", 100, " %"),
            ("long", 100, " %"),
            ("stuck", 100, " %"),
            ("score", 1, ""),
        ):
            values = scale * np.array([one[column] for one in numbers])
            cells.append(f"{values.mean():.1f} ± {values.std():.1f}{unit}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    args = tyro.cli(Args, description=__doc__)
    try:
        dataset = load_dataset("two-roads")
        agents = collect_agents(args, dataset)
        data = demonstrations(dataset)
        results = drive_all(agents, dataset, args.episodes)
        several = max(len(by_seed) for by_seed in results.values()) > 1
        draw = draw_all_seeds if several else draw_one_seed
        figure = draw(data, results)
        figure.suptitle("dot: start, star: goal; blue: short road, orange: long, grey: stuck")
        args.out.mkdir(parents=True, exist_ok=True)
        write(args.out / "two_roads.png", partial(figure.savefig, format="png", dpi=110))
        numbers = {"demonstrations": data[1]}
        for method, by_seed in results.items():
            numbers[method] = {seed: values for seed, (_, values) in by_seed.items()}
        text = json.dumps(numbers, indent=1)
        write(args.out / "two_roads.json", lambda path: path.write_text(text))
        print(table(data, results))
        print(f"picture and numbers: {args.out / 'two_roads'}.png, .json")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
