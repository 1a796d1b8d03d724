"""The committed runs of lesson 5: Diffusion-QL and a clone, on its dataset cheetah/mixed-v0.

    python tutorials/experiments/locomotion.py                  # all of it
    python tutorials/experiments/locomotion.py --part ql        # Diffusion-QL: 40 minutes
    python tutorials/experiments/locomotion.py --part bc        # the clone: 10 minutes
    python tutorials/experiments/locomotion.py --part evaluate  # both, in many episodes: 5 minutes
    python tutorials/experiments/locomotion.py --part seeds     # four more seeds: 100 minutes

Times are those of one core. The run folders are in runs/locomotion; what lesson 5 needs of them
goes to tutorials/results/locomotion. A run that was stopped goes on, and nothing is done twice.
The four more seeds have half of the steps: Diffusion-QL's score with seed 0 changes little later.
"""

import copy
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import diffusion_ql  # noqa: E402
from diffusion_ql import Args, DiffusionQL, evaluate, load_dataset, train, write  # noqa: E402
from forks import BCDiffusion  # noqa: E402
from tutorials.helpers import args_of  # noqa: E402

ENV = "cheetah/mixed-v0"
RUNS = Path("runs", "locomotion")
RESULTS = HERE.parent / "results" / "locomotion"
AGENTS = {"ql": DiffusionQL, "bc": BCDiffusion}
SETTINGS = dict(steps=120_000, eval_every=7_500, hidden_dim=128, device="cpu")
EPISODES = 50  # of each evaluation after training
REPETITIONS = 16  # evaluations of one policy, 10 episodes each: as many as a run has
SEEDS = (1, 2, 3, 4)  # beside seed 0, which has all of the steps
SEED_STEPS = 60_000


@dataclass
class Options:
    part: Literal["all", "ql", "bc", "evaluate", "seeds"] = "all"


def make_run(algo):
    """One of the two runs of seed 0. Keeps what is small of it."""
    folder = RUNS / algo
    train_into(folder, algo, SETTINGS)
    keep(folder, RESULTS / algo)


def train_into(folder, algo, settings):
    """Trains, or goes on where training was stopped."""
    if not (folder / "result.json").exists():
        resume = str(folder) if (folder / "config.json").exists() else ""
        where = dict(out=str(folder), resume=resume, compile="default")
        train(Args(env=ENV, **where, **settings), agent_class=AGENTS[algo])


def keep(folder, target):
    """Copies settings and results, and the networks."""
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["resume"] = ""
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("progress.csv", "result.json"):
        (target / name).write_text((folder / name).read_text())
    networks = diffusion_ql.load_agent(folder).state_dict()
    if folder.name == "bc":  # its critics have learned nothing
        networks = {name: values for name, values in networks.items() if "critic" not in name}
    torch.save(networks, target / "checkpoint.pt")


def load_agent(name, dataset):
    """The agent of a committed run, as it was after its last step."""
    agent = AGENTS[name](dataset.state_dim, dataset.action_dim, args_of(RESULTS / name))
    networks = torch.load(RESULTS / name / "checkpoint.pt", weights_only=True)
    agent.load_state_dict(networks, strict=False)  # a clone's critics are missing
    return agent


def pair(proposes, chooses, candidates):
    """An agent that proposes with the policy of one, and chooses with the critics of the other."""
    agent = copy.deepcopy(chooses)
    agent.actor = proposes.actor
    agent.args = replace(agent.args, candidates=candidates)
    return agent


def evaluate_runs():
    """Returns of many episodes, to evaluations.json: {which policy: returns}."""
    dataset = load_dataset(ENV)
    path = RESULTS / "evaluations.json"
    done = read(path)
    trained = {name: load_agent(name, dataset) for name in AGENTS}
    agents = {}
    for name in AGENTS:
        for candidates in (1, 10, 50):
            agents[f"{name}, {candidates}"] = pair(trained[name], trained["ql"], candidates)
    for name, agent in agents.items():
        if name not in done:
            done[name] = evaluate(agent, dataset, EPISODES, seed=5000).round(1).tolist()
            save(done, path)
    for name in AGENTS:
        repeated = done.setdefault(f"{name}, again and again", [])
        while len(repeated) < REPETITIONS:
            seed = 6000 + 10 * len(repeated)
            returns = evaluate(trained[name], dataset, 10, seed=seed)
            repeated.append(returns.round(1).tolist())
            save(done, path)


def make_seeds():
    """More seeds of both, to seeds.json: {seed: {"curves": {algo: scores}, which policy: returns}}.

    A curve has a score every 7,500 steps. The returns are those of 50 episodes after the last step.
    """
    dataset = load_dataset(ENV)
    path = RESULTS / "seeds.json"
    done = read(path)
    for seed in SEEDS:
        if str(seed) in done:
            continue
        curves = {}
        agents = {}
        for algo in AGENTS:
            folder = RUNS / f"{algo}-{seed}"
            train_into(folder, algo, {**SETTINGS, "steps": SEED_STEPS, "seed": seed})
            scores = np.genfromtxt(folder / "progress.csv", delimiter=",", names=True)["score"]
            curves[algo] = scores.round(1).tolist()
            agents[algo] = diffusion_ql.load_agent(folder)
        numbers = {"curves": curves}
        for algo in AGENTS:
            for candidates in (1, 50):
                agent = pair(agents[algo], agents["ql"], candidates)
                returns = evaluate(agent, dataset, EPISODES, seed=5000)
                numbers[f"{algo}, {candidates}"] = returns.round(1).tolist()
        done[str(seed)] = numbers
        save(done, path)


def read(path):
    """What a file of results holds; nothing, where it is missing."""
    if not path.exists():
        return {}
    return json.loads(path.read_text())


def save(content, path):
    write(path, lambda partial: partial.write_text(json.dumps(content) + "\n"))


def main():
    part = tyro.cli(Options, description=__doc__).part
    os.environ["MINARI_DATASETS_PATH"] = str(HERE.parent / "data")
    torch.set_num_threads(1)
    if part in ("ql", "all"):
        make_run("ql")
    if part in ("bc", "all"):
        make_run("bc")
    if part in ("evaluate", "all"):
        evaluate_runs()
    if part in ("seeds", "all"):
        make_seeds()


if __name__ == "__main__":
    main()
