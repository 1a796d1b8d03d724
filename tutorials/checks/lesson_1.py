"""The checks of lesson 1's blanks, each with the mistakes that it recognises: see grading.blank."""

import math

import torch
from torch.distributions import Independent, Normal

from tutorials.grading import blank, normal, share, uniform


def spread(*shape):
    """An input: standard deviations between 0.5 and 1.5."""

    def draw():
        return 0.5 + torch.rand(*shape)

    return draw


def weight():
    """An input: weights (8,) that sum to 1."""
    return torch.rand(8).softmax(dim=0)


def gaussian():
    """An input: a Gaussian over actions, another one for each call."""
    return Independent(Normal(torch.randn(2), 0.5 + torch.rand(2)), 1)


@blank(
    normal(2),
    spread(2),
    uniform(8, 2),
    mistakes={
        "The sign: the loss is minus the log-likelihood.": ("-log_density.sum", "log_density.sum"),
        "An action has two numbers: sum their log-densities before you take the mean.": (
            "log_density.sum(dim=-1).mean()",
            "log_density.mean()",
        ),
        "Take the mean over the actions, not their sum.": (
            "log_density.sum(dim=-1).mean()",
            "log_density.sum()",
        ),
        "The distance from the mean is not squared.": ("z.square()", "z"),
        "The half of the square is missing.": ("-0.5 * z.square()", "-z.square()"),
        "Without - log std, the widest Gaussian would be the best.": (" - std.log()", ""),
        "The constant is missing. Training does not need it, a log-likelihood does.": (
            " - 0.5 * math.log(2 * math.pi)",
            "",
        ),
    },
    gradient=True,
)
def gaussian_loss(mean, std, action):
    """The mean of -log pi(a) over actions (B, 2); mean and std (2,): a scalar."""
    z = (action - mean) / std
    log_density = -0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)
    return -log_density.sum(dim=-1).mean()


@blank(
    uniform(8, 2),
    weight,
    mistakes={
        "The weights sum to 1 already: add up, and divide by nothing.": [
            ("(weight[:, None] * action).sum(", "(weight[:, None] * action).mean("),
            ("square()).sum(dim=0)", "square()).mean(dim=0)"),
        ],
        "The mean has no weights.": ("(weight[:, None] * action).sum(dim=0)", "action.mean(dim=0)"),
        "The variance has no weights.": (
            "(weight[:, None] * (action - mean).square()).sum(dim=0)",
            "(action - mean).square().mean(dim=0)",
        ),
        "Measure the spread around the mean, not around 0.": ("(action - mean)", "action"),
    },
)
def best_gaussian(action, weight):
    """The mean and std (2, 2) that make actions (B, 2) with weights (B,) most likely."""
    mean = (weight[:, None] * action).sum(dim=0)
    variance = (weight[:, None] * (action - mean).square()).sum(dim=0)
    return torch.stack([mean, variance.sqrt()])


@blank(
    gaussian,
    gaussian,
    mistakes={
        "KL(p || q) is an average where p is: draw the samples from p.": ("p.sample", "q.sample"),
        "The sign: log p minus log q.": (
            "p.log_prob(samples) - q.log_prob(samples)",
            "q.log_prob(samples) - p.log_prob(samples)",
        ),
        "The log of p is missing: the KL of p and p would not be 0.": (
            "p.log_prob(samples) - q",
            "-q",
        ),
    },
)
def kl(p, q):
    """KL(p || q) of two distributions over actions, from 10,000 samples: a scalar."""
    samples = p.sample((10_000,))
    return (p.log_prob(samples) - q.log_prob(samples)).mean()


@blank(
    normal(8, 2),
    normal(8, 2),
    share(8, 1),
    mistakes={
        "That is the straight line: in its middle the variance is only a half.": (
            "angle.cos() * start + angle.sin() * end",
            "(1 - share) * start + share * end",
        ),
        "Share 0 must give the start, and share 1 the end.": (
            "angle.cos() * start + angle.sin() * end",
            "angle.sin() * start + angle.cos() * end",
        ),
        "A quarter of a circle is an angle of pi / 2.": ("math.pi / 2", "math.pi"),
        "The roots keep the variance, too. But here give the quarter circle, by cos and sin.": (
            "angle.cos() * start + angle.sin() * end",
            "(1 - share).sqrt() * start + share.sqrt() * end",
        ),
    },
)
def between(start, end, share):
    """The way from one draw (B, 2) of N(0, 1) to another; share (B, 1) is how much of it."""
    angle = share * math.pi / 2
    return angle.cos() * start + angle.sin() * end


@blank(
    normal(8),
    0.3,
    mistakes={
        "Divide by the temperature: the lower it is, the more the best actions count.": (
            "advantage / temperature",
            "advantage * temperature",
        ),
        "The temperature is missing.": ("advantage / temperature", "advantage"),
        "The weights of all actions must sum to 1.": (
            "(advantage / temperature).softmax(dim=0)",
            "(advantage / temperature).exp()",
        ),
        "The sign: a good action must count more.": ("(advantage /", "(-advantage /"),
    },
)
def weights(advantage, temperature):
    """How much each action counts (B,), of its advantage (B,)."""
    return (advantage / temperature).softmax(dim=0)
