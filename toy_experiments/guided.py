"""Policies for the bandit with reward: TD3+BC, BCQ, BEAR and Diffusion-QL.

Each is a policy of cloning.py, which gives it `loss` and `sample`, and has besides

    guided_loss(batch, critic)   a Batch and a DoubleCritic → scalar: clone, and climb Q
    candidates                   how many actions it proposes when it acts
"""

import torch
import torch.nn as nn

from diffusion_ql import DiffusionPolicy, mlp
from toy_experiments.cloning import CVAE, MMD, Gaussian


class Guided:
    """The loss that TD3+BC and Diffusion-QL share: cloning + eta L_q (paper, eq. 3)."""

    eta = 2.5
    candidates = 1

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


class GuidedDiffusion(Guided, DiffusionPolicy):
    """Diffusion-QL (section 3)."""

    candidates = 50


class BCQ(CVAE):
    """BCQ (Fujimoto 2018): a CVAE, whose actions are moved by at most 0.05 to raise Q1."""

    candidates = 10

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

    candidates = 10
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


METHODS = {"TD3+BC": TD3BC, "BCQ": BCQ, "BEAR": BEAR, "Diffusion-QL": GuidedDiffusion}


@torch.no_grad()
def act(policy, critic, n=2000):
    """n actions (n, 2), each one of the policy's candidates, chosen as the method's paper does.

    Diffusion-QL draws by softmax of the lower Q, the others take the highest Q1.
    """
    state = torch.zeros(n * policy.candidates, 2)
    actions = policy.sample(state)
    q1, q2 = critic(state, actions)
    q1 = q1.view(n, policy.candidates)
    q2 = q2.view(n, policy.candidates)
    if isinstance(policy, GuidedDiffusion):
        probability = torch.minimum(q1, q2).softmax(dim=-1)
        chosen = torch.multinomial(probability, 1)[:, 0]  # (n,)
    else:
        chosen = q1.argmax(dim=-1)
    return actions.view(n, policy.candidates, 2)[torch.arange(n), chosen]
