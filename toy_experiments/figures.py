"""The bandit's figures: runs side by side, what is drawn and tabled of them, and how it is saved.

A *run* is (samples, numbers), as `clone` and `learn` of training.py return them: 2,000 actions
(2000, 2) and a dict of measures. `results` are {row: [a run for each seed]}, a row of the table.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import joblib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from tqdm import tqdm

from diffusion_ql import write
from toy_experiments.bandit import CORNERS, MEASURES, RADIUS, make_data

HERE = Path(__file__).resolve().parent

# Okabe and Ito's palette for the colour-blind. A method of cloning and the one with reward that is
# built on it have the same colour. Purple, brown and olive are the forks of notebook 5.
COLORS = {
    "data": "#555555",
    "Gaussian": "#D55E00",
    "TD3+BC": "#D55E00",
    "AWR": "#E69F00",
    "CVAE": "#009E73",
    "BCQ": "#009E73",
    "MMD": "#CC79A7",
    "BEAR": "#CC79A7",
    "exact denoiser": "#56B4E9",
    "diffusion": "#0072B2",
    "Diffusion-QL": "#0072B2",
    "EDP": "#7A3E9D",
    "FQL": "#6B3A1E",
    "IDQL": "#9A9A00",
}

# The columns of a table: {measure: (heading, format)}.
CLONING_COLUMNS = {
    "on_mode": ("on mode", ".1%"),
    "smallest_corner": ("smallest corner", ".1%"),
    "energy_distance": ("squared energy distance", ".4f"),
}
REWARD_COLUMNS = {
    "reward": ("reward", ".2f"),
    "best_corner": ("best corner", ".1%"),
    "on_mode": ("on mode", ".1%"),
    "edge": ("at the edge", ".1%"),
}
ACTING_COLUMNS = {  # of every method under the same rules (guided.act)
    "reward": ("reward: a sample", ".2f"),
    "reward, softmax of 50": ("softmax of 50", ".2f"),
    "reward, best of 50": ("best of 50", ".2f"),
    "best_corner": ("best corner: a sample", ".1%"),
    "best_corner, softmax of 50": ("softmax of 50", ".1%"),
    "best_corner, best of 50": ("best of 50", ".1%"),
}


# ---- Runs ----------------------------------------------------------------------------------------
def run(jobs):
    """Runs {key: (function, settings)} on all cores, one thread each. Returns {key: run}.

    A function takes its settings by name, and returns (..., samples, numbers). What is finished is
    kept in runs/toy_experiments/, where a stopped script, or another one, finds it again.
    """
    cached_work = joblib.Memory(cache_folder(), verbose=0).cache(work)
    calls = []
    for key, (function, settings) in jobs.items():
        calls.append(joblib.delayed(keyed)(key, cached_work, function, settings))
    workers = min(len(jobs), joblib.cpu_count())
    parallel = joblib.Parallel(workers, return_as="generator_unordered")
    return dict(tqdm(parallel(calls), total=len(calls), unit="run"))


def cache_folder():
    """A folder of its own for each version of the code, so that no result outlives its code."""
    code = hashlib.sha256((HERE.parent / "diffusion_ql.py").read_bytes())
    for name in ("bandit", "cloning", "guided", "training"):
        code.update((HERE / f"{name}.py").read_bytes())
    return Path("runs", "toy_experiments", code.hexdigest()[:8])


def work(function, settings):
    """A run in a process of `run`."""
    torch.set_num_threads(1)
    *_, samples, numbers = function(**settings)
    return samples.numpy(), numbers


def keyed(key, function, *arguments):
    return key, function(*arguments)


def run_seeds(rows, args, first_seed_only=()):
    """Runs {row: (function, settings)} with each seed that args ask for. Returns results.

    first_seed_only: rows that are too slow for more than one seed.
    """
    seeds = range(args.seed, args.seed + args.seeds)
    jobs = {}
    for row in reversed(rows):  # the last ones take the longest, so they start first
        function, settings = rows[row]
        for seed in seeds:
            if seed == args.seed or row not in first_seed_only:
                jobs[row, seed] = (function, {**settings, "seed": seed})
    runs = run(jobs)
    results = {}
    for row in rows:
        results[row] = [runs[row, seed] for seed in seeds if (row, seed) in runs]
    return results


# ---- Figures -------------------------------------------------------------------------------------
def draw(axis, actions, title, caption="", color=None):
    """One panel: actions (n, 2), and a circle around each corner. color: default COLORS[title]."""
    if color is None:
        color = COLORS[title]
    for corner in CORNERS.tolist():
        axis.add_patch(Circle(corner, RADIUS, fill=False, color="#999999", lw=0.8))
    x, y = np.asarray(actions).T
    axis.scatter(x, y, s=2, alpha=0.4, color=color, linewidths=0)
    axis.set(title=title, xlabel=caption, aspect="equal")
    axis.set(xlim=(-1.1, 1.1), xticks=[-1, 0, 1], ylim=(-1.1, 1.1), yticks=[-1, 0, 1])


def draw_methods(results, seed, data_caption, caption):
    """A Figure with a panel for the data of a seed, and one for each method's first run.

    caption(runs): the lines under a method's panel.
    """
    figure = Figure(figsize=(2.5 * (1 + len(results)), 3.7), layout="constrained")
    data_axis, *axes = figure.subplots(1, 1 + len(results))
    draw(data_axis, make_data(seed=seed).action[:2000], "data", data_caption)
    for axis, (method, runs) in zip(axes, results.items(), strict=True):
        samples, _ = runs[0]
        draw(axis, samples, method, caption(runs))
    return figure


def draw_line(axis, rows, results, measure, **style):
    """A line of a chart: mean ± std of a measure over the seeds of rows {x: row of results}.

    Rows that were not run are left out.
    """
    points = []
    for x, row in rows.items():
        numbers = [run_numbers[measure] for _, run_numbers in results.get(row, [])]
        if numbers:
            points.append((x, np.mean(numbers), np.std(numbers)))
    if points:
        x, means, stds = np.transpose(points)
        axis.errorbar(x, means, stds, capsize=3, **style)


def seeds_text(args):
    """What the samples and the numbers of a figure are of."""
    numbers = "numbers of this seed"
    if args.seeds > 1:
        numbers = f"numbers: mean ± std over {args.seeds} seeds"
    return f"2,000 samples of seed {args.seed}; {numbers}"


def cloning_caption(runs):
    """The lines under a panel of cloning: a mean over the runs, one for each seed."""
    return (
        f"on mode {summary(runs, 'on_mode', '.0%')}\n"
        f"smallest corner {summary(runs, 'smallest_corner', '.0%')}\n"
        f"energy distance²\n{summary(runs, 'energy_distance', '.3f')}"
    )


def reward_caption(runs):
    """The lines under a panel with reward: a mean over the runs, one for each seed."""
    return (
        f"reward {summary(runs, 'reward', '.2f')}\n"
        f"best corner {summary(runs, 'best_corner', '.0%')}\n"
        f"best of 50: {summary(runs, 'best_corner, best of 50', '.0%')}"
    )


def summary(runs, measure, form):
    """A measure of the runs in one text: their mean, and ± their standard deviation if several.

    form: how a number is written, such as ".1%"; a measure that a run lacks gives "".
    """
    values = [numbers.get(measure) for _, numbers in runs]
    if None in values:
        return ""
    text = f"{np.mean(values):{form}}"
    if len(values) > 1:
        text += f" ± {np.std(values):{form}}"
    return text


# ---- Tables and files ----------------------------------------------------------------------------
def table(results, columns):
    """A Markdown table of results, a line per row: mean ± std over the seeds.

    columns: {measure: (heading, format)}; a measure that a row does not have stays empty.
    """
    headings = [heading for heading, _ in columns.values()]
    lines = [table_line("", headings), "|---" * (1 + len(columns)) + "|"]
    for row, runs in results.items():
        cells = [summary(runs, measure, form) for measure, (_, form) in columns.items()]
        lines.append(table_line(row, cells))
    return "\n".join(lines)


def table_line(row, cells):
    return f"| {row} | {' | '.join(cells)} |"


def save(name, figure, args, **tables):
    """Writes name.png and name.json into the folder args.out, each whole or not at all.

    tables: results, by the name that they get in the JSON file, which also holds args.
    """
    content = asdict(args)
    content.pop("out")
    content["measures"] = MEASURES
    for title, results in tables.items():
        content[title] = {}
        for row, runs in results.items():
            content[title][row] = [numbers for _, numbers in runs]
    write(args.out / f"{name}.png", lambda path: figure.savefig(path, dpi=150))
    write(args.out / f"{name}.json", lambda path: path.write_text(json.dumps(content, indent=1)))
    print(f"figure and numbers: {args.out / name}.png, .json")
