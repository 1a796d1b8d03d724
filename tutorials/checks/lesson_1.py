"""The checks of lesson 1's blanks, each with the mistakes that it recognises: see grading.blank."""

import math

import torch

from tutorials.grading import blank, normal, share, uniform


def spread():
    """An input: standard deviations (2,) between 0.5 and 1.5."""
    return 0.5 + torch.rand(2)


def weight():
    """An input: weights of two actions. Without their [:, None] they count axes, not actions."""
    return torch.rand(2).softmax(dim=0)


@blank(
    normal(2),
    spread,
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
        "The half of the square is missing.": ("-0.5 * z.square()", "-z.square()"),
        "Without - log std, the widest Gaussian would be the best.": (" - std.log()", ""),
        "The constant belongs to each of the two numbers.": (
            "- 0.5 * math.log(2 * math.pi)",
            "- 0.25 * math.log(2 * math.pi)",
        ),
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
    uniform(2, 2),
    weight,
    mistakes={
        "In the mean, a weight belongs to a row: weight[:, None].": ("[:, None] * act", " * act"),
        "In the variance, a weight belongs to a row: weight[:, None].": ("[:, None] * (", " * ("),
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
        "The angle is pi / 2 times the share.": ("share * math.pi / 2", "share"),
        "The roots keep the variance, too. But here give the quarter circle, by cos and sin.": (
            "angle.cos() * start + angle.sin() * end",
            "(1 - share).sqrt() * start + share.sqrt() * end",
        ),
    },
)
def between(start, end, share):
    """z(u), from z_0 = start to z_1 = end, draws of N(0, 1) (B, n); u is the share (B, 1)."""
    angle = share * math.pi / 2
    return angle.cos() * start + angle.sin() * end
