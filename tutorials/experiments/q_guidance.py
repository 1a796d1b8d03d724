"""The runs of notebook 3 that are too long for a class, in tutorials/results/q_guidance*.

    python tutorials/experiments/q_guidance.py               # all parts: about 55 minutes, one core
    python tutorials/experiments/q_guidance.py --part eta    # one part of them

eta: Diffusion-QL on the bandit, with other values of eta than the 2.5 of toy_experiments.
bandit: eta = 2.5 once more, to keep policy and critics of the last step.
roads: variants of the critics' target on two-roads, all with the same number of steps. All six of
    them take about 3.5 minutes a seed.
full: the run of `python diffusion_ql.py` on two-roads, with all its steps.

A run that is in the results already is not repeated.
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

from toy_experiments.guided import GuidedDiffusion  # noqa: E402
from toy_experiments.training import learn  # noqa: E402

from diffusion_ql import (  # noqa: E402
    Args,
    DiffusionQL,
    flat_state,
    load_agent,
    load_dataset,
    move_average,
    train,
    write,
)
from toy_experiments.two_roads import (  # noqa: E402
    GOAL,
    START,
    TwoRoads,
    drive_policy,  # noqa: E402
    shares,  # noqa: E402
)

RESULTS = HERE.parent / "results"
RUNS = Path("runs", "q_guidance")
PARTS = ("full", "bandit", "roads", "eta")


@dataclass
class Options:
    part: str = "all"  # full, bandit, eta, roads, or all
    minutes: float = 1e6  # no run begins after this time


# ---- The bandit ----------------------------------------------------------------------------------
ETAS = (10.0, 0.1, 100.0, 1.0)  # 0 is cloning: toy_experiments/n_timesteps.py has it
BANDIT_SEEDS = (2022, 2023, 2024, 2025, 2026)  # those of toy_experiments


def policy_with(eta):
    policy = GuidedDiffusion()
    policy.eta = eta
    return policy


def eta_run(eta, seed):
    """The measures of 2,000 samples after 5,000 steps, their history; of one seed, 500 samples."""
    _, _, samples, numbers = learn(partial(policy_with, eta), seed=seed)
    if seed == BANDIT_SEEDS[0]:
        numbers["samples"] = samples[:500].numpy().round(2).tolist()
    return numbers


def bandit_run(seed):
    """The same with eta = 2.5; keeps the networks in a file."""
    policy, critic, _, numbers = learn(GuidedDiffusion, seed=seed)
    networks = {"policy": policy.state_dict(), "critic": critic.state_dict()}
    write(RESULTS / "q_guidance_bandit.pt", lambda path: torch.save(networks, path))
    return numbers


# ---- Two roads -----------------------------------------------------------------------------------
ROADS_SEEDS = (0, 1, 2, 3, 4)
ROADS_STEPS = 4000
DISCOUNT = 0.97  # that of two-roads
PLACES = {"start": START, "pocket": (-1, 0), "goal": GOAL}  # the pocket: left of the block


class AsksAnywhere(DiffusionQL):
    """Its target takes the best of 10 uniformly random next actions, not of the policy's."""

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.ema_actor.sample = uniform_actions


def uniform_actions(states):
    return 2 * torch.rand(len(states), 2) - 1


VARIANTS = {  # the agent, and what differs from the settings of --env two-roads
    "as it is": (DiffusionQL, {}),
    "no bootstrapping": (DiffusionQL, {"discount": 0.0}),
    "no target networks": (DiffusionQL, {"tau": 1.0}),
    "max-Q backup": (DiffusionQL, {"max_q_backup": True}),
    "best of 10 random actions": (AsksAnywhere, {"max_q_backup": True}),
    "the same, no target networks": (AsksAnywhere, {"max_q_backup": True, "tau": 1.0}),
}


def roads_run(variant, seed):
    """Mean Q of the data's actions every 100 steps, and how the last policy drives.

    Where the target does not depend on the policy, only the critics are trained.
    """
    agent_class, changes = VARIANTS[variant]
    args = Args(env="two-roads", steps=ROADS_STEPS, batch_size=64, seed=seed, **changes)
    dataset = load_dataset("two-roads")
    torch.manual_seed(seed)
    agent = agent_class(dataset.state_dim, dataset.action_dim, args)
    needs_policy = agent_class is DiffusionQL and args.discount > 0
    curve = []
    total = 0
    for step in range(1, args.steps + 1):
        batch = dataset.transitions.sample(args.batch_size)
        if needs_policy:
            metrics = agent.update(batch)
        else:
            loss, metrics = agent.critic_loss(batch)
            agent.descend(loss, agent.critic_optimizer)
            move_average(agent.critic_target, agent.critic, args.tau)
        total += metrics["q"].item() / 100
        if step % 100 == 0:
            curve.append((step, round(total, 3)))
            total = 0
    numbers = {"curve": curve, **measure_critics(agent, dataset)}
    if needs_policy:
        numbers.update(measure_policy(agent, dataset))
    return numbers


