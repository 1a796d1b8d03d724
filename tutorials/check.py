"""The checks of the lessons' blanks, in the order of the lessons: `check.forward_process(mine)`.

Each function here is the right answer of a blank, and grading.blank makes it the blank's check: it
says how. tests/test_check.py tries every mistake that is listed.
"""

import torch

from tutorials.grading import blank, normal, share, uniform


# ---- 2. A diffusion policy from scratch ----------------------------------------------------------
@blank(
    uniform(8, 2),
    share(8, 1),
    normal(8, 2),
    mistakes={
        "alpha-bar is missing its square roots: it scales the variance, not the action.": (
            "kept.sqrt() * x0 + (1 - kept).sqrt() * noise",
            "kept * x0 + (1 - kept) * noise",
        ),
        "The factors of action and noise are swapped.": (
            "kept.sqrt() * x0 + (1 - kept).sqrt() * noise",
            "kept.sqrt() * noise + (1 - kept).sqrt() * x0",
        ),
        "The two squared factors add up to 1: the noise has the root of 1 - alpha-bar.": (
            "(1 - kept).sqrt()",
            "(1 - kept.sqrt())",
        ),
    },
)
def forward_process(x0, kept, noise):
    """The noisy action (B, action_dim); kept (B, 1) is alpha-bar."""
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


# ---- 3. Q-guidance -------------------------------------------------------------------------------
@blank(
    normal(8, 1),
    normal(8, 1),
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
    gradient=True,
)
def q_loss(climbed, other):
    """L_q of both critics' values (B, 1) at the policy's actions: a scalar."""
    return -climbed.mean() / other.abs().mean().detach()


# ---- 4. Time -------------------------------------------------------------------------------------
def zeros_and_ones():
    return torch.tensor([[1.0], [0.0]]).repeat(4, 1)


@blank(
    normal(8, 1),
    zeros_and_ones,
    normal(8, 1),
    normal(8, 1),
    0.97,
    mistakes={
        "not_done is forgotten: nothing follows a terminal state.": (" * not_done", ""),
        "not_done is 0 at terminal states: multiply by it as it is.": (
            "* not_done",
            "* (1 - not_done)",
        ),
        "The discount is forgotten.": ("gamma * ", ""),
        "Take the smaller of the two critics, not the larger.": ("minimum", "maximum"),
        "Take the smaller of the two at each transition, not over the batch.": (
            "torch.minimum(q1, q2)",
            "torch.minimum(q1, q2).min()",
        ),
    },
)
def critic_target(reward, not_done, q1, q2, gamma):
    """What the critics regress on (B, 1); q1, q2 (B, 1): the target critics' at the next state."""
    return reward + gamma * not_done * torch.minimum(q1, q2)
