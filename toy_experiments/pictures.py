"""The experiments of this folder: their runs, and the pictures and tables that are made of them.

An experiment on the bandit is a dict of rows, {name: (method, task, options)}. `experiment` trains
each row with several seeds by sweep.py, and draws. A *result* of a run is (actions, numbers): 2,000
actions (2000, 2) of its agent, and what `bandit.measure` says of them.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.patches import Circle

from diffusion_ql import DiffusionQL, load_agent, write
from forks import best_of
from sweep import collect, plan, sweep
from toy_experiments.bandit import CORNERS, RADIUS, TASKS, make_data, measure

# Okabe and Ito's palette for the colour-blind. A method of cloning and the one with reward that is
# built on it have the same colour.
COLORS = {
    "the data": "#555555",
    "uniformly random": "#AAAAAA",
    "Gaussian": "#D55E00",
    "TD3+BC": "#A33F00",
    "Gaussian with Q": "#D55E00",
    "AWR": "#E69F00",
    "CVAE": "#009E73",
    "CVAE, repaired": "#5FC9A8",
    "BCQ": "#009E73",
    "MMD": "#CC79A7",
    "BEAR": "#CC79A7",
    "mixture of 8": "#F0A800",
    "exact denoiser": "#56B4E9",
    "diffusion": "#0072B2",
    "weighted diffusion": "#56B4E9",
    "Diffusion-QL": "#0072B2",
    "EDP": "#7A3E9D",
    "FQL": "#6B3A1E",
    "IDQL": "#9A9A00",
}

# The columns of a table: {number: (heading, format)}.
CLONING = {
    "on_mode": ("on mode", ".1%"),
    "smallest_corner": ("smallest corner", ".1%"),
    "energy_distance": ("squared energy distance", ".4f"),
}
REWARD = {
    "score": ("reward by its own rule", ".2f"),
    "reward": ("reward of a sample", ".2f"),
    "best_corner": ("best corner", ".1%"),
    "on_mode": ("on mode", ".1%"),
    "edge": ("at the edge", ".1%"),
}
RULES = ("a sample", "softmax of 50", "best of 50")  # of acting


# ---- Runs ----------------------------------------------------------------------------------------
@dataclass
class Options:
    """Trains what is missing, then draws figure.png and writes table.md."""

    out: Path  # folder of the runs, the figure and the table
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of each row; the first one is drawn
    steps: int = 5000  # gradient steps of each run


def experiment(name, description, rows, draw, columns, references=None):
    """A command: reads its options, trains the rows, draws, and writes the table.

    draw(results) → Figure; columns: of the table; references: {row: [result]} that need no run.
    """

    def make_figure(options):
        train(rows, options)
        results = dict(references or {})
        for row in rows:
            results[row] = read_row(options.out, row, options.seeds)
        save(options.out, draw(results), table(results, columns))

    run_command(Options(out=Path("runs", name)), make_figure, description)


def run_command(defaults, work, description):
    """work(options of the command line). Bad input ends in a line that says what is wrong."""
    begin = time.time()
    try:
        work(tyro.cli(type(defaults), default=defaults, description=description))
        print(f"{time.time() - begin:.0f} seconds")
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def row_folder(out, row):
    """Where the runs of a row are: "diffusion, N = 5" in OUT/diffusion_N=5."""
    return Path(out, row.replace(" = ", "=").replace(", ", "_").replace(" ", "-"))


def train(rows, options):
    """Trains what is missing of {row: (method, task, settings)}; ValueError if a run fails."""
    runs = []
    for row, (method, task, settings) in rows.items():
        settings = ["--steps", str(options.steps), *settings.split()]
        folder = row_folder(options.out, row)
        runs += plan([task], options.seeds, folder, settings, [method])
    failed = sweep(runs)
    if failed:
        raise ValueError("\n".join(failed))


def read_row(out, row, seeds=(0, 1, 2, 3, 4)):
    """[the result of each seed] of a row's finished runs. Raises ValueError if there is none."""
    runs = collect(row_folder(out, row))
    runs = runs[runs["seed"].isin(seeds)].sort_values("seed")
    return [result_of(run) for run in runs.itertuples()]


def result_of(run):
    """The result of a run, a row of `sweep.collect`."""
    actions = actions_of(run.folder)
    measured = {rule: measure(chosen, TASKS[run.task]) for rule, chosen in actions.items()}
    numbers = {"score": run.final, **measured["a sample"]}
    for rule, of_rule in measured.items():
        for name in ("reward", "best_corner"):
            numbers[f"{name}, {rule}"] = of_rule[name]
    return actions["a sample"], numbers