def measure_critics(agent, dataset):
    """Q of all transitions of the data, by the smaller target critic."""
    data = dataset.transitions
    with torch.no_grad():
        q = torch.minimum(*agent.critic_target(data.state, data.action))
    return {"largest_q": q.max().item(), "mean_q": q.mean().item()}


def measure_policy(agent, dataset):
    """Roads and score of 100 episodes; values of some places, and what follows there."""
    paths, returns = drive_policy(agent, dataset)
    numbers = {**shares(paths), "score": dataset.score(returns).mean().item()}
    places = torch.tensor(list(PLACES.values()))
    _, q = agent.propose(at_rest(places))
    numbers["values"] = dict(zip(PLACES, q.amax(dim=1).tolist(), strict=True))
    numbers["returns"] = {}
    for name in ("start", "pocket"):
        _, returns = drive_from(agent, PLACES[name])
        numbers["returns"][name] = returns.tolist()
    return numbers


def drive_from(agent, place, balls=10, steps=200):
    """Paths (balls, steps, 2) and discounted returns (balls,) of balls at rest at a place.

    There is no time limit here: what comes after 200 steps weighs less than 0.3 %.
    """
    simulators = [TwoRoads() for _ in range(balls)]
    states = []
    for i, simulator in enumerate(simulators):
        simulator.reset(seed=i)
        simulator.point_env.set_state(np.array(place, dtype=float), np.zeros(2))
        observation, _ = simulator.point_env._get_obs()
        states.append(flat_state(simulator._get_obs(observation)))
    states = np.stack(states)
    paths = []
    returns = np.zeros(balls)
    torch.manual_seed(0)
    for step in range(steps):
        paths.append(states[:, :2].copy())
        actions = agent.act(torch.as_tensor(states)).numpy()
        for i, simulator in enumerate(simulators):
            observation, reward, _, _, _ = simulator.step(actions[i])
            states[i] = flat_state(observation)
            returns[i] += DISCOUNT**step * reward
    return np.stack(paths, axis=1), returns


def at_rest(positions):
    """The states (n, 8) of a ball at rest at positions (n, 2)."""
    positions = torch.as_tensor(positions, dtype=torch.float32)
    goal = torch.tensor(GOAL, dtype=torch.float32).expand_as(positions)
    return torch.cat([positions, positions, torch.zeros_like(positions), goal], dim=1)


def full_run(seed):
    """`python diffusion_ql.py`; keeps its networks and progress.csv."""
    folder = RUNS / f"full-{seed}"
    if not (folder / "result.json").exists():
        resume = str(folder) if (folder / "config.json").exists() else ""
        settings = dict(steps=9000, eval_every=3000, seed=seed)
        train(Args(env="two-roads", out=str(folder), resume=resume, **settings))
    agent = load_agent(folder)
    write(RESULTS / "q_guidance_roads.pt", partial(torch.save, agent.state_dict()))
    progress = (folder / "progress.csv").read_text()
    write(RESULTS / "q_guidance_progress.csv", lambda path: path.write_text(progress))
    dataset = load_dataset("two-roads")
    return {**measure_critics(agent, dataset), **measure_policy(agent, dataset)}


# ---- What is missing -----------------------------------------------------------------------------
def runs_of(part):
    """{(row, seed): (function, settings)} of a part, in the order in which they are made."""
    runs = {}
    if part == "full":
        runs["as python diffusion_ql.py", 0] = (full_run, {})
    if part == "bandit":
        runs["eta = 2.5", BANDIT_SEEDS[0]] = (bandit_run, {})
    if part == "eta":
        for seed in BANDIT_SEEDS:
            for eta in ETAS:
                runs[f"eta = {eta:g}", seed] = (eta_run, {"eta": eta})
    if part == "roads":
        for seed in ROADS_SEEDS:
            for variant in VARIANTS:
                runs[variant, seed] = (roads_run, {"variant": variant})
    return runs


def results_file(part):
    return RESULTS / f"q_guidance_{part}.json"


def read(part):
    """{row: {seed: numbers}} of what has been made."""
    if not results_file(part).exists():
        return {}
    return json.loads(results_file(part).read_text())


def add(part, row, seed, numbers):
    results = read(part)
    results.setdefault(row, {})[str(seed)] = numbers
    write(results_file(part), lambda path: path.write_text(json.dumps(results, indent=1)))


def main():
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    begin = time.time()
    for part in PARTS:
        for (row, seed), (function, settings) in runs_of(part).items():
            done = str(seed) in read(part).get(row, {})
            in_time = time.time() - begin < 60 * options.minutes
            if options.part in (part, "all") and not done and in_time:
                print(row, "seed", seed, flush=True)
                add(part, row, seed, function(seed=seed, **settings))


if __name__ == "__main__":
    main()
