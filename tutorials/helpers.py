"""What the notebooks share: the fast mode, colours, committed results, pictures, rules of acting.

Nothing of the algorithm is in here.
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from toy_experiments.pictures import COLORS, RULES, choose, draw_actions, read_row

__all__ = ["COLORS", "FAST", "RULES", "choose"]

REPOSITORY = Path(__file__).resolve().parents[1]

# The tests run every cell in a fast mode: `FAST=1` in the environment. Live training is then cut
# short, and its pictures mean nothing.
FAST = os.environ.get("FAST") == "1"

torch.set_num_threads(1)  # the networks of the toy experiments are too small for more
plt.rcParams["figure.dpi"] = 100


# ---- Results that were made by a command and committed -------------------------------------------
def committed(experiment, rows):
    """{row: [(actions (2000, 2), numbers) of each seed]} of results/<experiment>."""
    return {row: read_row(REPOSITORY / "results" / experiment, row) for row in rows}


# ---- Pictures ------------------------------------------------------------------------------------
def panels(count, width=2.6, height=3.4):
    """A row of `count` axes in a new figure; a single one comes alone."""
    size = (width * count, height)
    _, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    if count == 1:
        return axes[0, 0]
    return axes[0]


def draw_samples(axis, actions, title, color=None):
    """A panel of actions (n, 2) on the bandit, with dots that a projector shows."""
    draw_actions(axis, actions, title, color=color)
    axis.collections[-1].set(sizes=[8], alpha=0.5)


def dots(axis, rows, colors, lines=None, spread=False):
    """A line for each row with a dot per seed, and its mean as a bar.

    rows: {label: values (seeds,)}; colors: {label: colour}; lines: two of
    {label: value} to compare with; spread: draw ± one standard deviation, too.
    """
    for y, (label, row) in enumerate(rows.items()):
        axis.plot(row, np.full(len(row), y), "o", color=colors[label], alpha=0.6)
        axis.plot(row.mean(), y, "|", color="black", ms=14)
        if spread:
            axis.errorbar(row.mean(), y, xerr=row.std(), color="black", lw=1, capsize=3)
    axis.set(yticks=range(len(rows)), yticklabels=list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    if lines is not None:
        for (label, value), style in zip(lines.items(), ["--", ":"], strict=True):
            axis.axvline(value, color="black", ls=style, lw=1, label=label)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False)


# ---- Acting --------------------------------------------------------------------------------------
class Player:
    """An agent that acts by another rule than its own."""

    def __init__(self, agent, rule):
        self.agent = agent
        self.rule = rule

    def act(self, states):
        return choose(self.agent, states, self.rule)


# ---- The course ----------------------------------------------------------------------------------
COURSE = {  # the seven lessons, and the question of each
    "1 Policy": "why expressive?",
    "2 Diffusion": "how does it work?",
    "3 Guidance": "how does Q steer it?",
    "4 Time": "who keeps Q honest?",
    "5 D4RL": "what is a score?",
    "6 Fork": "what would be better?",
    "7 Failure": "what is wrong here?",
}


def course_map(here):
    """A picture for the top of lesson `here` (1 to 7): the seven lessons, this one in colour."""
    figure, axis = plt.subplots(figsize=(9, 0.9), layout="constrained")
    for i, (name, question) in enumerate(COURSE.items(), start=1):
        box = dict(boxstyle="round,pad=0.3", fc=COLORS["diffusion"] if i == here else "#EEEEEE")
        box["ec"] = "none"
        color = "white" if i == here else "#555555"
        axis.text(i, 0.62, name, ha="center", va="center", size=10, color=color, bbox=box)
        axis.text(i, 0.12, question, ha="center", va="center", size=7.5, color="#555555")
    axis.plot([0.6, 7.4], [0.62, 0.62], color="#CCCCCC", zorder=0)
    axis.set(xlim=(0.4, 7.6), ylim=(-0.1, 1))
    axis.set_axis_off()
