"""Policies that clone the data of the bandit: a Gaussian, a CVAE, MMD and diffusion.

A policy is an nn.Module with the two methods of DiffusionPolicy, for B states and actions:

    loss(action, state)   action (B, action_dim), state (B, state_dim) → scalar, to be minimised
    sample(state)         state (B, state_dim) → actions (B, action_dim) in [-1, 1]
"""

import torch
import torch.nn as nn

from diffusion_ql import DiffusionPolicy, mlp, vp_schedule
from toy_experiments.bandit import CORNERS, STD


class Gaussian(nn.Module):
    """A Gaussian fitted by maximum likelihood."""

    def __init__(self, state_dim=2, action_dim=2, hidden_dim=128):
        super().__init__()
        self.net = mlp(state_dim, hidden_dim, hidden_dim, hidden_dim)
        self.net.append(nn.Linear(hidden_dim, 2 * action_dim))

    def distribution(self, state):
        """state (B, state_dim) → a Normal of shape (B, action_dim)."""
        mean, log_std = self.net(state).chunk(2, dim=-1)
        return torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())

    def loss(self, action, state):
        log_likelihood = self.distribution(state).log_prob(action).sum(dim=-1)  # (B,)
        return -log_likelihood.mean()

    def sample(self, state):
        return self.distribution(state).rsample().clamp(-1, 1)


class CVAE(nn.Module):
    """The conditional variational autoencoder of BCQ (Fujimoto 2018, appendix)."""

    def __init__(
        self,
        state_dim=2,
        action_dim=2,
        hidden_dim=128,
        latent_dim=4,
        kl_weight=0.5,  # weight of the KL term in the loss
        latent_clip=0.5,  # bound of the latent when sampling
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.kl_weight = kl_weight
        self.latent_clip = latent_clip
        self.encoder = mlp(state_dim + action_dim, hidden_dim, hidden_dim)
        self.encoder.append(nn.Linear(hidden_dim, 2 * latent_dim))
        self.decoder = mlp(state_dim + latent_dim, hidden_dim, hidden_dim)
        self.decoder.append(nn.Linear(hidden_dim, action_dim))
        self.decoder.append(nn.Tanh())

    def decode(self, latent, state):
        """latent (B, latent_dim), state (B, state_dim) → actions (B, action_dim)."""
        return self.decoder(torch.cat([state, latent], dim=-1))

    def loss(self, action, state):
        mean, log_std = self.encoder(torch.cat([state, action], dim=-1)).chunk(2, dim=-1)
        log_std = log_std.clamp(-4, 15)
        latent = mean + log_std.exp() * torch.randn_like(mean)  # (B, latent_dim)
        reconstruction = (self.decode(latent, state) - action).square().mean()
        kl = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean()
        return reconstruction + self.kl_weight * kl

    def sample(self, state):
        latent = torch.randn(len(state), self.latent_dim)
        return self.decode(latent.clamp(-self.latent_clip, self.latent_clip), state)


def mean_kernel(x, y, sigma):
    """BEAR's Laplacian kernel, averaged over pairs: x (B, n, d), y (B, m, d) → (B,)."""
    distance = (x[:, :, None] - y[:, None]).abs().sum(dim=-1)  # (B, n, m)
    return (-distance / (2 * sigma)).exp().mean(dim=(1, 2))


def mmd(x, y, sigma):
    """Maximum mean discrepancy (B,) of sets of samples x, y (B, n, d) (BEAR: Kumar 2019)."""
    within = mean_kernel(x, x, sigma) + mean_kernel(y, y, sigma)
    between = mean_kernel(x, y, sigma)
    return (within - 2 * between + 1e-6).sqrt()


class MMD(Gaussian):
    """A tanh-Gaussian that is matched to the samples of a CVAE by their MMD, as in BEAR.

    The CVAE is trained alongside; `cvae` are settings of it.
    """

    def __init__(self, sigma=20.0, samples=10, **cvae):
        super().__init__()
        self.sigma = sigma  # width of the kernel
        self.samples = samples  # per state and policy, to estimate the MMD
        self.cvae = CVAE(**cvae)

    def sample(self, state):
        return self.distribution(state).rsample().tanh()

    def discrepancy(self, state):
        """The mean MMD between this policy and the CVAE; its gradient moves this policy alone."""
        state = state[:100]  # the paper's batch; more would only cost time
        repeated = state.repeat_interleave(self.samples, dim=0)
        with torch.no_grad():
            target = self.cvae.sample(repeated)
        actions = self.sample(repeated)
        sets = (len(state), self.samples, -1)  # the actions of each state, a set (samples, d)
        return mmd(actions.view(sets), target.view(sets), self.sigma).mean()

    def loss(self, action, state):
        return self.cvae.loss(action, state) + self.discrepancy(state)


class Diffusion(DiffusionPolicy):
    """The policy of diffusion_ql.py, in the size of the others here."""

    def __init__(self, n_timesteps=50):
        super().__init__(state_dim=2, action_dim=2, n_timesteps=n_timesteps, hidden_dim=128)


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
    policy = Diffusion(n_timesteps)
    policy.model = ExactDenoiser(n_timesteps, corners)
    return policy


METHODS = {"Gaussian": Gaussian, "CVAE": CVAE, "MMD": MMD, "diffusion": Diffusion}
