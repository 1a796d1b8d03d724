"""Figure 1: cloning the bandit's four corners by a Gaussian, a CVAE, MMD and diffusion.

    python toy_experiments/behavior_cloning.py                       # the figure, and its numbers
    python toy_experiments/behavior_cloning.py --seeds 5             # mean and spread over five seeds
    python toy_experiments/behavior_cloning.py --methods diffusion --n-timesteps 5

Every policy here has the two methods of DiffusionPolicy: `loss(action, state)` and `sample(state)`, for states (B, state_dim).
"""
import sys
from pathlib import Path

import torch
import torch.nn as nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffusion_ql import DiffusionPolicy, mlp, vp_schedule  # noqa: E402
from toy_experiments import bandit  # noqa: E402


class Gaussian(nn.Module):
    """A Gaussian fitted by maximum likelihood."""

    def __init__(self, state_dim=2, action_dim=2, hidden_dim=128):
        super().__init__()
        self.net = nn.Sequential(*mlp(state_dim, hidden_dim, hidden_dim, hidden_dim), nn.Linear(hidden_dim, 2 * action_dim))

    def distribution(self, state):
        mean, log_std = self.net(state).chunk(2, -1)
        return torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())

    def loss(self, action, state):
        return -self.distribution(state).log_prob(action).sum(-1).mean()

    def sample(self, state):
        return self.distribution(state).rsample().clamp(-1, 1)


class CVAE(nn.Module):
    """The conditional variational autoencoder of BCQ (Fujimoto 2018, appendix): latent 4 wide, clipped when sampling."""

    def __init__(self, state_dim=2, action_dim=2, hidden_dim=128, latent_dim=4, kl_weight=0.5, latent_clip=0.5):
        super().__init__()
        self.latent_dim, self.kl_weight, self.latent_clip = latent_dim, kl_weight, latent_clip
        self.encoder = nn.Sequential(*mlp(state_dim + action_dim, hidden_dim, hidden_dim), nn.Linear(hidden_dim, 2 * latent_dim))
        self.decoder = nn.Sequential(*mlp(state_dim + latent_dim, hidden_dim, hidden_dim), nn.Linear(hidden_dim, action_dim), nn.Tanh())

    def loss(self, action, state):
        mean, log_std = self.encoder(torch.cat([state, action], -1)).chunk(2, -1)
        log_std = log_std.clamp(-4, 15)
        latent = mean + log_std.exp() * torch.randn_like(mean)
        reconstruction = (self.decoder(torch.cat([state, latent], -1)) - action).square().mean()
        kl = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean()
        return reconstruction + self.kl_weight * kl

    def sample(self, state):
        latent = torch.randn(len(state), self.latent_dim).clamp(-self.latent_clip, self.latent_clip)
        return self.decoder(torch.cat([state, latent], -1))


def mmd(x, y, sigma):
    """Maximum mean discrepancy (B,) of two sets of samples (B, n, d), with BEAR's Laplacian kernel (Kumar 2019)."""
    kernel = lambda a, b: ((a[:, :, None] - b[:, None]).abs().sum(-1) / (-2 * sigma)).exp().mean((1, 2))  # noqa: E731
    return (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y) + 1e-6).sqrt()


class ExactDenoiser(nn.Module):
    """What a denoiser would learn from endless data: the expected noise in a noisy action, in closed form.

    For four Gaussians around the corners. A DiffusionPolicy with this model shows the most that its N allows.
    """

    def __init__(self, n_timesteps):
        super().__init__()
        self.signal, self.noise = (vp_schedule(n_timesteps)[f"sqrt_{name}"] for name in ("alphas_cumprod", "one_minus_alphas_cumprod"))

    def forward(self, action, timestep, state):
        signal, noise = self.signal[timestep, None], self.noise[timestep, None]  # (B, 1)
        variance = (signal * bandit.STD) ** 2 + noise**2
        offset = action[:, None] - signal[..., None] * bandit.CORNERS  # (B, 4, 2)
        corner = (-offset.square().sum(-1) / (2 * variance)).softmax(-1)[..., None]  # (B, 4, 1), the probability of each
        clean = bandit.CORNERS + offset * (signal * bandit.STD**2 / variance)[..., None]
        return (action - signal * (corner * clean).sum(1)) / noise


class MMD(Gaussian):
    """A tanh-Gaussian, matched by maximum mean discrepancy to samples of a CVAE that is trained alongside (BEAR)."""

    def __init__(self, samples=10, sigma=20.0, **cvae):
        super().__init__()
        self.cvae, self.samples, self.sigma = CVAE(**cvae), samples, sigma

    def sample(self, state):
        return self.distribution(state).rsample().tanh()

    def discrepancy(self, state):
        repeated = state[:100].repeat_interleave(self.samples, 0)  # 100: the paper's batch; more would only cost time
        with torch.no_grad():
            target = self.cvae.sample(repeated)
        return mmd(*(actions.view(-1, self.samples, actions.shape[-1]) for actions in (self.sample(repeated), target)), self.sigma).mean()

    def loss(self, action, state):
        return self.cvae.loss(action, state) + self.discrepancy(state)


METHODS = {"Gaussian": Gaussian, "CVAE": CVAE, "MMD": MMD, "diffusion": DiffusionPolicy}
COLUMNS = {"on_mode": ("on mode", ".1%"), "imbalance": ("corners' shares, at most off 25 %", ".1%"), "energy_distance": ("energy distance", ".4f")}


def clone(method, seed=2022, steps=6000, n_timesteps=50, position=None, **settings):
    """Clones the bandit's data by one method; returns its policy, 2,000 samples (2000, 2) and their measures."""
    torch.manual_seed(seed)
    data = bandit.make_data(seed=seed)
    if method == "diffusion":
        policy = DiffusionPolicy(2, 2, n_timesteps, 128)
    else:
        policy = METHODS[method](**{name: value for name, value in settings.items() if method in USES[name]})
    history = bandit.train(policy, data, steps, name=f"{method}, seed {seed}", position=position)
    samples = bandit.sample(policy)
    return policy, samples, {**bandit.measure(samples, data), "history": history}


USES = {"kl_weight": ("CVAE", "MMD"), "latent_clip": ("CVAE", "MMD"), "sigma": ("MMD",)}  # the settings of the other methods


def main(args):
    from matplotlib.figure import Figure
    results = bandit.run_seeds(clone, args, n_timesteps=args.n_timesteps, **{name: getattr(args, name) for name in USES})
    figure = Figure(figsize=(2.5 * (1 + len(results)), 3.5), layout="constrained")
    truth, *axes = figure.subplots(1, 1 + len(results))
    data = bandit.make_data(seed=args.seed).action[:2000]
    bandit.draw(truth, data, "data", "four corners,\nstd 0.05 around each")
    for axis, (method, runs) in zip(axes, results.items()):
        bandit.draw(axis, runs[0][0], method, bandit.cloning_caption(runs[0][1]))
    figure.suptitle(f"Cloning: 2,000 samples of each policy ({args.steps:,} steps; diffusion with N = {args.n_timesteps}; seed {args.seed})", fontsize=10)
    bandit.save("behavior_cloning", figure, results, args)
    print(bandit.table(results, COLUMNS))


if __name__ == "__main__":
    bandit.script(__doc__, METHODS, 6000, main, n_timesteps=(50, "denoising steps N of the diffusion policy"),
                  kl_weight=(0.5, "weight of the KL term of CVAE and MMD"), latent_clip=(0.5, "bound of their latent when sampling"),
                  sigma=(20.0, "width of MMD's kernel"))
