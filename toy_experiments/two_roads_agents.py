"""What two-roads' picture and the notebooks drive with: trained runs, and a Gaussian clone."""

import json
from pathlib import Path

import numpy as np
import torch

from diffusion_ql import Args, DiffusionQL, UserError, evaluate, load_dataset, on_error
from toy_experiments.cloning import Gaussian


class GaussianClone:
    """An agent that clones a Dataset with the Gaussian of the bandit experiments."""

    def __init__(self, dataset, steps=3000, seed=0):
        torch.manual_seed(seed)
        self.policy = Gaussian(dataset.state_dim, dataset.action_dim)
        optimizer = torch.optim.Adam(self.policy.parameters(), lr=1e-3)
        for _ in range(steps):
            batch = dataset.transitions.sample(256)
            optimizer.zero_grad()
            self.policy.loss(batch.action, batch.state).backward()
            optimizer.step()

    @torch.no_grad()
    def act(self, states):
        return self.policy.sample(states)


def load_run(run):
    """The agent of a run folder of diffusion_ql.py on two-roads, and its settings, an Args."""
    with on_error(
        f"{run} is no run folder of diffusion_ql.py: give one that holds a checkpoint.pt"
    ):
        args = Args(**json.loads(Path(run, "config.json").read_text()))
        weights = torch.load(Path(run, "checkpoint.pt"), weights_only=True)
    dataset = load_dataset(args.env)
    if dataset.env_id != "TwoRoads-v0":
        raise UserError(f"{run} was trained on {args.env}: give runs of --env two-roads")
    agent = DiffusionQL(dataset.state_dim, dataset.action_dim, args)
    agent.load_state_dict(weights)
    return agent, args


class Recorder:
    """Acts as `agent` does, and keeps where the ball was at every step."""

    def __init__(self, agent):
        self.agent = agent
        self.positions = []

    def act(self, states):
        self.positions.append(states[:, :2].cpu().numpy())
        return self.agent.act(states)


def drive_policy(agent, dataset, episodes=100, seed=100):
    """Paths (episodes, 60, 2) and returns (episodes,) of an agent, in episodes side by side."""
    recorder = Recorder(agent)
    returns = evaluate(recorder, dataset, episodes, seed)
    return np.stack(recorder.positions, axis=1), returns
