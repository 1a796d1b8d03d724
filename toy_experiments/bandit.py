"""The paper's 2-D bandit (Figures 1 and 2) as a task: --env bandit.

There is one state, and an episode is one action, a point of a square. The data's actions lie around
the four corners, and each corner pays something else. To clone the data, a policy needs four modes;
the best policy keeps one of them and leaves three.

This file holds the environment Bandit-v0, the making of its Minari datasets, how actions are
measured, and the denoiser that endless data would teach.
"""

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

from diffusion_ql import Batch, DiffusionPolicy, vp_schedule

# top left, top right, bottom left, bottom right
CORNERS = torch.tensor([[-0.8, 0.8], [0.8, 0.8], [-0.8, -0.8], [0.8, -0.8]])  # (4, 2)
REWARDS = (3.0, 1.5, 0.0, 5.0)  # mean reward of each corner; its std is 0.5
STD = 0.05  # of the actions around their corner
RADIUS = 0.2  # an action is *on mode* if it is closer than this to a corner
TASKS = {  # name in --env: mean rewards. In the second and third, two good answers are close or tie
    "bandit": REWARDS,
    "bandit-close": (4.5, 1.5, 0.0, 5.0),
    "bandit-tie": (5.0, 1.5, 0.0, 5.0),
}


# ---- The task ------------------------------------------------------------------------------------
class Bandit(gym.Env):
    """One state (2,), always zero; an action (2,) in [-1, 1] ends the episode.

    On mode it earns the mean reward of its corner, elsewhere nothing.
    """

    def __init__(self, rewards=REWARDS):
        self.rewards = rewards
        self.observation_space = gym.spaces.Box(-1, 1, (2,))
        self.action_space = gym.spaces.Box(-1, 1, (2,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        reward = reward_of(torch.as_tensor(action)[None], self.rewards).item()
        return np.zeros(2, np.float32), reward, True, False, {}


if "Bandit-v0" not in gym.registry:
    gym.register("Bandit-v0", "toy_experiments.bandit:Bandit", max_episode_steps=1)


def make_data(n=10_000, seed=0, rewards=REWARDS):
    """The release's data, a Batch of n transitions; state (n, 2) is zero, rewards are noisy."""
    draw = np.random.default_rng(seed)
    corner = torch.arange(n) % 4
    action_noise = torch.as_tensor(draw.standard_normal((n, 2)), dtype=torch.float32)
    reward_noise = torch.as_tensor(draw.standard_normal(n), dtype=torch.float32)
    action = CORNERS[corner] + STD * action_noise
    reward = torch.tensor(rewards)[corner] + 0.5 * reward_noise
    return Batch(
        state=torch.zeros(n, 2),
        action=action.clamp(-1, 1),
        next_state=torch.zeros(n, 2),
        reward=reward[:, None],
        not_done=torch.zeros(n, 1),
    )


def make(minari_id):
    """Makes the Minari dataset of a task: toy/bandit-v0 of --env bandit.

    An episode of it holds 1,000 rounds, each of which is terminal. A score is the mean reward
    itself: the returns that score 0 and 100 are 0 and 100.
    """
    from minari.data_collector import EpisodeBuffer

    from d4rl_to_minari import store

    rewards = TASKS[minari_id.removeprefix("toy/").removesuffix("-v0")]
    data = make_data(rewards=rewards)
    rounds = 1000
    states = np.zeros((rounds + 1, 2), np.float32)
    always = np.ones(rounds, bool)
    buffers = []
    for i, first in enumerate(range(0, len(data.action), rounds)):
        actions = data.action[first : first + rounds].numpy()
        reward = data.reward[first : first + rounds, 0].numpy()
        buffers.append(EpisodeBuffer(i, None, None, states, actions, reward, always, ~always))
    about = dict(
        algorithm_name="draws around four corners", author="the authors of this repository"
    )
    about.update(author_email="none", code_permalink="toy_experiments/bandit.py")
    about.update(ref_min_score=0, ref_max_score=100, description="the paper's 2-D bandit")
    store(minari_id, buffers, gym.make("Bandit-v0", rewards=rewards), about)


# ---- How actions are measured --------------------------------------------------------------------
def on_corners(actions):
    """Which corner each action (n, 2) is on: (n, 4), at most one True in a row."""
    return torch.cdist(actions, CORNERS) < RADIUS


def reward_of(actions, rewards=REWARDS):
    """The mean reward (n,) of actions (n, 2): that of their corner, 0 elsewhere."""
    return on_corners(actions).float() @ torch.tensor(rewards)


def squared_energy_distance(x, y):
    """2 E|x - y| - E|x - x'| - E|y - y'| of samples x (n, d) and y (m, d).

    It is 0 for equal distributions; the estimate has no bias, so it may be a little below 0.
    """
    between = torch.cdist(x, y).mean()
    return (2 * between - distance_within(x) - distance_within(y)).item()


def distance_within(x):
    """E|x - x'|: the mean distance between two different ones of the samples x (n, d)."""
    return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))


