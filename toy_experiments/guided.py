"""Policies for the bandit with reward: TD3+BC, AWR, BCQ, BEAR, Diffusion-QL and variants of it.

Each is a policy of cloning.py, which gives it `loss` and `sample`, and has besides

    guided_loss(batch, critic)   a Batch and a DoubleCritic → scalar: clone, and climb Q
"""

import torch
import torch.nn as nn

from diffusion_ql import Denoiser, mlp
from toy_experiments.cloning import CVAE, MMD, Diffusion, Gaussian


class Guided:
    """The loss that TD3+BC and Diffusion-QL share: cloning + eta L_q (paper, eq. 3)."""

    eta = 2.5

    def guided_loss(self, batch, critic):
        # A coin says which critic is climbed; the other gives the scale (as in diffusion_ql.py).
        q, other_q = critic(batch.state, self.sample(batch.state))
        if torch.rand(()) <= 0.5:
            q, other_q = other_q, q
        ql_loss = -q.mean() / other_q.abs().mean().detach()
        return self.loss(batch.action, batch.state) + self.eta * ql_loss


class TD3BC(Guided, Gaussian):
    """TD3+BC (Fujimoto 2021), with a Gaussian's likelihood where it has the squared error.

    The squared error is the case of a fixed variance.
    """


class AWR(Gaussian):
    """Advantage-weighted regression (Peng 2019): clones good actions more than bad ones.

    An action's weight is exp(Q / temperature), divided by the sum over the batch; the critic gives
    Q, as in AWAC (Nair 2020), where AWR takes the observed return. No gradient of Q is used.
    """

    def __init__(self, temperature=0.2):
        super().__init__()
        self.temperature = temperature

    def guided_loss(self, batch, critic):
        weight = weights(batch, critic, self.temperature)
        log_likelihood = self.distribution(batch.state).log_prob(batch.action).sum(dim=-1)
        return -(weight * log_likelihood).sum()


@torch.no_grad()
def weights(batch, critic, temperature):
    """How much each action of a batch counts: (B,), the sum is 1."""
    q = torch.minimum(*critic(batch.state, batch.action))[:, 0]  # (B,)
    return (q / temperature).softmax(dim=0)


class GuidedDiffusion(Guided, Diffusion):
    """Diffusion-QL (section 3)."""

    def __init__(self, n_timesteps=5):
        super().__init__(n_timesteps)


class WeightedDiffusion(Diffusion):
    """Diffusion with the weights of AWR: good actions are cloned more. No gradient of Q is used.

    The batch is drawn anew by its weights, so that the loss of cloning stays as it is.
    """

    def __init__(self, n_timesteps=5, temperature=0.05):
        super().__init__(n_timesteps)
        self.temperature = temperature

    def guided_loss(self, batch, critic):
        weight = weights(batch, critic, self.temperature)
        index = torch.multinomial(weight, len(weight), replacement=True)
        return self.loss(batch.action[index], batch.state[index])


class LastStepDiffusion(GuidedDiffusion):
    """Diffusion-QL, but Q's gradient reaches only the last denoising step."""

    def sample(self, state):
        with torch.no_grad():
            x = torch.randn(len(state), self.action_dim)
            for i in reversed(range(1, self.n_timesteps)):
                x = self.p_sample(x, i, state)
        return self.p_sample(x, 0, state).clamp(-1, 1)


class NetworkPerStep(nn.Module):
    """A denoiser with a network of its own for each timestep: they share nothing."""

    def __init__(self, n_timesteps):
        super().__init__()
        self.networks = nn.ModuleList(Denoiser(2, 2, 128) for _ in range(n_timesteps))

    def forward(self, x, t, state):
        """As Denoiser.forward: x (B, 2), t (B,) or (1,), state (B, 2) → noise (B, 2)."""
        if len(t) == 1:
            return self.networks[t.item()](x, t, state)
        noise = torch.stack([network(x, t, state) for network in self.networks])  # (N, B, 2)
        return noise[t, torch.arange(len(x))]


def own_networks(policy_class, n_timesteps):
    """A diffusion policy of this class with a network of its own for each step."""
    policy = policy_class(n_timesteps)
    policy.model = NetworkPerStep(n_timesteps)
    return policy


class BCQ(CVAE):
    """BCQ (Fujimoto 2018): a CVAE, whose actions are moved by at most 0.05 to raise Q1."""

    def __init__(self):
        super().__init__()
        self.perturbation = mlp(4, 128, 128)
        self.perturbation.append(nn.Linear(128, 2))
        self.perturbation.append(nn.Tanh())

    def sample(self, state):
        action = super().sample(state).detach()  # Q moves the perturbation, not the CVAE
        move = 0.05 * self.perturbation(torch.cat([state, action], dim=-1))
        return (action + move).clamp(-1, 1)

    def guided_loss(self, batch, critic):
        bc_loss = self.loss(batch.action, batch.state)
        q1, _ = critic(batch.state, self.sample(batch.state))
        return bc_loss - q1.mean()


class BEAR(MMD):
    """BEAR (Kumar 2019): the highest Q, with the MMD to the cloned behaviour below a threshold.

    A Lagrange multiplier holds it there. Two settings are not BEAR's: its threshold of 0.05 is
    below the MMD of two sets of ten samples of one distribution, and its multiplier, which begins
    at 1, grows too late to free a tanh that Q has saturated.
    """

    threshold = 0.15

    def __init__(self):
        super().__init__()
        self.log_multiplier = nn.Parameter(torch.tensor(5.0))

    def guided_loss(self, batch, critic):
        q1, q2 = critic(batch.state, self.sample(batch.state))
        q = torch.minimum(q1, q2).mean()
        excess = self.discrepancy(batch.state) - self.threshold
        multiplier = self.log_multiplier.clamp(-5, 10).exp()
        policy_loss = multiplier.detach() * excess - q
        multiplier_loss = -multiplier * excess.detach()  # grows where the policy strays
        return self.cvae.loss(batch.action, batch.state) + policy_loss + multiplier_loss


METHODS = {
    "TD3+BC": TD3BC,
    "AWR": AWR,
    "BCQ": BCQ,
    "BEAR": BEAR,
    "Diffusion-QL": GuidedDiffusion,
}


@torch.no_grad()
def act(policy, critic, candidates=50, n=2000):
    """How a policy acts that chooses one of several samples by their Q: {rule: actions (n, 2)}.

    The rules are to draw by the softmax of Q, as Diffusion-QL's release does (of 50 candidates),
    and to take the best, as BCQ and BEAR do (of ten). Q is the lower one of the two critics.
    """
    state = torch.zeros(n * candidates, 2)
    actions = policy.sample(state)
    q = torch.minimum(*critic(state, actions)).view(n, candidates)
    chosen = {
        "softmax": torch.multinomial(q.softmax(dim=-1), 1)[:, 0],  # (n,)
        "best": q.argmax(dim=-1),
    }
    actions = actions.view(n, candidates, 2)
    return {rule: actions[torch.arange(n), index] for rule, index in chosen.items()}
