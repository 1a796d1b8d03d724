"""The checks of lesson 4: `check.target(mine)` prints one line. How: tutorials/grading.py.

Each function below is the right answer of a blank. What is drawn at random, it draws in the order
in which the lesson does.
"""

from functools import partial

import torch

from diffusion_ql import DiffusionPolicy
from tutorials.checks.homework import agent as make_agent
from tutorials.checks.homework import batch as make_batch
from tutorials.grading import blank, normal, share

policy = partial(DiffusionPolicy, 3, 2, n_timesteps=5, hidden_dim=16)  # has learned nothing


def critics():
    """The homework's: to critics fresh from their constructor hardly any action would matter."""
    return make_agent().critic


# ---- What followed -------------------------------------------------------------------------------
@blank(
    share(4, 10),
    0.9,
    mistakes={
        "What comes later counts less: the discount is missing.": ("discount * later", "later"),
        "The step's own reward counts in full: only what comes later is discounted.": (
            "rewards[:, step] + discount * later",
            "discount * (rewards[:, step] + later)",
        ),
        "This is the step's own reward; what comes later is missing.": (" + discount * later", ""),
    },
)
def earned(rewards, discount):
    """Rewards (episodes, steps) → the discounted sum of what follows each step, of that shape."""
    sums = torch.zeros_like(rewards)
    later = torch.zeros(len(rewards))
    for step in reversed(range(rewards.shape[1])):
        later = rewards[:, step] + discount * later
        sums[:, step] = later
    return sums


# ---- Bellman's target ----------------------------------------------------------------------------
@blank(
    policy,
    critics,
    make_batch,
    0.9,
    gradient=True,
    mistakes={
        "Nothing follows a terminal state: not_done is missing.": ("batch.not_done * ", ""),
        "The discount is missing.": ("discount * ", ""),
        "Take the smaller of both critics, not one of them.": (
            "torch.minimum(*critics(batch.next_state, next_action))",
            "critics(batch.next_state, next_action)[0]",
        ),
        "Take the smaller of both critics, not the larger.": ("torch.minimum", "torch.maximum"),
        "What the policy does in the *next* state is asked for.": (
            "policy.sample(batch.next_state)",
            "policy.sample(batch.state)",
        ),
        "not_done is 0 where an episode has ended already: multiply by it, not by 1 - it.": (
            "batch.not_done *",
            "(1 - batch.not_done) *",
        ),
        "It asks about the next state, and what the policy does there.": (
            "batch.next_state",
            "batch.state",
        ),
        "Ask the policy what it does next; the data's action belongs to the state before.": (
            "policy.sample(batch.next_state)",
            "batch.action",
        ),
        "The target is a number to move to, not something that moves itself: no gradient.": (
            "with torch.no_grad():",
            "if True:",
        ),
    },
)
def target(policy, critics, batch, discount):
    """Eq. 4's target (B, 1) for the critics at the states and actions of a batch."""
    with torch.no_grad():
        next_action = policy.sample(batch.next_state)
        next_q = torch.minimum(*critics(batch.next_state, next_action))
        return batch.reward + discount * batch.not_done * next_q


# ---- The average ---------------------------------------------------------------------------------
@blank(
    normal(8, 2),
    normal(8, 2),
    0.2,
    mistakes={
        "The share is that of the new one; the old one keeps the rest.": (
            "share * (new - old)",
            "(1 - share) * (new - old)",
        ),
        "Only the step is returned: add it to the old one.": ("old + share", "share"),
    },
)
def average(old, new, share):
    """The old weights, after a step of this share of the way to the new ones."""
    return old + share * (new - old)


# ---- A fork without L_d --------------------------------------------------------------------------
@blank(
    make_agent,
    make_batch,
    gradient=True,
    mistakes={
        "L_d is still in it.": [
            ("    l_q, q", "    l_d = agent.actor.loss(batch.action, batch.state)\n    l_q, q"),
            ("agent.args.eta * l_q", "l_d + agent.args.eta * l_q"),
        ],
        "L_q still has its weight, eta.": ("agent.args.eta * ", ""),
        "Q judges what the policy does, not what the data did.": (
            "agent.actor.sample(batch.state)",
            "batch.action",
        ),
        "The averaged policy is a copy, which learns nothing: take the actor.": (
            "agent.actor",
            "agent.ema_actor",
        ),
    },
)
def only_q(agent, batch):
    """The policy's loss without L_d, and the mean Q of its actions: two numbers."""
    l_q, q = agent.q_loss(batch.state, agent.actor.sample(batch.state))
    return agent.args.eta * l_q, q
