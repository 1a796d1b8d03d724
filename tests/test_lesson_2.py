"""Lesson 2 runs, its checks say right, and what its text claims about the committed runs is so."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from diffusion_ql import vp_schedule
from tutorials.checks import lesson_2
from tutorials.grading import Check, with_mistakes

ROOT = Path(__file__).resolve().parents[1]
LESSON = nbformat.read(next(ROOT.glob("tutorials/2_*.ipynb")), 4)
CODE = [cell.source for cell in LESSON.cells if cell.cell_type == "code"]
CHECKS = [value for value in vars(lesson_2).values() if isinstance(value, Check)]


@pytest.mark.parametrize("check", CHECKS, ids=[check.solution.__name__ for check in CHECKS])
def test_a_check_knows_the_answer_and_its_mistakes(check):
    assert check.verdict(check.solution).endswith("right.")
    for hint, mistake in check.mistakes.items():
        assert check.verdict(with_mistakes(check.solution, [mistake])).endswith(hint)


@pytest.mark.slow
def test_claims_that_need_no_trained_network(monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr("tutorials.helpers.FAST", True)
    monkeypatch.chdir(ROOT)
    seen = {"__name__": "lesson"}
    for source in CODE + CODE[::-1]:  # once all cells have run, their order does not matter
        exec(source, seen)
    assert capsys.readouterr().out.count("right.") == 2 * len(CHECKS) == 12

    assert torch.allclose(seen["ALPHA_BAR"][10::10], vp_schedule(5)["alphas_cumprod"])
    assert seen["one_hill"].nonzero()[0] == 16
    assert abs(seen["loss"]["one Gaussian"] - 0.328) < 0.002 and seen["loss"]["exact"] < 0.182
    assert seen["largest"] < 1e-3  # the library draws the same actions
    decided = seen["decided"]
    assert 0.25 < decided[0] < 0.3 and decided[25] < 0.5 and 0.88 < decided[40] < 0.93
    assert seen["shares"].argmax() == 1
    assert (seen["shares"] - seen["predicted"]).abs().max() < 0.02
    widths = torch.tensor([seen["corner_std"](drawn) for drawn in seen["last_step"].values()])
    assert torch.allclose(widths, torch.tensor([0.031, 0.070, 0.050]), atol=1e-3)
    two, five, _, fifty, tweedie, nearest = seen["few"].values()
    assert two < 0.01 and 0.45 < five < 0.53 and fifty > 0.99 and nearest == 1
    assert tweedie < five
    networks = seen["committed"]("n_timesteps", ["diffusion, N = 5"])["diffusion, N = 5"]
    assert max(abs(numbers["on_mode"] - five) for _, numbers in networks) < 0.06


def test_claims_about_the_trained_networks():
    outputs = [output for cell in LESSON.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    gaussian, near, exact, far, network, _ = numbers(r"(?:loss|at 200) (0\.\d+)", said)
    assert network < exact + 0.005 < gaussian and near < 0.02 < far
    narrow, right, learned, wide = numbers(r"std of a corner (0\.\d+)", said)
    assert narrow < 0.03 < learned < 0.04 and abs(right - 0.05) < 0.001 and wide > right
    dice, ddim, flow = numbers(r"same quadrant (\d+)%", said)
    assert dice < 30 and min(ddim, flow) >= 98
    assert min(numbers(r"quadrant \d+%, on mode (\d+)%", said)) >= 97
    every, missed = numbers(r"(?:starts|corners) (0\.\d+)", said)
    assert missed < every / 5


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]
