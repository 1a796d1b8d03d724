"""Lesson 2: its cells run in any order, its checks say right, and what its text claims is so."""

import re
from functools import partial

import pytest
import torch
from lessons import read, run_twice, seeds

from diffusion_ql import vp_schedule
from toy_experiments.bandit import on_corners

SAID = "".join(
    output.get("text", "") for cell in read(2).cells for output in cell.get("outputs", [])
)


@pytest.mark.slow
def test_what_the_lesson_computes():
    lesson, printed = run_twice(2)
    assert printed.count("right.") == 2 * 5

    assert torch.allclose(lesson["ALPHA_BAR"][10::10], vp_schedule(5)["alphas_cumprod"])
    assert lesson["one_hill"].nonzero()[0] == 16
    assert abs(lesson["test_loss"]["one Gaussian"] - 0.328) < 0.002
    assert 0.175 < lesson["test_loss"]["exact"] < 0.182
    assert lesson["largest"] < 1e-3  # the library draws the same actions
    decided = lesson["decided"]
    assert 0.25 < decided[0] < 0.3 and 0.45 < decided[25] < 0.5 and 0.88 < decided[40] < 0.93
    assert (decided - lesson["forwards"].flip(0)).abs().max() < 0.03
    widths = [lesson["corner_std"](drawn) for drawn in lesson["last_step"].values()]
    assert torch.allclose(torch.tensor(widths), torch.tensor([0.031, 0.070, 0.050]), atol=1e-3)
    two, five, _, fifty, one_corner = lesson["few"].values()
    assert two < 0.01 and 0.45 < five < 0.53 and fifty > 0.99 and one_corner == 1
    shares = on_corners(lesson["samples"]).float().mean(dim=0)  # of that last one
    assert (shares - 0.25).abs().max() < 0.02
    networks = seeds("n_timesteps", "diffusion, N = 5", "on_mode")
    assert abs(networks - five).max() < 0.06
    assert seeds("n_timesteps", "diffusion, N = 2", "on_mode").max() < 0.01

    t = torch.randint(lesson["N"], (10_000,))
    kept = lesson["ALPHA_BAR"][t + 1, None]
    noisy = lesson["add_noise"](lesson["actions"], kept, torch.randn(10_000, 2))
    with torch.no_grad():
        guess = lesson["young"](noisy, t, torch.zeros(10_000, 2))
        apart = {  # from what the other two see
            name: (guess - lesson[name](noisy, t, torch.zeros(10_000, 2))).square().mean()
            for name in ("one_gaussian", "exact")
        }
    assert apart["one_gaussian"] < apart["exact"] / 5

    ddim = partial(lesson["ddim_step"], lesson["exact"])
    ends = lesson["walk"](ddim, torch.randn(50_000, 2))[-1]
    assert 1 - on_corners(ends).any(dim=1).float().mean() < 3e-4  # 0.95e-4 of 200,000


def test_what_the_lesson_printed_about_its_networks():
    gaussian, exact, network = numbers(r"loss of .*: (0\.\d+)")
    assert exact <= network < exact + 0.005 < gaussian
    narrow, right = numbers(r"std of a corner (0\.\d+)")
    assert narrow < 0.03 and abs(right - 0.05) < 0.001
    dice, ddim, exact = numbers(r"same quadrant (\d+)%")
    assert dice < 30 and min(ddim, exact) >= 98
    assert numbers(r"off the corners (\d+\.\d)%")[1:] == [pytest.approx(3, abs=0.5), 0]


def numbers(pattern):
    return [float(number) for number in re.findall(pattern, SAID)]
