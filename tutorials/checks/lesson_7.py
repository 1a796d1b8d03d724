"""The checks of lesson 7: `check.highest(mine)` prints one line. How: tutorials/grading.py.

Each function below a `@blank` is its right answer.
"""

import torch

from diffusion_ql import Args, DiffusionQL
from tutorials.checks.lesson_6 import batch
from tutorials.grading import blank, normal, share
from tutorials.solutions.planted_bugs import ForkB


@blank(
    share(20, 1),
    0.9,
    mistakes={
        "An episode may also pay its largest reward for ever: divide by 1 - discount.": (
            "reward.max() / (1 - discount)",
            "reward.max()",
        ),
        "This is one step's reward after the discount: the sum of all of them is 1 / (1 - d).": (
            "/ (1 - discount)",
            "* discount",
        ),
    },
)
def highest(reward, discount):
    """What no Q can exceed, given all rewards (n, 1) of a dataset, none below 0: a number."""
    return reward.max() / (1 - discount)


@blank(
    share(8),
    0.9,
    mistakes={
        "With probability p nothing follows, so what follows counts 1 - p.": ("(1 - p)", "p"),
        "The discount is missing.": ("discount * (1 - p)", "(1 - p)"),
        "This is the value without false terminals: p is missing.": (
            "discount * (1 - p)",
            "discount",
        ),
    },
)
def steady_value(p, discount):
    """Q at the goal, which pays 1 per step, if a share p of the rows there is terminal."""
    return 1 / (1 - discount * (1 - p))


@blank(
    normal(8, 16),
    mistakes={
        "Each row is normalised by itself: mean and deviation are over dim=1.": ("dim=1", "dim=0"),
        "Subtract the mean first.": ("(x - x.mean(dim=1, keepdim=True))", "x"),
        "It is divided by the standard deviation, not by the variance.": (".std(", ".var("),
        "Divide by the number of entries, not by one less: unbiased=False.": (
            ", unbiased=False",
            "",
        ),
    },
)
def layer_norm(x):
    """Each row of x (B, width), shifted and scaled to mean 0 and standard deviation 1."""
    return (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, unbiased=False)


@blank(
    share(8),
    share(8),
    0.9,
    mistakes={
        "A bonus is paid at every step: it adds bonus / (1 - discount) to Q.": (
            "bonus / (1 - discount)",
            "bonus",
        ),
        "Upside down: the gradient becomes weaker, so this is below 1.": (
            "q / (q + bonus / (1 - discount))",
            "(q + bonus / (1 - discount)) / q",
        ),
    },
)
def weaker(q, bonus, discount):
    """The factor by which a bonus per step changes L_q's gradient, where Q was q > 0 without it."""
    return q / (q + bonus / (1 - discount))


def some_agent():
    """A small agent that has learned nothing, of a method that does or does not let Q through."""
    method = ForkB if torch.rand(()) < 0.5 else DiffusionQL
    return method(2, 2, Args(hidden_dim=16, n_timesteps=5, device="cpu"))


@blank(
    some_agent,
    batch,
    mistakes={
        "The sum of both losses has a gradient anyway, from L_d: look at L_q alone.": (
            "(l_q, actor",
            "(loss, actor",
        ),
        "A gradient that does not exist is None here: say True if some exist.": (
            "is not None",
            "is None",
        ),
    },
)
def q_is_heard(agent, batch):
    """Whether Q's opinion can change the policy: True or False."""
    loss, metrics = agent.policy_loss(batch)
    l_q = metrics["ql_loss"]
    actor = list(agent.actor.parameters())
    gradients = torch.autograd.grad(l_q, actor, allow_unused=True)
    return any(gradient is not None for gradient in gradients)
