"""The crossing of lesson 6: every method on two roads, by every rule of acting.

    python tutorials/experiments/lesson_6.py --runs runs/two-roads

What an agent earns stays as rules.csv in its run folder, and the same command goes on from there.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_ql import evaluate, load_agent, load_dataset, write
from sweep import collect
from toy_experiments import pictures
from toy_experiments.two_roads import STEPS, shares
from tutorials.helpers import RULES, Player

PARKS = "best of 50, then softmax"  # the best on the way, and a softmax inside the goal's circle


@dataclass
class Options:
    """Drives what is missing, and prints a table: mean and std over the seeds."""

    runs: Path = Path("runs", "two-roads")  # folder of finished runs, with their agents
    episodes: int = 100  # by each rule


class Driver(Player):
    """Acts by one of the RULES, or as PARKS says, and keeps the states that it saw."""

    def __init__(self, agent, rule):
        super().__init__(agent, rule)
        self.states = []

    def act(self, states):
        self.states.append(states.numpy())
        if self.rule != PARKS:
            return super().act(states)
        best = pictures.choose(self.agent, states, "best of 50")
        softmax = pictures.choose(self.agent, states, "softmax of 50")
        return softmax.where(is_inside(states)[:, None], best)


def is_inside(states):
    """Whether the ball is in the circle around the goal, where a step pays; states (..., 8)."""
    offset = states[..., :2] - states[..., 6:]  # of the ball from the goal
    return (offset**2).sum(-1) <= 0.45**2


def drive(agent, dataset, episodes, seed=0):
    """States (episodes, STEPS, 8) and returns (episodes,) of a Driver or one like it."""
    returns = evaluate(agent, dataset, episodes, seed)
    states = np.stack(agent.states)  # (episodes / 10 * STEPS, 10, 8): ten go side by side
    states = states.reshape(-1, STEPS, *states.shape[1:]).swapaxes(1, 2)
    return states.reshape(episodes, STEPS, -1), returns


def measure(states, scores):
    """Numbers of episodes. arrives: the mean step that reaches the circle, STEPS if none does;
    stays: the share of later steps that are inside it, nan if no episode reaches it."""
    inside = is_inside(states)
    has_arrived = np.maximum.accumulate(inside, axis=1)
    stays = inside[has_arrived].mean() if has_arrived.any() else np.nan
    arrives = STEPS - has_arrived.sum(axis=1).mean()
    return {"score": scores.mean(), **shares(states[..., :2]), "arrives": arrives, "stays": stays}


def drive_run(folder, seed, dataset, episodes):
    """Writes rules.csv into a run folder: a row for each rule that the agent can act by."""
    agent = load_agent(folder)
    rules = [*RULES, PARKS] if "critic_loss" in pictures.agent_metrics(folder) else RULES[:1]
    rows = []
    for rule in rules:
        states, returns = drive(Driver(agent, rule), dataset, episodes, (6, seed))
        rows.append({"rule": rule, **measure(states, dataset.score(returns))})
        print(f"{folder}, {rule}: {rows[-1]['score']:.1f}", flush=True)
    table = pd.DataFrame(rows).round(3)
    write(Path(folder, "rules.csv"), partial(table.to_csv, index=False))


def read_rules(runs):
    """All rules.csv of a folder of runs: a row for each method, seed and rule."""
    tables = []
    for path in sorted(Path(runs).rglob("rules.csv")):
        method, _, seed, _ = path.relative_to(runs).parts
        tables.append(pd.read_csv(path).assign(method=method, seed=int(seed)))
    return pd.concat(tables, ignore_index=True)


def make_table(options):
    dataset = load_dataset("two-roads")
    for run in collect(options.runs).itertuples():
        if not Path(run.folder, "rules.csv").exists():
            drive_run(run.folder, run.seed, dataset, options.episodes)
    groups = read_rules(options.runs).groupby(["method", "rule"], sort=False)
    print(groups[["score", "short", "arrives", "stays"]].agg(["mean", "std"]).round(2).to_string())


if __name__ == "__main__":
    pictures.run_command(Options(), make_table, __doc__)
