"""Two roads: the paths of the demonstrations, of clones, and of methods with reward.

    python toy_experiments/two_roads_figure.py              # five seeds: hours of one core
    python toy_experiments/two_roads_figure.py --run RUN    # seconds: RUN/roads.png, of one run

Every method makes 9,000 steps, with the settings of --env two-roads. The knobs of EDP, FQL and
IDQL were chosen by `sweep.py` on seeds 10 and 11. The agents drive 100 episodes each.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from diffusion_ql import load_agent, load_dataset, write
from sweep import collect, plan, report, sweep
from toy_experiments import pictures
from toy_experiments.two_roads import demonstrations, describe, draw_paths, drive_policy, shares

METHODS = {  # the method, and its options where they are not those of --env two-roads
    "Gaussian cloning": ("BCGaussian", ""),
    "diffusion cloning": ("BCDiffusion", ""),
    "TD3+BC": ("TD3BC", ""),
    "Gaussian with Q": ("GaussianQL", ""),
    "EDP": ("EDP", "--eta 8"),
    "FQL": ("FQL", "--alpha 0.1"),
    "IDQL": ("IDQL", "--expectile 0.3"),
    "Diffusion-QL": ("DiffusionQL", ""),
}
COLUMNS = {
    "short": ("short road", ".0%"),
    "long": ("long road", ".0%"),
    "stuck": ("stuck", ".0%"),
    "score": ("score", ".1f"),
}


@dataclass
class Options:
    out: Path = Path("runs/two-roads")  # folder of the runs, the figure and the tables
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of each method; the first one is drawn
    steps: int = 9000  # gradient steps of each run
    run: str = ""  # a run of --env two-roads, to draw it alone


def paths_of(folder, dataset, episodes=100):
    """Paths (episodes, 60, 2) and returns (episodes,) of a run's agent on new episodes.

    They are kept as paths.npz in the run folder, so that a picture needs no agent.
    """
    path = Path(folder, "paths.npz")
    if not path.exists():
        agent = load_agent(folder)
        paths, returns = drive_policy(agent, dataset, episodes, seed=(agent.args.seed, 2))
        arrays = {"paths": paths.astype(np.float16), "returns": returns.astype(np.float32)}
        write(path, partial(pictures.save_arrays, arrays))
    with np.load(path) as arrays:
        return arrays["paths"].astype(np.float32), arrays["returns"]


def result_of(paths, returns, dataset):
    """(paths, numbers): the shares of the roads and the mean score."""
    return paths, {**shares(paths), "score": float(dataset.score(returns).mean())}


def references(dataset, episodes=100):
    """The results of the demonstrations, and of uniformly random actions."""

    class Random:
        def act(self, states):
            return 2 * torch.rand(len(states), dataset.action_dim) - 1

    paths = demonstrations(dataset)
    returns = dataset.transitions.reward.reshape(len(paths), -1).sum(1).numpy()
    return {
        "demonstrations": [result_of(paths, returns, dataset)],
        "uniformly random": [result_of(*drive_policy(Random(), dataset, episodes), dataset)],
    }


def draw(results):
    columns = (len(results) + 1) // 2
    figure = Figure(figsize=(3.2 * columns, 7.6), layout="constrained")
    axes = figure.subplots(2, columns).flat
    for axis, (row, runs) in zip(axes, results.items(), strict=False):
        score = pictures.summary(runs, "score", ".0f")
        stuck = pictures.summary(runs, "stuck", ".0%")
        draw_paths(axis, runs[0][0], row, f"score {score}\nstuck {stuck}")
    for axis in axes:
        axis.set_axis_off()  # of places that are left over
    colors = "dark red: short road, yellow: long, grey: stuck"
    figure.suptitle(f"dot: start, star: goal; {colors}; the first seed", size=12)
    return figure


def draw_run(folder):
    """Writes FOLDER/roads.png: the agent's paths beside the demonstrations. Raises ValueError."""
    agent = load_agent(folder)
    if agent.args.env != "two-roads":
        raise ValueError(f"{folder} is a run of {agent.args.env}: give one of --env two-roads")
    dataset = load_dataset("two-roads")
    driven, _ = drive_policy(agent, dataset)
    figure = Figure(figsize=(8, 4), layout="constrained")
    panels = {"demonstrations": demonstrations(dataset), "the agent": driven}
    for axis, (title, paths) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        draw_paths(axis, paths, title, describe(shares(paths)))
        print(f"{title}: {describe(shares(paths))}")
    write(Path(folder, "roads.png"), partial(figure.savefig, format="png", dpi=150))
    print(f"picture: {folder}/roads.png")


def make_figure(options):
    if options.run:
        return draw_run(options.run)
    runs = []
    for method, settings in METHODS.values():
        settings = ["--steps", str(options.steps), *settings.split()]
        runs += plan(["two-roads"], options.seeds, options.out, settings, [method])
    failed = sweep(runs)
    if failed:
        raise ValueError("\n".join(failed))
    report(options.out)
    dataset = load_dataset("two-roads")
    results = references(dataset)
    finished = collect(options.out)
    for row, (method, _) in METHODS.items():
        folders = finished[finished["method"] == method].sort_values("seed")["folder"]
        results[row] = [result_of(*paths_of(folder, dataset), dataset) for folder in folders]
    write(options.out / "figure.png", partial(draw(results).savefig, format="png", dpi=110))
    text = pictures.table(results, COLUMNS)
    write(options.out / "roads.md", lambda path: path.write_text(text))
    print(text)
    print(f"figure and tables: {options.out}/figure.png, roads.md, table.md")


def main():
    pictures.run_command(Options(), make_figure, __doc__)


if __name__ == "__main__":
    main()
