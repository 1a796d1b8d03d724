"""The checks of lesson 2's blanks, each with the mistakes that it recognises: see grading.blank.

What a function draws at random, it draws in the order in which the lesson does.
"""

import torch

from diffusion_ql import Denoiser
from tutorials.grading import blank, normal, share, uniform

N = 50
TIME = torch.arange(N + 1) / N
ALPHA_BAR = torch.exp(-0.1 * TIME - 9.9 * TIME**2 / 2)


def network():
    """An input: a small denoiser that has learned nothing."""
    return Denoiser(2, 2, hidden_dim=16)


def variance_with_a_zero():
    """An input: the first witness may be certain, as at the last step."""
    return torch.cat([torch.zeros(1, 1), torch.rand(7, 1)])


def near_the_middle():
    """An input: noisy actions whose clean ones lie in the square, clipped or not."""
    return torch.rand(8, 2) / 3


@blank(
    uniform(8, 2),
    share(8, 1),
    normal(8, 2),
    mistakes={
        "alpha-bar is a share of the variance: multiply by its root.": ("kept.sqrt()", "kept"),
        "1 - alpha-bar is a variance: multiply by its root.": ("(1 - kept).sqrt()", "(1 - kept)"),
        "The root of 1 - alpha-bar, not 1 minus the root.": ("- kept).sqrt()", "- kept.sqrt())"),
        "The factors of action and noise are swapped.": (
            "kept.sqrt() * x0 + (1 - kept).sqrt() * noise",
            "kept.sqrt() * noise + (1 - kept).sqrt() * x0",
        ),
    },
)
def add_noise(x0, kept, noise):
    """x_i of clean actions x0 (B, 2); kept (B, 1) is alpha-bar of i."""
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


@blank(
    normal(8, 2),
    normal(8, 2),
    share(8, 1),
    mistakes={
        "Divide the whole difference by the root of alpha-bar, not the noise alone.": (
            "(x - (1 - kept).sqrt() * noise)",
            "x - (1 - kept).sqrt() * noise",
        ),
        "Without its noise, the action is still too small.": (" / kept.sqrt()", ""),
        "Both are shares of a variance: take their roots.": (".sqrt()", ""),
        "Divide by the root of alpha-bar, not by alpha-bar.": ("/ kept.sqrt()", "/ kept"),
        "The noise is in x with the factor sqrt(1 - alpha-bar).": ("(1 - kept).sqrt() * ", ""),
        "The noise was added, so it has to be subtracted.": ("(x - ", "(x + "),
    },
)
def guess_x0(x, noise, kept):
    """The clean action (B, 2) that a guess of the noise in x (B, 2) implies."""
    return (x - (1 - kept).sqrt() * noise) / kept.sqrt()


@blank(
    network,
    uniform(8, 2),
    gradient=True,
    mistakes={
        "The network sees the noisy action, not the clean one.": ("model(x,", "model(x0,"),
        "Compare the network's guess with the noise.": ("- noise).sq", "- x0).sq"),
        "The code takes the mean over the axes, too: .mean() alone.": (".mean()", ".sum(1).mean()"),
        "Take the mean over actions and axes, not the sum.": (".mean()", ".sum()"),
        "The library counts the steps from 0: use predict_noise.": ("i - 1", "i"),
        "A squared error is needed: this one can be negative.": (".square()", ""),
    },
)
def denoising_loss(model, x0):
    """L_d of clean actions x0 (B, 2): a number."""
    i = torch.randint(1, N + 1, (len(x0),))
    noise = torch.randn_like(x0)
    x = ALPHA_BAR[i, None].sqrt() * x0 + (1 - ALPHA_BAR[i, None]).sqrt() * noise
    return (model(x, i - 1, torch.zeros_like(x)) - noise).square().mean()


@blank(
    normal(8, 1),
    variance_with_a_zero,
    normal(8, 1),
    share(8, 1),
    mistakes={
        "A variance can be 0: bring the fractions to one denominator first.": (
            "(mean_1 * var_2 + mean_2 * var_1) / (var_1 + var_2)",
            "(mean_1 / var_1 + mean_2 / var_2) / (1 / var_1 + 1 / var_2)",
        ),
        "That is the precision: the variance is one over it.": (
            "var_1 * var_2 / (var_1 + var_2)",
            "(var_1 + var_2) / (var_1 * var_2)",
        ),
        "The surer witness must count more: the mean with the smaller variance.": (
            "(mean_1 * var_2 + mean_2 * var_1)",
            "(mean_1 * var_1 + mean_2 * var_2)",
        ),
    },
)
def weigh(mean_1, var_1, mean_2, var_2):
    """Mean and variance of the product of two Gaussians, each (B, 1)."""
    mean = (mean_1 * var_2 + mean_2 * var_1) / (var_1 + var_2)
    variance = var_1 * var_2 / (var_1 + var_2)
    return mean, variance


@blank(
    network,
    near_the_middle,
    10,
    5,
    mistakes={
        "No dice: put back the noise that the network has found.": (
            "* noise",
            "* torch.randn(8, 2)",
        ),
        "The new noise level is that of j, not of i.": ("ALPHA_BAR[j]", "ALPHA_BAR[i]"),
        "This is the guess of the clean action: put it back at the noise level of j.": (
            "return ALPHA_BAR[j].sqrt() * x0 + (1 - ALPHA_BAR[j]).sqrt() * noise",
            "return x0",
        ),
    },
)
def ddim_step(model, x, i, j):
    """x_j (B, 2) of x_i (B, 2), for an earlier step j."""
    guess = model(x, torch.tensor([i - 1]), torch.zeros_like(x))
    noise = guess
    x0 = (x - (1 - ALPHA_BAR[i]).sqrt() * guess) / ALPHA_BAR[i].sqrt()
    return ALPHA_BAR[j].sqrt() * x0 + (1 - ALPHA_BAR[j]).sqrt() * noise
