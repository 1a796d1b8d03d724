"""Lesson 2: its cells run in any order, its checks say right, and what its text claims is so."""

import re
from functools import partial

import pytest
import torch
from lessons import read, run_twice, seeds

from diffusion_ql import vp_schedule
from toy_experiments.bandit import on_corners


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
    for n, share in {2: two, 5: five}.items():
        assert abs(seeds("n_timesteps", f"diffusion, N = {n}", "on_mode") - share).max() < 0.06

    t = torch.randint(lesson["N"], (10_000,))
    kept = lesson["ALPHA_BAR"][t + 1, None]
    noisy = lesson["add_noise"](lesson["actions"], kept, torch.randn(10_000, 2))
    one, young, exact = (
        lesson[name](noisy, t, torch.zeros_like(noisy)).detach()
        for name in ("one_gaussian", "young", "exact")
    )
    assert (young - one).square().mean() < (young - exact).square().mean() / 5

    corner_back = partial(lesson["step_back"], lesson["one_corner"])
    ends = lesson["walk"](corner_back, torch.randn(20_000, 2), stride=50)[-1]
    assert (on_corners(ends).float().mean(dim=0) - 0.25).abs().max() < 0.02
    ends = lesson["walk"](partial(lesson["ddim_step"], lesson["exact"]), torch.randn(50_000, 2))[-1]
    assert 1 - on_corners(ends).any(dim=1).float().mean() < 3e-4  # 0.95e-4 of 200,000


def test_what_the_lesson_printed_about_its_networks():
    outputs = [output for cell in read(2).cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)

    def numbers(pattern):
        return [float(number) for number in re.findall(pattern, said)]

    gaussian, exact, network = numbers(r"loss of .*: (0\.\d+)")
    assert exact <= network < exact + 0.005 < gaussian
    assert numbers(r"samples (0\.\d+)") == [pytest.approx(0.0286, abs=5e-4)]
    assert numbers(r"same quadrant (\d+)%") == pytest.approx([28, 99, 99, 99], abs=2)
    _, ddim, exact_ddim, flow = numbers(r"off the corners (\d+\.\d)%")
    assert [ddim, exact_ddim, flow] == pytest.approx([3, 0, 2], abs=0.5)
