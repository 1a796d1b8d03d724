"""The checks of lesson 6: `check.edp_loss(mine)` prints one line. How: tutorials/grading.py.

Each function below is the right answer of a blank. What is drawn at random, it draws in the order
in which the lesson does.
"""

import torch
import torch.nn.functional as F

from diffusion_ql import Args, DiffusionQL
from toy_experiments.bandit import make_data
from tutorials.grading import blank, normal


def agent():
    """A small agent that has learned nothing."""
    return DiffusionQL(2, 2, Args(hidden_dim=16, n_timesteps=5, eta=0.7, device="cpu"))


def batch():
    return make_data(100).sample(8)


# ---- EDP -----------------------------------------------------------------------------------------
@blank(
    agent,
    batch,
    gradient=True,
    mistakes={
        "Solved with the true noise, the guess is the data's own action: use the predicted one.": (
            "(noisy, i, predicted)",
            "(noisy, i, noise)",
        ),
        "Clip the guess to [-1, 1]: there is no action beyond.": (".clamp(-1, 1)", ""),
        "Q's gradient has to reach the denoiser: the guess may not be detached.": (
            ".clamp(-1, 1)",
            ".clamp(-1, 1).detach()",
        ),
        "Q shall judge the guess, not the noisy action.": ("state, guess)", "state, noisy)"),
        "This walks the chain, as Diffusion-QL does: Q shall judge the guess.": (
            "state, guess)",
            "state, agent.actor.sample(batch.state))",
        ),
        "Q alone has no scale: take the L_q that q_loss returns first.": [
            ("l_q, _ =", "_, l_q ="),
            ("l_d + ", "l_d - "),
        ],
        "eta is missing: it weighs L_q.": ("agent.args.eta * ", ""),
        "L_q has its minus sign already, so the two are added.": ("l_d + ", "l_d - "),
        "L_d is missing: without it nothing holds the policy to the data.": ("l_d + ", ""),
    },
)
def edp_loss(agent, batch):
    """L_d + eta L_q, where Q judges one-step guesses: a number."""
    i = torch.randint(agent.args.n_timesteps, (len(batch.action),))
    noise = torch.randn_like(batch.action)
    noisy = agent.actor.q_sample(batch.action, i, noise)
    predicted = agent.actor.model(noisy, i, batch.state)
    l_d = F.mse_loss(predicted, noise)
    guess = agent.actor.predict_start_from_noise(noisy, i, predicted).clamp(-1, 1)
    l_q, _ = agent.q_loss(batch.state, guess)
    return l_d + agent.args.eta * l_q


# ---- Rules of acting -----------------------------------------------------------------------------
@blank(
    0.3,
    5,
    mistakes={
        "This is the probability that all of them miss.": ("1 - (1 - p) ** n", "(1 - p) ** n"),
        "A candidate misses with probability 1 - p, not p.": ("(1 - p) ** n", "p**n"),
        "Hits can coincide, so their probabilities do not add up: ask how likely all miss.": (
            "1 - (1 - p) ** n",
            "n * p",
        ),
        "Hits can coincide, so n p is too large long before it reaches 1.": (
            "1 - (1 - p) ** n",
            "min(1, n * p)",
        ),
    },
)
def at_least_one(p, n):
    """The probability that at least one of n candidates hits, if each does with probability p."""
    return 1 - (1 - p) ** n


def large_q():
    """An input: Qs as on two-roads, but larger, so that exp(3 Q) is too much for float32."""
    return 40 + torch.randn(8, 50)


@blank(
    large_q,
    3.0,
    mistakes={
        "exp overflows for a large Q: PyTorch's softmax does not.": (
            "(c * q).softmax(dim=1)",
            "(c * q).exp() / (c * q).exp().sum(dim=1, keepdim=True)",
        ),
        "Each state has candidates of its own: the softmax is over dim=1.": ("dim=1", "dim=0"),
        "c is missing.": ("c * q", "q"),
        "c multiplies Q inside the softmax: outside, the weights no longer add up to 1.": (
            "(c * q).softmax(dim=1)",
            "c * q.softmax(dim=1)",
        ),
    },
)
def weights(q, c):
    """How likely each candidate is to be played (B, n), for their q (B, n)."""
    return (c * q).softmax(dim=1)


# ---- IDQL ----------------------------------------------------------------------------------------
@blank(
    normal(8, 1),
    normal(8, 1),
    0.9,
    mistakes={
        "The other way round: e is for a Q above V, so that V is pulled up.": ("u > 0", "u < 0"),
        "Where Q is below V, the weight is 1 - e.": ("1 - e", "1"),
        "The error is squared: its absolute value gives a quantile.": ("u.square()", "u.abs()"),
    },
)
def expectile_loss(q, value, e):
    """The loss of V (B, 1), given Q of the data's actions (B, 1): a number."""
    u = q - value
    weight = torch.where(u > 0, e, 1 - e)
    return (weight * u.square()).mean()
