"""Lets the averaged policy play, for lesson 5: what would each evaluation of a run have been?

    python tutorials/experiments/lesson_5.py RUN [RUN ...]

Training lets the policy act. This plays as many episodes, from the same starts, with the averaged
policy of every agent that the run saved, and keeps their returns in RUN/returns_average.csv, a row
for each evaluation as in returns.csv. What stands there is not played again. An evaluation of 100
kitchen episodes takes about two minutes of one core.
"""

import sys
from pathlib import Path

import pandas as pd
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_ql import evaluate, load_agent, load_dataset, write

NAME = "returns_average.csv"


def play(run, dataset=None):
    """Writes the returns of the averaged policy for a run folder. dataset: of a run on own data."""
    by_policy = pd.read_csv(run / "returns.csv", index_col="step")
    rows = {}
    if (run / NAME).exists():
        rows = pd.read_csv(run / NAME, index_col="step").T.to_dict("list")
    for step, returns in by_policy.iterrows():
        if step in rows:
            continue
        agent = load_agent(run, step)
        agent.args.act_with = "average"
        dataset = dataset or load_dataset(agent.args.env)
        rows[step] = evaluate(agent, dataset, returns.count(), (agent.args.seed, step))
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("step").sort_index()
        write(run / NAME, table.to_csv)
        scores = dataset.score(table.loc[step].mean()), dataset.score(returns.mean())
        print("{}, step {:,}: average {:.1f}, policy {:.1f}".format(run, step, *scores), flush=True)


def main(runs: tyro.conf.Positional[tuple[Path, ...]]):
    for run in runs:
        play(run)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
