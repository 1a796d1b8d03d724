"""The runs of notebook 5 that are too long for a class, in tutorials/results/forks.json.

    python tutorials/experiments/forks.py --part time                   # one minute
    python tutorials/experiments/forks.py --part bandit --methods EDP   # about 12 minutes
    python tutorials/experiments/forks.py --part pendulum               # about 25 minutes
    python tutorials/experiments/forks.py --part roads                  # about 90 minutes
    python tutorials/experiments/forks.py                               # all

Times are those of one core; the sweep of `roads` uses all cores.

time: milliseconds for an update and for an action, at the paper's sizes.
bandit: EDP, FQL and IDQL on the bandit of toy_experiments; some values of the knob, one seed each;
    then five other seeds with the best value, and three rules of acting.
roads: these and Diffusion-QL on two-roads, by sweep.py; tuned and repeated in the same way.
pendulum: cloning, IDQL and Diffusion-QL on the data of tutorials/pendulum.py.

What is in the results already is not repeated. The committed results are of older forks: FQL did
not normalise Q, and EDP scaled Q by the critic that it climbed. (On the bandit, FQL with alpha 100
was the best of the first three values; its five seeds were made before 0.1 was added, and stay.)
"""

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from diffusion_ql import (  # noqa: E402
    Batch,
    DiffusionQL,
    compile_losses,
    evaluate,
    load_agent,
    load_dataset,
    write,
)
from forks import EDP, FQL, IDQL, BCDiffusion  # noqa: E402
from sweep import sweep  # noqa: E402
from toy_experiments.bandit import make_data, measure  # noqa: E402
from toy_experiments.two_roads import (
    drive_policy,  # noqa: E402
    shares,  # noqa: E402
)
from tutorials.helpers import RULES, Player, choose  # noqa: E402
from tutorials.pendulum import make_pendulum_data  # noqa: E402

RESULTS = HERE.parent / "results"


@dataclass
class Options:
    part: Literal["all", "time", "bandit", "roads", "pendulum"] = "all"
    methods: tuple[str, ...] = ("FQL", "IDQL", "EDP", "Diffusion-QL")  # in bandit and roads
    minutes: float = 1000  # after which it begins no other run


# ---- Time ----------------------------------------------------------------------------------------
SIZES = dict(state_dim=17, action_dim=6, width=256, batch_size=256)  # walker2d, as in the paper
KINDS = {"Diffusion-QL": DiffusionQL, "EDP": EDP, "FQL": FQL, "IDQL": IDQL}


