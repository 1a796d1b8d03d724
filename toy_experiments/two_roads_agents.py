"""How an agent is driven on two-roads."""

import numpy as np
import torch

from diffusion_ql import evaluate
from toy_experiments.two_roads import STEPS


class Recorder:
    """Acts as `agent` does, and keeps where the ball was at every step."""

    def __init__(self, agent):
        self.agent = agent
        self.device = getattr(agent, "device", torch.device("cpu"))
        self.positions = []

    def act(self, states):
        self.positions.append(states[:, :2].cpu().numpy())
        return self.agent.act(states)


def drive_policy(agent, dataset, episodes=100, seed=100):
    """Paths (episodes, 60, 2) and returns (episodes,) of an agent, or of anything that can act."""
    recorder = Recorder(agent)
    returns = evaluate(recorder, dataset, episodes, seed)
    paths = []
    for begin in range(0, len(recorder.positions), STEPS):  # some episodes go side by side
        paths.append(np.stack(recorder.positions[begin : begin + STEPS], axis=1))
    return np.concatenate(paths), returns