def actions_of(folder, n=2000):
    """Actions (n, 2) of a run's agent by each rule of acting, {rule: actions}.

    They are kept as actions.npz in the run folder, so that a picture needs no agent.
    """
    path = Path(folder, "actions.npz")
    if not path.exists():
        agent = load_agent(folder)
        rules = RULES if "critic_loss" in agent_metrics(folder) else RULES[:1]
        torch.manual_seed(agent.args.seed)
        state = torch.zeros(n, 2)
        chosen = {rule: choose(agent, state, rule).numpy().astype(np.float16) for rule in rules}
        write(path, partial(save_arrays, chosen))
    with np.load(path) as arrays:
        return {rule: torch.tensor(arrays[rule], dtype=torch.float32) for rule in arrays}


def agent_metrics(folder):
    """The names of the columns of a run's progress.csv."""
    with open(Path(folder, "progress.csv")) as file:
        return file.readline().strip().split(",")


def save_arrays(arrays, path):
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


@torch.no_grad()
def choose(agent, states, rule):
    """Actions (B, action_dim) for states (B, state_dim), by one of the RULES of acting."""
    agent.args.candidates = 50
    if rule == "a sample":
        return agent.acting_policy().sample(states)
    if rule == "softmax of 50":
        return DiffusionQL.act(agent, states)
    return best_of(agent, states)


def references(task="bandit"):
    """Results to compare with: the data's own actions, and actions drawn from the whole square."""
    torch.manual_seed(0)
    own = make_data(2000).action
    uniform = 2 * torch.rand(2000, 2) - 1
    results = {}
    for name, actions in {"the data": own, "uniformly random": uniform}.items():
        numbers = measure(actions, TASKS[task])
        results[name] = [(actions, {"score": numbers["reward"], **numbers})]
    return results


# ---- Pictures ------------------------------------------------------------------------------------
def draw_actions(axis, actions, title, caption="", color=None):
    """One panel: actions (n, 2), and a circle around each corner. color: default COLORS[title]."""
    for corner in CORNERS.tolist():
        axis.add_patch(Circle(corner, RADIUS, fill=False, color="#999999", lw=0.8))
    x, y = np.asarray(actions).T
    axis.scatter(x, y, s=4, alpha=0.4, color=color or COLORS[title], linewidths=0)
    axis.set(title=title, xlabel=caption, aspect="equal")
    axis.set(xlim=(-1.1, 1.1), xticks=[-1, 0, 1], ylim=(-1.1, 1.1), yticks=[-1, 0, 1])


def draw_line(axis, rows, results, measure, **style):
    """A line of a chart: mean ± std of a measure over the seeds of rows {x: row of results}."""
    points = []
    for x, row in rows.items():
        numbers = [run_numbers[measure] for _, run_numbers in results[row]]
        points.append((x, np.mean(numbers), np.std(numbers)))
    x, means, stds = np.transpose(points)
    axis.errorbar(x, means, stds, capsize=3, **style)


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
        f"reward of a sample\n{summary(runs, 'reward', '.2f')}\n"
        f"by its own rule\n{summary(runs, 'score', '.2f')}"
    )


# ---- Tables and files ----------------------------------------------------------------------------
def summary(runs, number, form):
    """A number of the results of a row in one text: their mean, ± their std if there are several.

    form: how it is written, such as ".1%"; a number that a result lacks gives "".
    """
    values = [numbers.get(number) for _, numbers in runs]
    if None in values:
        return ""
    text = f"{np.mean(values):{form}}"
    if len(values) > 1:
        text += f" ± {np.std(values):{form}}"
    return text


def table(results, columns):
    """A Markdown table of results, a line per row: mean ± std over the seeds."""
    lines = [["", *[heading for heading, _ in columns.values()]], ["---"] * (1 + len(columns))]
    for row, runs in results.items():
        lines.append([row, *[summary(runs, name, form) for name, (_, form) in columns.items()]])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def save(folder, figure, text):
    """Writes figure.png and table.md into a folder, and prints the table."""
    write(folder / "figure.png", partial(figure.savefig, format="png", dpi=130))
    write(folder / "table.md", lambda path: path.write_text(text))
    print(text)
    print(f"figure and table: {folder}/figure.png, table.md")