def milliseconds(function, calls, rounds=9):
    """The time that a call takes: of the fastest round, which other programs disturbed least."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        times.append(1000 * (time.perf_counter() - begin) / calls)
    return min(times)


def measure_times(method):
    """Milliseconds of an update, of its two halves, and of an action for one state by each rule."""
    state_dim, action_dim, width, n = SIZES.values()
    torch.manual_seed(0)
    kind = KINDS[method]
    agent = kind(state_dim, action_dim, kind.Args(hidden_dim=width, candidates=50))
    state = torch.randn(n, state_dim)
    action = 2 * torch.rand(n, action_dim) - 1
    batch = Batch(state, action, torch.randn(n, state_dim), torch.randn(n, 1), torch.ones(n, 1))

    def critic_half():
        loss, _ = agent.critic_loss(batch)
        agent.descend(loss, agent.critic_optimizer)

    def policy_half():
        agent.critic.requires_grad_(False)
        loss, _ = agent.policy_loss(batch)
        agent.descend(loss, agent.actor_optimizer)
        agent.critic.requires_grad_(True)

    agent.update(batch)
    times = {"update": milliseconds(partial(agent.update, batch), 6)}
    times["critics"] = milliseconds(critic_half, 6)
    times["policy"] = milliseconds(policy_half, 6)
    for rule in RULES:
        times[rule] = milliseconds(partial(choose, agent, state[:1], rule), 20)
    return times


def time_all(results, methods, end):
    jobs = {name: partial(measure_times, name) for name in KINDS}
    fill(results, ["milliseconds"], jobs, end)


# ---- The bandit ----------------------------------------------------------------------------------
BANDIT_STEPS = 5000
BANDIT = dict(hidden_dim=128, batch_size=100, lr=1e-2, critic_lr=1e-2, grad_norm=0, tau=1.0)
BANDIT.update(steps=BANDIT_STEPS, lr_decay=True, candidates=50, compile="default")
BANDIT_SEEDS = (2022, 2023, 2024, 2025, 2026)  # those of toy_experiments, as are all settings
TUNING_SEED = 2100
KNOBS = {  # the knob, the values that are tried, and the method's own rule of acting
    "EDP": ("eta", (2.5, 0.25, 25.0, 250.0), "softmax of 50"),
    "FQL": ("alpha", (10.0, 1.0, 100.0, 0.1), "a sample"),
    "IDQL": ("expectile", (0.7,), "best of 50"),  # its policy does not depend on the expectile
}


def bandit_run(method, value, seed):
    """The measures of 2,000 actions by each rule."""
    kind = KINDS[method]
    args = kind.Args(**BANDIT, **{KNOBS[method][0]: value})
    torch.manual_seed(seed)
    data = make_data(seed=seed)
    agent = kind(2, 2, args)
    compile_losses(agent)
    for _ in range(BANDIT_STEPS):
        agent.update(data.sample(args.batch_size))
    state = torch.zeros(2000, 2)
    numbers = {rule: measure(choose(agent, state, rule), data) for rule in RULES}
    return numbers


def bandit_all(results, methods, end):
    for method in methods:
        if method not in KNOBS:
            continue  # Diffusion-QL's runs on the bandit are those of notebook 3
        knob, candidates, own_rule = KNOBS[method]
        best = candidates[0]
        if len(candidates) > 1:
            jobs = {}
            for value in candidates:
                jobs[str(value)] = partial(bandit_run, method, value, TUNING_SEED)
            runs = fill(results, ["tuning", method], jobs, end)
            if len(runs) < len(candidates):
                continue  # no time was left
            best = float(max(runs, key=lambda value: runs[value][own_rule]["reward"]))
        jobs = {str(seed): partial(bandit_run, method, best, seed) for seed in BANDIT_SEEDS}
        fill(results, ["bandit", f"{method}, {knob} {best:g}"], jobs, end)


# ---- Two roads -----------------------------------------------------------------------------------
ROADS_SEEDS = (0, 1, 2, 3, 4)
ROADS_TUNING_SEED = 5
ROADS_TUNING_STEPS = 5000  # of each value; then 9,000, as two-roads has
ROADS_KNOBS = {  # three values for each method: the same budget
    "IDQL": ("expectile", (0.7, 0.9, 0.97)),
    "EDP": ("eta", (0.1, 1.0, 10.0)),
    "FQL": ("alpha", (1.0, 10.0, 100.0)),
    "Diffusion-QL": ("eta", (0.1, 1.0, 10.0)),
}


def roads_folder(method, value, seeds, settings=()):
    """Trains seeds by sweep.py with this value of the method's knob. Returns their folder."""
    knob = ROADS_KNOBS[method][0]
    settings = [*settings, f"--{knob}", str(value), "--candidates", "50"]
    out = Path("runs", "forks", f"{method}-{value:g}")
    failed = sweep(["two-roads"], seeds, out, settings, [KINDS[method].__name__])
    assert not failed, failed
    return out / KINDS[method].__name__ / "two-roads"


def roads_tuning(method, value):
    """The score of one run, in 100 episodes by its own rule of acting."""
    steps = ["--steps", str(ROADS_TUNING_STEPS), "--eval-every", str(ROADS_TUNING_STEPS)]
    folder = roads_folder(method, value, [ROADS_TUNING_SEED], steps)
    result = json.loads((folder / str(ROADS_TUNING_SEED) / "result.json").read_text())
    return result["final"]["score"]


def roads_run(method, value, seed):
    """Shares of the roads and the score of 100 episodes, by each rule of acting."""
    folder = roads_folder(method, value, ROADS_SEEDS)
    agent = load_agent(folder / str(seed))
    dataset = load_dataset("two-roads")
    numbers = {}
    for rule in RULES:
        paths, returns = drive_policy(Player(agent, rule), dataset)
        numbers[rule] = {**shares(paths), "score": dataset.score(returns).mean().item()}
    return numbers


def roads_all(results, methods, end):
    for method in methods:
        knob, candidates = ROADS_KNOBS[method]
        jobs = {str(value): partial(roads_tuning, method, value) for value in candidates}
        scores = fill(results, ["roads tuning", method], jobs, end)
        if len(scores) < len(candidates):
            continue  # no time was left
        best = float(max(scores, key=scores.get))
        jobs = {str(seed): partial(roads_run, method, best, seed) for seed in ROADS_SEEDS}
        fill(results, ["roads", f"{method}, {knob} {best:g}"], jobs, end)


