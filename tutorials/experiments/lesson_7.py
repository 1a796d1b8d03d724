"""The runs of lesson 7: runs that fail, one cure, and healthy runs, all on two roads.

    python tutorials/experiments/lesson_7.py                            # about an hour of one core
    python tutorials/experiments/lesson_7.py --runs healthy --seeds 0   # some of it

A run has the settings of `--env two-roads` and is evaluated every 1,000 steps. Its folder is
OUT/<name>/two-roads/<seed>. What is finished is not repeated; what was stopped goes on. In
results/lesson_7 the last agents of seed 0 are kept, rounded to half precision.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_ql import DiffusionQL, load_dataset, train
from forks import LayerNormCritics
from toy_experiments import pictures
from toy_experiments.two_roads import STEPS as EPISODE
from tutorials.solutions.planted_bugs import ForkA, ForkB, ForkC


# ---- What is changed in the data -----------------------------------------------------------------
def time_limits_are_terminals(data):
    """The last step of each episode, where the time limit cuts it off, becomes terminal."""
    not_done = data.not_done.clone()
    not_done[EPISODE - 1 :: EPISODE] = 0
    return data._replace(not_done=not_done)


def cents(data):
    return data._replace(reward=data.reward / 100)


def bonus(data):
    return data._replace(reward=data.reward + 100)


# ---- The runs: {name: (what is changed in the data, method, settings)} ---------------------------
RUNS = {
    "healthy": (None, DiffusionQL, {}),
    "timeouts": (time_limits_are_terminals, DiffusionQL, {}),
    "eta-100": (None, DiffusionQL, {"eta": 100.0}),
    "layer-norm": (None, LayerNormCritics, {"eta": 100.0}),
    "cents": (cents, DiffusionQL, {}),
    "bonus": (bonus, DiffusionQL, {}),
    "fork-a": (None, ForkA, {}),
    "fork-b": (None, ForkB, {}),
    "fork-c": (None, ForkC, {}),
}


@dataclass
class Options:
    """Trains what is missing of the runs of lesson 7."""

    out: Path = Path("runs", "lesson_7")
    runs: tuple[str, ...] = tuple(RUNS)  # which of them
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 9000
    eval_every: int = 1000


def data_of(name):
    """The changed Dataset of a run, or None if it has two-roads as it is."""
    change = RUNS[name][0]
    if change is None:
        return None
    dataset = load_dataset("two-roads")
    dataset.transitions = change(dataset.transitions)
    return dataset


def run_folder(out, name, seed=0):
    return Path(out, name, "two-roads", str(seed))


def train_one(name, seed, options):
    _, method, settings = RUNS[name]
    folder = run_folder(options.out, name, seed)
    if (folder / "config.json").exists():
        args = method.Args(resume=str(folder))
    else:
        settings = dict(settings, steps=options.steps, eval_every=options.eval_every)
        args = method.Args(env="two-roads", seed=seed, device="cpu", out=str(folder), **settings)
    train(args, data_of(name), method, partial(tqdm, disable=True))


def train_all(options):
    for seed in options.seeds:
        for name in options.runs:
            if not (run_folder(options.out, name, seed) / "result.json").exists():
                train_one(name, seed, options)
            progress = pd.read_csv(run_folder(options.out, name, seed) / "progress.csv")
            print(f"{name}, seed {seed}: score {progress['score'].iloc[-1]:.1f}", flush=True)


def main():
    pictures.run_command(Options(), train_all, __doc__)


if __name__ == "__main__":
    main()
