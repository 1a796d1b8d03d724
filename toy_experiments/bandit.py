"""The 2-D bandit of the paper (Figures 1 and 2): its data, and how actions are measured.

There is one state, and the data's actions lie around the four corners of a square. To clone them, a
policy needs four modes. Each corner has a reward: the best policy keeps one mode and leaves three.
"""

import numpy as np
import torch

from diffusion_ql import Batch

# top left, top right, bottom left, bottom right
CORNERS = torch.tensor([[-0.8, 0.8], [0.8, 0.8], [-0.8, -0.8], [0.8, -0.8]])  # (4, 2)
REWARDS = torch.tensor([3.0, 1.5, 0.0, 5.0])  # mean reward of each corner; its std is 0.5
STD = 0.05  # of the actions around their corner
RADIUS = 0.2  # an action is *on mode* if it is closer than this to a corner

MEASURES = {  # what `measure` measures; the JSON files repeat it
    "on_mode": "share of the actions within 0.2 of a corner",
    "corners": "share within 0.2 of each: top left, top right, bottom left, bottom right",
    "smallest_corner": "the smallest of these four shares: 25 % at best",
    "energy_distance": "squared energy distance to 2,000 of the data's actions",
    "reward": "mean over the actions of their corner's mean reward; off mode it is 0",
    "best_corner": "share on the corner, or corners, with the highest mean reward",
    "edge": "share of the actions at the edge of the square",
}


def make_data(n=10_000, seed=0, rewards=REWARDS):
    """The dataset (the release's settings), a Batch of n transitions: state (n, 2) is zero.

    rewards (4,): the mean reward of each corner.
    """
    draw = np.random.default_rng(seed)
    corner = torch.arange(n) % 4
    action_noise = torch.as_tensor(draw.standard_normal((n, 2)), dtype=torch.float32)
    reward_noise = torch.as_tensor(draw.standard_normal(n), dtype=torch.float32)
    action = CORNERS[corner] + STD * action_noise
    reward = rewards[corner] + 0.5 * reward_noise
    return Batch(
        state=torch.zeros(n, 2),
        action=action.clamp(-1, 1),
        next_state=torch.zeros(n, 2),
        reward=reward[:, None],
        not_done=torch.zeros(n, 1),
    )


def squared_energy_distance(x, y):
    """2 E|x - y| - E|x - x'| - E|y - y'| of samples x (n, d) and y (m, d).

    It is 0 for equal distributions; the estimate has no bias, so it may be a little below 0.
    """
    between = torch.cdist(x, y).mean()
    return (2 * between - distance_within(x) - distance_within(y)).item()


def distance_within(x):
    """E|x - x'|: the mean distance between two different ones of the samples x (n, d)."""
    return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))


def measure(actions, data, rewards=REWARDS):
    """The numbers that MEASURES describes, of actions (n, 2). rewards (4,): those of the data."""
    near = torch.cdist(actions, CORNERS) < RADIUS  # (n, 4)
    corners = near.float().mean(dim=0)  # (4,)
    best = rewards == rewards.max()  # (4,)
    at_edge = actions.abs().amax(dim=-1) > 0.99  # (n,)
    return {
        "on_mode": corners.sum().item(),
        "corners": corners.tolist(),
        "smallest_corner": corners.min().item(),
        "energy_distance": squared_energy_distance(actions, data.action[:2000]),
        "reward": (corners @ rewards).item(),
        "best_corner": corners[best].sum().item(),
        "edge": at_edge.float().mean().item(),
    }


@torch.no_grad()
def sample(policy, n=2000):
    """n actions (n, 2) of a policy."""
    return policy.sample(torch.zeros(n, 2))
