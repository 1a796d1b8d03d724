"""The runs of notebook 5 that are too long for a class, in tutorials/results/forks.json.

    python tutorials/experiments/forks.py                        # all parts: half an hour, one core
    python tutorials/experiments/forks.py --part tune            # one part of them
    python tutorials/experiments/forks.py --part seeds --methods EDP

tune: Diffusion-QL, EDP, FQL and IDQL on two-roads, each with three values of its knob, one seed.
seeds: each with the value that scored best, five other seeds; three rules of acting.
time: milliseconds for an update and for an action. Run it alone on a quiet machine.
pendulum: cloning, IDQL and Diffusion-QL on the data of tutorials/pendulum.py, five seeds.

What is in the results already is not repeated.
"""

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from diffusion_ql import Args, DiffusionQL, compile_losses, evaluate, load_dataset, write  # noqa: E402
from toy_experiments.two_roads_agents import drive_policy  # noqa: E402
from toy_experiments.two_roads_pictures import shares  # noqa: E402
from tutorials.forks import EDP, FQL, IDQL, RULES, Player, choose  # noqa: E402
from tutorials.pendulum import make_pendulum_data  # noqa: E402

RESULTS = HERE.parent / "results"
PARTS = ("time", "tune", "seeds", "pendulum")
METHODS = {  # the agent, its knob, the three values that are tried, the rule by which it acts
    "Diffusion-QL": (DiffusionQL, "eta", (0.1, 1.0, 10.0), "softmax of 50"),
    "EDP": (EDP, "eta", (0.1, 1.0, 10.0), "softmax of 50"),
    "FQL": (FQL, "alpha", (1.0, 10.0, 100.0), "a sample"),
    "IDQL": (IDQL, "expectile", (0.7, 0.9, 0.97), "best of 50"),
}


@dataclass
class Options:
    part: str = "all"  # time, tune, seeds, pendulum, or all
    methods: tuple[str, ...] = tuple(METHODS)  # of which methods
    minutes: float = 1000  # after which it begins no other run


def agent_and_settings(method, value):
    """The agent with this value of its knob, and the settings of Args that go with it."""
    agent_class, knob, _, _ = METHODS[method]
    if knob == "eta":
        return agent_class, {"eta": value}
    return partial(agent_class, **{knob: value}), {}


# ---- Two roads -----------------------------------------------------------------------------------
# Smaller networks and batches than python diffusion_ql.py has on two-roads, for all methods alike.
ROADS = dict(hidden_dim=64, batch_size=128, steps=5000)
EPISODES = 40  # that an agent drives by each rule
TUNING_SEED = 100
SEEDS = (0, 1, 2, 3, 4)