def measure(actions, rewards=REWARDS):
    """Numbers of actions (n, 2), on the bandit with these rewards of the corners.

    on_mode: the share on a corner. smallest_corner: the least of the four corners' shares, 0.25 at
    best. energy_distance: squared_energy_distance to 2,000 actions of the data. reward: the mean.
    best_corner: the share on the corner, or corners, that pay most. edge: the share at the edge of
    the square.
    """
    corners = on_corners(actions).float().mean(dim=0)  # (4,)
    pays_most = torch.tensor(rewards) == max(rewards)  # (4,)
    at_edge = actions.abs().amax(dim=-1) > 0.99  # (n,)
    return {
        "on_mode": corners.sum().item(),
        "smallest_corner": corners.min().item(),
        "energy_distance": squared_energy_distance(actions, make_data(2000).action),
        "reward": reward_of(actions, rewards).mean().item(),
        "best_corner": corners[pays_most].sum().item(),
        "edge": at_edge.float().mean().item(),
    }


# ---- What a denoiser can learn at best -----------------------------------------------------------
class ExactDenoiser(nn.Module):
    """What a denoiser would learn from endless data: the expected noise, in closed form.

    The data is taken as equal Gaussians around `corners` (k, 2). A DiffusionPolicy whose `model` is
    this one shows the most that its number of steps N allows.
    """

    def __init__(self, n_timesteps, corners=CORNERS):
        super().__init__()
        self.corners = torch.as_tensor(corners)
        schedule = vp_schedule(n_timesteps)
        self.signal = schedule["sqrt_alphas_cumprod"]  # (N,)
        self.noise = schedule["sqrt_one_minus_alphas_cumprod"]  # (N,)

    def forward(self, x, t, state):
        """x (B, 2), t (B,) or (1,) → expected noise (B, 2); the bandit's state says nothing."""
        signal = self.signal[t, None]  # (B, 1) or (1, 1), as noise and variance
        noise = self.noise[t, None]
        variance = (signal * STD) ** 2 + noise**2  # of noisy actions around a corner
        offset = x[:, None] - signal[..., None] * self.corners  # (B, k, 2)
        log_likelihood = -offset.square().sum(dim=-1) / (2 * variance)  # (B, k)
        probability = log_likelihood.softmax(dim=-1)  # of each corner, given x
        regression = signal * STD**2 / variance  # how far x moves the clean action
        clean = self.corners + regression[..., None] * offset  # (B, k, 2), expected at each corner
        expected = (probability[..., None] * clean).sum(dim=1)  # (B, 2)
        return (x - signal * expected) / noise


def exact_policy(n_timesteps, corners=CORNERS):
    """A diffusion policy with the exact denoiser: nothing is left to train."""
    policy = DiffusionPolicy(2, 2, n_timesteps)
    policy.model = ExactDenoiser(n_timesteps, corners)
    return policy
