"""The checks of lesson 5: `check.online(mine)` prints one line. How: tutorials/grading.py.

Each function below is the right answer of a blank. What is drawn at random, it draws in the order
in which the lesson does.
"""

import torch

from tutorials.grading import blank, normal, share


def returns():
    """Of thirty episodes: some finish everything, most finish something."""
    return torch.randint(0, 5, (30,)).double()


# ---- From returns to a score ---------------------------------------------------------------------
@blank(
    normal(8),
    -0.5,
    1.0,
    mistakes={
        "A random policy's return must score 0: subtract `low` above the line, too.": (
            "(returns - low) /",
            "returns /",
        ),
        "An expert's return must score 100: divide by the distance from low to high.": (
            "(high - low)",
            "high",
        ),
        "The scale ends at 100, not at 1.": ("100 * ", ""),
        "Nobody clips a score: a policy may be better than the expert, or worse than random.": (
            "100 * (returns - low) / (high - low)",
            "(100 * (returns - low) / (high - low)).clamp(0, 100)",
        ),
    },
)
def d4rl_score(returns, low, high):
    """The scores of returns: 0 for a random policy's, 100 for an expert's."""
    return 100 * (returns - low) / (high - low)


# ---- The luck of the episodes --------------------------------------------------------------------
@blank(
    returns,
    10,
    mistakes={
        "This is how much episodes differ. How much do the *means* of n episodes differ?": (
            "mean(dim=1).std()",
            "std(dim=1).mean()",
        ),
        "The mean is over the n episodes of each repetition: the second dimension.": (
            "mean(dim=1)",
            "mean(dim=0)",
        ),
        "The spread of the means is the error already: do not divide it by the root of n again.": (
            "mean(dim=1).std()",
            "mean(dim=1).std() / n**0.5",
        ),
        "Nearly right: that is the formula of the standard error. Use the draws.": (
            "returns[picks].mean(dim=1).std()",
            "returns.std() / n**0.5",
        ),
        "That is how much episodes differ: first the mean of each row of picks.": (
            "returns[picks].mean(dim=1).std()",
            "returns[picks].std()",
        ),
        "The mean of all the means is the score itself. Its error is their standard deviation.": (
            "mean(dim=1).std()",
            "mean(dim=1).mean()",
        ),
    },
)
def bootstrap_error(returns, n, repeats=2000):
    """The standard error of the mean of n episodes, from the returns (episodes,) of many."""
    picks = torch.randint(len(returns), (repeats, n))
    return returns[picks].mean(dim=1).std()


# ---- Which agent is the result? ------------------------------------------------------------------
@blank(
    share(10),
    mistakes={
        "The index is asked for, not the score.": ("argmax", "max"),
        "The best evaluation is the highest score, not the lowest.": ("argmax", "argmin"),
    },
)
def online(scores):
    """The index of the best of the scores (evaluations,)."""
    return scores.argmax()


@blank(
    share(10),
    2,
    mistakes={
        "k agents have a smaller L_d than the chosen one: start to count at 0.": ("[k]", "[k - 1]"),
        "argsort()[0] is the first smallest: start to count at 0.": ("[k]", "[k + 1]"),
        "The index of the evaluation is asked for, not its L_d.": (
            "losses.argsort()[k]",
            "losses.sort().values[k]",
        ),
        "A small L_d is a good one: sort from the smallest.": (
            "argsort()",
            "argsort(descending=True)",
        ),
        "This is the rank of evaluation k (and what the authors' code computes). Which evaluation "
        "has rank k?": ("losses.argsort()[k]", "losses.argsort().argsort()[k]"),
        "k counts from the smallest L_d, not from the last evaluation.": (
            "losses.argsort()[k]",
            "torch.tensor(len(losses) - 1 - k)",
        ),
    },
)
def offline(losses, k):
    """The index of the (k + 1)-th smallest of the losses L_d (evaluations,)."""
    return losses.argsort()[k]
