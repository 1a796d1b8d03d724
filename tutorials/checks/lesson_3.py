"""The checks of lesson 3: `check.q_loss(mine)` prints one line. How: tutorials/grading.py.

Each function below is the right answer of a blank. What is drawn at random, it draws in the order
in which the lesson does.
"""

import torch

from diffusion_ql import DiffusionPolicy, DoubleCritic
from toy_experiments.bandit import make_data
from tutorials.grading import blank, normal, uniform


def policy():
    """A small policy that has learned nothing."""
    return DiffusionPolicy(2, 2, n_timesteps=5, hidden_dim=16)


def critics():
    """Small critics that have learned nothing."""
    return DoubleCritic(2, 2, hidden_dim=16)


def batch():
    return make_data(100).sample(8)


def value(critic, action):
    """The smaller of both critics' values (B,) of actions (B, 2)."""
    return torch.minimum(*critic(torch.zeros_like(action), action))[:, 0]


def ratio(climbed, other):
    """L_q of both critics' values (B, 1) at the policy's actions."""
    return -climbed.mean() / other.abs().mean().detach()


# ---- Uphill --------------------------------------------------------------------------------------
@blank(
    critics,
    uniform(8, 2),
    mistakes={
        "An arrow must not depend on how many actions there are: take the sum, not the mean.": (
            "q.sum()",
            "q.mean()",
        ),
        "Uphill, not downhill: the sign.": ("(q.sum()", "(-q.sum()"),
        "One arrow for each action, not their sum.": ("action)[0]", "action)[0].sum(dim=0)"),
    },
)
def uphill(critic, action):
    """The gradient of Q for each of the actions (B, 2)."""
    action = action.detach().requires_grad_()
    q = value(critic, action)
    return torch.autograd.grad(q.sum(), action)[0]


# ---- The loss ------------------------------------------------------------------------------------
@blank(
    normal(8, 1),
    normal(8, 1),
    gradient=True,
    mistakes={
        "The scale is not detached: the policy is also rewarded for a smaller |Q|.": (
            ".detach()",
            "",
        ),
        "The sign: a lower loss must mean a higher Q.": ("-climbed", "climbed"),
        "The scale is the mean of |Q|, not the absolute value of the mean.": (
            "other.abs().mean()",
            "other.mean().abs()",
        ),
        "The scale is a single number, the mean over the batch, not one for each sample.": (
            "-climbed.mean() / other.abs().mean().detach()",
            "-(climbed / other.abs().detach()).mean()",
        ),
        "The scale comes from the other critic than the one that is climbed.": (
            "other.abs()",
            "climbed.abs()",
        ),
    },
)
def q_loss(climbed, other):
    """L_q of both critics' values (B, 1) at the policy's actions: a number."""
    return -climbed.mean() / other.abs().mean().detach()


@blank(
    policy,
    critics,
    batch,
    2.5,
    gradient=True,
    mistakes={
        "Q shall judge what the policy does, not what is in the data.": (
            "policy.sample(batch.state)",
            "batch.action",
        ),
        "Q's gradient has to reach the policy: nothing may be detached on the way.": (
            "policy.sample(batch.state)",
            "policy.sample(batch.state).detach()",
        ),
        "eta is missing: it weighs L_q.": ("eta * ", ""),
        "eta weighs L_q, and L_d has no weight.": (
            "policy.loss(batch.action, batch.state) + eta * l_q",
            "eta * policy.loss(batch.action, batch.state) + l_q",
        ),
        "L_q has its minus sign already, so the two are added.": ("+ eta", "- eta"),
        "policy.loss takes the actions first, then their states.": (
            "policy.loss(batch.action, batch.state)",
            "policy.loss(batch.state, batch.action)",
        ),
        "L_d clones the actions of the data, not the policy's own.": (
            "policy.loss(batch.action, batch.state)",
            "policy.loss(action, batch.state)",
        ),
        "L_d is missing: without it nothing holds the policy to the data.": (
            "policy.loss(batch.action, batch.state) + eta * l_q",
            "eta * l_q",
        ),
    },
)
def policy_loss(policy, critic, batch, eta):
    """Eq. 3: a number."""
    action = policy.sample(batch.state)
    q1, q2 = critic(batch.state, action)
    if torch.rand(()) > 0.5:
        l_q = ratio(q1, q2)
    else:
        l_q = ratio(q2, q1)
    return policy.loss(batch.action, batch.state) + eta * l_q


# ---- Guidance at test time -----------------------------------------------------------------------
@blank(
    policy,
    critics,
    normal(8, 2),
    2,
    10.0,
    mistakes={
        "Uphill: the arrow is added.": ("step + strength", "step - strength"),
        "The arrow is scaled by the variance of the step: late steps may move little.": (
            "policy.posterior_variance[i] * ",
            "",
        ),
        "Scale by the variance, not by its root.": (
            "policy.posterior_variance[i]",
            "policy.posterior_variance[i].sqrt()",
        ),
        "The variance is that of this step, i: one number of the N.": (
            "policy.posterior_variance[i]",
            "policy.posterior_variance[0]",
        ),
        "Without the strength, nobody can turn the guidance up.": ("strength * ", ""),
        "Move the step that the policy takes, not the place from which it starts.": (
            "return step",
            "return x.detach()",
        ),
    },
)
def guided_step(policy, critic, x, i, strength):
    """One bent step from x, which is x_i+1 (i from 0), to x_i (B, 2)."""
    x = x.detach().requires_grad_()
    state = torch.zeros_like(x)
    t = torch.full((1,), i)
    guess = policy.predict_start_from_noise(x, t, policy.model(x, t, state)).clamp(-1, 1)
    arrow = torch.autograd.grad(value(critic, guess).sum(), x)[0]
    step = policy.p_sample(x, i, state).detach()
    return step + strength * policy.posterior_variance[i] * arrow