def train_on_roads(method, value, seed):
    """An agent, and its scores by its own rule of acting after half of the steps and after all."""
    agent_class, settings = agent_and_settings(method, value)
    args = Args.for_env("two-roads", device="cpu", compile="on", seed=seed, **ROADS, **settings)
    dataset = load_dataset("two-roads")
    torch.manual_seed(seed)
    agent = agent_class(dataset.state_dim, dataset.action_dim, args)
    compile_losses(agent, dataset.transitions)
    curve = []
    for step in range(1, args.steps + 1):
        agent.update(dataset.transitions.sample(args.batch_size))
        if step % (args.steps // 2) == 0:
            _, numbers = drive(agent, METHODS[method][3])
            curve.append([step, numbers["score"]])
    return agent, curve


def drive(agent, rule):
    """Paths (episodes, 60, 2) of an agent that acts by this rule; the roads taken, the score."""
    dataset = load_dataset("two-roads")
    paths, returns = drive_policy(Player(agent, rule), dataset, EPISODES)
    return paths, {**shares(paths), "score": dataset.score(returns).mean().item()}


def tune(method, value):
    """The scores of one run with the tuning seed, half-way and at the end."""
    _, curve = train_on_roads(method, value, TUNING_SEED)
    return curve


def run_seed(method, value, seed):
    """A run with another seed: its curve, and its numbers by each rule of acting."""
    agent, curve = train_on_roads(method, value, seed)
    numbers = {"curve": curve}
    for rule in RULES:
        paths, numbers[rule] = drive(agent, rule)
        if seed == SEEDS[0] and rule == METHODS[method][3]:
            numbers["paths"] = paths.round(2).tolist()
    return numbers


def best_value(scores):
    """Of {value: score}: the value that scored best."""
    return float(max(scores, key=scores.get))


# ---- Time ----------------------------------------------------------------------------------------
def milliseconds(function, calls, rounds=9):
    """The median over the rounds of the time that a call takes."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        times.append(1000 * (time.perf_counter() - begin) / calls)
    return float(np.median(times))


def measure_times(method, width, batch_size):
    """Milliseconds of an update, of its two halves, and of an action for one state by each rule."""
    dataset = load_dataset("two-roads")
    args = Args.for_env("two-roads", device="cpu", hidden_dim=width, batch_size=batch_size)
    agent = METHODS[method][0](dataset.state_dim, dataset.action_dim, args)
    data = dataset.transitions
    state = data.state[:1]

    def critic_half():
        agent.critic.requires_grad_(True)
        agent.descend(*agent.critic_loss(data.sample(batch_size)), agent.critic)

    def policy_half():
        agent.critic.requires_grad_(False)
        agent.descend(*agent.policy_loss(data.sample(batch_size)), agent.actor)

    agent.update(data.sample(batch_size))
    times = {"update": milliseconds(lambda: agent.update(data.sample(batch_size)), 15)}
    times["critics"] = milliseconds(critic_half, 15)
    times["policy"] = milliseconds(policy_half, 15)
    for rule in RULES:
        times[rule] = milliseconds(partial(choose, agent, state, rule), 30)
    return times


# ---- Pendulum ------------------------------------------------------------------------------------
PENDULUM = dict(lr=1e-3, critic_lr=1e-3, discount=0.97, tau=0.02, ema_decay=0.98)
PENDULUM |= dict(hidden_dim=64, batch_size=128, steps=6000)
PENDULUM_EPISODES = 40
PENDULUM_RUNS = {
    "cloning": (DiffusionQL, dict(algo="bc")),
    "IDQL": (partial(IDQL, expectile=0.9), {}),
    "Diffusion-QL": (DiffusionQL, dict(eta=0.1)),
}


def pendulum_run(name, seed):
    """The returns of 40 episodes: their mean half-way, and all of them at the end."""
    dataset, _ = make_pendulum_data()
    agent_class, settings = PENDULUM_RUNS[name]
    args = Args(env="Pendulum-v1", device="cpu", compile="on", **PENDULUM, **settings)
    torch.manual_seed(seed)
    agent = agent_class(dataset.state_dim, dataset.action_dim, args)
    compile_losses(agent, dataset.transitions)
    curve = []
    for step in range(1, args.steps + 1):
        agent.update(dataset.transitions.sample(args.batch_size))
        if step % (args.steps // 2) == 0:
            returns = evaluate(agent, dataset, PENDULUM_EPISODES)
            curve.append([step, returns.mean()])
            print(name, seed, curve[-1], flush=True)
    return {"curve": curve, "returns": returns.round(1).tolist()}


# ---- All of it -----------------------------------------------------------------------------------
class Results:
    """The results file. It is written after every run."""

    path = RESULTS / "forks.json"

    def __init__(self):
        self.content = json.loads(self.path.read_text()) if self.path.exists() else {}

    def group(self, *names):
        group = self.content
        for name in names:
            group = group.setdefault(name, {})
        return group

    def save(self):
        text = json.dumps(self.content, indent=1)
        write(self.path, lambda path: path.write_text(text))


def fill(results, group, jobs, end):
    """Runs the jobs {key: function} that the group lacks; begins none after the time `end`."""
    for key, job in jobs.items():
        if key not in group and time.monotonic() < end:
            group[key] = job()
            results.save()
            print(key, str(group[key])[:200], flush=True)


def main():
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    results = Results()
    results.content["settings"] = {
        "two-roads": ROADS,
        "episodes": EPISODES,
        "seeds": SEEDS,
        "tuning seed": TUNING_SEED,
    }
    parts = PARTS if options.part == "all" else (options.part,)
    end = time.monotonic() + 60 * options.minutes
    for part in parts:
        PART_FUNCTIONS[part](results, options.methods, end)


def tune_all(results, methods, end):
    for method in methods:
        jobs = {str(value): partial(tune, method, value) for value in METHODS[method][2]}
        fill(results, results.group("tuning", method), jobs, end)


def seeds_all(results, methods, end):
    for method in methods:
        curves = results.group("tuning", method)
        if len(curves) < len(METHODS[method][2]):
            continue  # not tuned yet
        value = best_value({value: curve[-1][1] for value, curve in curves.items()})
        jobs = {str(seed): partial(run_seed, method, value, seed) for seed in SEEDS}
        fill(results, results.group("roads", method), jobs, end)


def time_all(results, methods, end):
    for width, batch_size in ((64, 128), (256, 256)):
        group = results.group("time", f"width {width}, batch {batch_size}")
        jobs = {name: partial(measure_times, name, width, batch_size) for name in methods}
        fill(results, group, jobs, end)


def pendulum_all(results, methods, end):
    for name in PENDULUM_RUNS:
        jobs = {str(seed): partial(pendulum_run, name, seed) for seed in SEEDS}
        fill(results, results.group("pendulum", name), jobs, end)


PART_FUNCTIONS = {
    "tune": tune_all,
    "seeds": seeds_all,
    "time": time_all,
    "pendulum": pendulum_all,
}

if __name__ == "__main__":
    main()
