"""Agents of two-roads beside DiffusionQL, trained runs of both, and how they are driven."""

import copy
import json
from pathlib import Path

import numpy as np
import torch

from diffusion_ql import Args, DiffusionQL, UserError, evaluate, load_dataset, on_error
from toy_experiments.cloning import Gaussian


class GaussianQL(DiffusionQL):
    """Diffusion-QL with a Gaussian for its policy, as in TD3+BC; algo="bc" clones with it.

    L_d becomes the Gaussian's negative log-likelihood. All else is Diffusion-QL's.
    """

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.actor = Gaussian(state_dim, action_dim, args.hidden_dim)
        self.ema_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), args.lr, fused=True)
        self.optimizer.add_param_group({"params": self.critic.parameters(), "lr": args.critic_lr})


def load_run(folder, agent_class=DiffusionQL):
    """The agent of a run folder of diffusion_ql.py on two-roads.

    Raises UserError where the folder holds no such run.
    """
    with on_error(
        f"{folder} is no run folder of diffusion_ql.py: give one that holds a checkpoint.pt"
    ):
        args = Args(**json.loads(Path(folder, "config.json").read_text()))
        weights = torch.load(Path(folder, "checkpoint.pt"), weights_only=True)
    dataset = load_dataset(args.env)
    if dataset.env_id != "TwoRoads-v0":
        raise UserError(f"{folder} was trained on {args.env}: give runs of --env two-roads")
    agent = agent_class(dataset.state_dim, dataset.action_dim, args)
    agent.load_state_dict(weights)
    return agent


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