# ---- Pendulum ------------------------------------------------------------------------------------
PENDULUM = dict(lr=1e-3, critic_lr=1e-3, tau=0.02, hidden_dim=64, batch_size=128)
PENDULUM_STEPS = 6000
PENDULUM_SEEDS = (0, 1, 2, 3, 4)
PENDULUM_TUNING_SEED = 5
PENDULUM_EPISODES = 40
PENDULUM_IDQL = dict(expectile=0.9, candidates=50)
PENDULUM_TUNED = {f"Diffusion-QL, both, eta {eta:g}": eta for eta in (0.1, 1.0, 10.0)}
PENDULUM_RUNS = {  # the agent, by what the rewards are divided, and settings
    "cloning": (BCDiffusion, 1, {}),
    "IDQL": (IDQL, 1, dict(PENDULUM_IDQL, discount=0.97)),
    "IDQL, rewards / 10": (IDQL, 10, dict(PENDULUM_IDQL, discount=0.97)),
    "IDQL, discount 0.99": (IDQL, 1, dict(PENDULUM_IDQL, discount=0.99)),
    "IDQL, both": (IDQL, 10, dict(PENDULUM_IDQL, discount=0.99)),
}
for name, eta in PENDULUM_TUNED.items():
    PENDULUM_RUNS[name] = (DiffusionQL, 10, dict(discount=0.99, eta=eta))


def pendulum_run(name, seed):
    """The returns of 40 episodes after training, by each rule of acting."""
    dataset, _ = make_pendulum_data()
    agent_class, divisor, settings = PENDULUM_RUNS[name]
    transitions = dataset.transitions
    transitions = transitions._replace(reward=transitions.reward / divisor)
    args = agent_class.Args(compile="default", **PENDULUM, **settings)
    torch.manual_seed(seed)
    agent = agent_class(dataset.state_dim, dataset.action_dim, args)
    compile_losses(agent)
    for _ in range(PENDULUM_STEPS):
        agent.update(transitions.sample(args.batch_size))
    numbers = {}
    for rule in RULES:
        if agent_class is BCDiffusion and rule != "a sample":
            break  # it has no critics
        returns = evaluate(Player(agent, rule), dataset, PENDULUM_EPISODES)
        numbers[rule] = returns.round(1).tolist()
    return numbers


def pendulum_all(results, methods, end):
    jobs = {name: partial(pendulum_run, name, PENDULUM_TUNING_SEED) for name in PENDULUM_TUNED}
    runs = fill(results, ["pendulum tuning"], jobs, end)
    if len(runs) < len(jobs):
        return  # no time was left
    best = max(runs, key=lambda name: sum(runs[name]["softmax of 50"]))  # Diffusion-QL's own rule
    chosen = [name for name in PENDULUM_RUNS if name not in PENDULUM_TUNED] + [best]
    for seed in PENDULUM_SEEDS:
        for name in chosen:
            jobs = {str(seed): partial(pendulum_run, name, seed)}
            fill(results, ["pendulum", name], jobs, end)


# ---- All of it -----------------------------------------------------------------------------------
PARTS = {"time": time_all, "bandit": bandit_all, "roads": roads_all, "pendulum": pendulum_all}


class Results:
    """The results file. It is read and written at every run, so that two processes can share it."""

    path = RESULTS / "forks.json"

    def __init__(self):
        self.read()

    def read(self):
        self.content = json.loads(self.path.read_text()) if self.path.exists() else {}

    def group(self, *names):
        group = self.content
        for name in names:
            group = group.setdefault(name, {})
        return group

    def save(self):
        text = json.dumps(self.content, indent=1)
        write(self.path, lambda path: path.write_text(text))


def fill(results, names, jobs, end):
    """Makes the runs {key: function} that a group lacks; begins none after the time `end`.

    Returns the group: {key: what its run returned}.
    """
    for key, job in jobs.items():
        if key not in results.group(*names) and time.monotonic() < end:
            numbers = job()
            results.read()
            results.group(*names)[key] = numbers
            results.save()
            print(*names, key, str(numbers)[:100], flush=True)
    return results.group(*names)


def main():
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    results = Results()
    end = time.monotonic() + 60 * options.minutes
    chosen = list(PARTS) if options.part == "all" else [options.part]
    for part in chosen:
        PARTS[part](results, options.methods, end)


if __name__ == "__main__":
    main()
