"""The runs of lesson 7: each failure, its cure, and a healthy run with the same budget.

    python tutorials/experiments/failures.py                            # everything
    python tutorials/experiments/failures.py --runs healthy eta-100     # some of it

A run takes about half a minute on one core. What is finished is not repeated, and what was stopped
goes on where it stopped. Runs train in runs/failures/; what lesson 7 needs of them (config.json,
progress.csv, score.json, and the weights of seed 0) goes to tutorials/results/failures/.
"""

import copy
import json
import shutil
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from diffusion_ql import Args, DiffusionQL, evaluate, load_agent, load_dataset, train  # noqa: E402
from toy_experiments.two_roads import STEPS as EPISODE  # noqa: E402
from tutorials.solutions.planted_bugs import ForkA, ForkB, ForkC  # noqa: E402

RESULTS = REPOSITORY / "tutorials" / "results" / "failures"
# So short a run needs faster averages, and a shorter horizon, than --env two-roads has.
BUDGET = dict(steps=1200, eval_every=150, eval_episodes=5, hidden_dim=64, batch_size=128)
BUDGET.update(discount=0.95, tau=0.1, ema_decay=0.95, ema_start=100, compile="off")


# ---- What is changed in the data -----------------------------------------------------------------
def timeouts_as_terminals(data):
    """The last step of each episode, where the time limit cuts it off, becomes terminal."""
    not_done = data.not_done.clone()
    not_done[EPISODE - 1 :: EPISODE] = 0
    return data._replace(not_done=not_done)


def rewards_times(factor, data):
    return data._replace(reward=factor * data.reward)


def rewards_plus(shift, data):
    return data._replace(reward=data.reward + shift)


# ---- The runs ------------------------------------------------------------------------------------
@dataclass
class Run:
    """settings: where they differ from --env two-roads and BUDGET. change: of the data."""

    settings: dict = field(default_factory=dict)
    change: object = None
    agent: type = DiffusionQL
    keep_weights: bool = True  # of seed 0


CRITIC = dict(reward_tune="normalize", discount=0.99, eta=10.0, critic_lr=3e-3, tau=1.0)
RUNS = {
    "healthy": Run(),
    "eta-100": Run(dict(eta=100.0)),
    "critic": Run(CRITIC),
    "critic-tau": Run({**CRITIC, "tau": 0.02}, keep_weights=False),
    "critic-lr": Run({**CRITIC, "critic_lr": 3e-4}, keep_weights=False),
    "critic-eta": Run({**CRITIC, "eta": 1.0}, keep_weights=False),
    "critic-discount": Run({**CRITIC, "discount": 0.97}, keep_weights=False),
    "max-q": Run(dict(max_q_backup=True)),
    "timeouts": Run(change=timeouts_as_terminals),
    "rewards-small": Run(change=partial(rewards_times, 0.01)),
    "rewards-large": Run(change=partial(rewards_times, 100.0)),
    "rewards-shifted": Run(change=partial(rewards_plus, 10.0)),
    "fork-a": Run(agent=ForkA),
    "fork-b": Run(agent=ForkB),
    "fork-c": Run(agent=ForkC),
}


# ---- Training ------------------------------------------------------------------------------------
@dataclass
class Settings:
    """Trains what is missing of the runs of lesson 7."""

    runs: tuple[str, ...] = tuple(RUNS)  # which of them
    seeds: tuple[int, ...] = (0, 1, 2)
    work: Path = REPOSITORY / "runs" / "failures"  # where they train


def changed(dataset, change):
    """A copy of a Dataset whose transitions are changed."""
    dataset = copy.copy(dataset)
    if change is not None:
        dataset.transitions = change(dataset.transitions)
    return dataset


def train_one(name, seed, dataset, work):
    """Trains one run, or goes on with it, and keeps what the notebook needs."""
    run = RUNS[name]
    folder = work / name / str(seed)
    resume = str(folder) if (folder / "config.json").exists() else ""
    where = dict(out=str(folder), resume=resume, device="cpu")
    args = Args(env="two-roads", seed=seed, **where, **{**BUDGET, **run.settings})
    train(args, changed(dataset, run.change), run.agent, partial(tqdm, disable=True))

    agent = load_agent(folder)
    scores = dataset.score(evaluate(agent, dataset, episodes=40))
    kept = RESULTS / name / str(seed)
    kept.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["settings"].update(out="", resume="")
    (kept / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.copy(folder / "progress.csv", kept)
    if seed == 0 and run.keep_weights:
        weights = {name: values.half() for name, values in agent.state_dict().items()}
        torch.save(weights, kept / "weights.pt")
    numbers = dict(score=float(scores.mean()), std=float(scores.std()), episodes=len(scores))
    (kept / "score.json").write_text(json.dumps(numbers, indent=2) + "\n")  # last: it is finished


def main():
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    dataset = load_dataset("two-roads")
    for seed in settings.seeds:
        for name in settings.runs:
            if not (RESULTS / name / str(seed) / "score.json").exists():
                print(f"{name}, seed {seed}", flush=True)
                train_one(name, seed, dataset, settings.work)


if __name__ == "__main__":
    main()
