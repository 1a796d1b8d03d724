"""Lesson 1: its cells run in any order, its checks say right, and what its text claims is so."""

import math

import numpy as np
import pytest
import torch
from lessons import run_twice, seeds

from toy_experiments import bandit

pytestmark = pytest.mark.slow


def test_what_the_lesson_computes():
    lesson, printed = run_twice(1)
    assert printed.count("right.") == 2 * 3

    assert np.allclose(lesson["trained"][-1], [[0, 0], [0.8, 0.8]], atol=0.06)
    for name, tolerance in {"on the border": 0.01, "on mode": 0.005}.items():
        assert abs(lesson["on_paper"][name] - lesson["measured"][name]) < tolerance
    (wide, narrow), (wide_back, narrow_back) = lesson["divergence"].values()
    assert wide < narrow and wide_back > narrow_back
    assert abs(narrow_back - math.log(4)) < 0.01

    jumps = [np.abs(np.diff(walk, axis=0)).max() for walk in lesson["walks"].values()]
    assert jumps[0] < 0.05 and jumps[1] > 1  # CVAE and diffusion
    assert lesson["thread_width"] < 1e-5
    assert (lesson["thread"][0] - lesson["thread"][-1]).norm() > 1
    assert lesson["torn"][40] < 3 and lesson["torn"][-1] > 1e4
    assert 0.75 < lesson["ordinary"][40] < 0.85 and 1 / 33 < lesson["ordinary"][-1] < 1 / 25
    assert lesson["largest_factor"] < 25
    fresh = [lesson["denoise"](lesson["policy"], torch.randn(10_000, 50, 2))[-1] for _ in range(5)]
    assert 1 - lesson["share_on_mode"](torch.cat(fresh)) < 1e-4  # 0.2e-4 of 200,000

    by_the_gaussian, by_the_data = lesson["earned"][5].T
    assert by_the_gaussian.max() < 0.6 and by_the_data.min() > 2
    assert lesson["earned"][4.5][:, 0].max() > 4.9


def test_what_the_text_says_about_cloning():
    mixture = seeds("behavior_cloning", "mixture of 8", "on_mode")
    assert mixture[0] < 0.055 and 0.6 < mixture[1] < mixture[2] < 0.66 and mixture[3] > 0.99
    repaired = seeds("behavior_cloning", "CVAE, repaired", "on_mode")
    assert 0.775 < repaired[0] and repaired[-1] < 0.805
    diffusion = seeds("behavior_cloning", "diffusion", "on_mode")
    assert diffusion[0] > 0.985 and abs(diffusion.mean() - 0.992) < 0.001


def test_what_the_text_says_about_rewards():
    tie = "top left pays 5"
    assert seeds("expressiveness", f"AWR, {tie}", "reward")[-1] < 0.15
    assert abs(seeds("expressiveness", f"weighted diffusion, {tie}", "reward") - 4.2).max() < 0.15
    corner = math.pi * bandit.RADIUS**2 / 4  # its share of the square
    assert abs(sum(bandit.TASKS["bandit-tie"]) * corner - 0.36) < 0.005
    hit = seeds("expressiveness", f"weighted diffusion, {tie}", "on_mode").mean()
    diffusion_ql = seeds("expressiveness", f"Diffusion-QL, {tie}", "reward").mean()
    assert abs(hit - 0.85) < 0.01 and abs(diffusion_ql - 3.8) < 0.05
    assert seeds("q_learning", "AWR", "reward")[0] > 4.95
    assert abs(seeds("q_learning", "Diffusion-QL", "reward") - 4.5).max() < 0.2
