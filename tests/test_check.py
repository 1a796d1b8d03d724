"""The checks of all blanks, of the lessons and of the homework: what they say, and that they harm
nothing. A new file in tutorials/checks/ is tested, too."""

import importlib
from pathlib import Path

import pytest
import torch

from tutorials import checks
from tutorials.checks.lesson_2 import add_noise
from tutorials.grading import Check, blank, normal, with_mistakes

FILES = sorted(path.stem for path in Path(checks.__path__[0]).glob("*.py"))
CHECKS = {}
for file in FILES:
    for name, value in vars(importlib.import_module(f"tutorials.checks.{file}")).items():
        if isinstance(value, Check):
            CHECKS[f"{file}.{name}"] = value

# A mistake that changes nothing as long as the variance at the last step is the posterior's, 0.
HARMLESS = "Noise is added at the last step, i = 0."


@pytest.mark.parametrize("name", CHECKS)
def test_the_right_answer_passes_and_every_mistake_is_told_from_the_others(name):
    check = CHECKS[name]
    assert check.judge(check.solution)[0] == "✓"
    for hint, mistake in check.mistakes.items():
        if hint != HARMLESS:
            assert check.judge(with_mistakes(check.solution, [mistake])) == ("✗", [hint])


def test_a_check_prints_one_line_and_changes_nothing(capsys):
    def in_place(x, kept, noise):
        x *= kept.sqrt()  # the next call gets other inputs
        return x + noise * torch.sqrt(1 - kept)

    before = torch.get_rng_state()
    for _ in range(2):
        assert add_noise(in_place) is None
        assert capsys.readouterr().out == "✓ add_noise: right.\n"
    assert torch.equal(before, torch.get_rng_state())


def unfinished(x0, kept, noise):
    scale = ...  # your code here
    return scale * x0


def broken(x0, kept, noise):
    return kept.sqroot()


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda x0, kept, noise: ..., "… add_noise: not done yet"),
        (lambda x0, kept, noise: None, "… add_noise: not done yet"),
        (unfinished, "… add_noise: not done yet"),
        (broken, "✗ add_noise: AttributeError: 'Tensor' object has no attribute 'sqroot'"),
        (lambda x0, kept, noise: kept, "✗ add_noise: the result has shape (8, 1)"),
        (lambda x0, kept, noise: x0 / 0, "✗ add_noise: one number is "),
    ],
)
def test_what_is_no_answer_is_said_in_one_line(answer, says):
    verdict = add_noise.verdict(answer)
    assert verdict.startswith(says) and "\n" not in verdict


def test_two_mistakes_at_once_and_a_wrong_gradient_are_explained():
    mistakes = {"sign": ("-q", "q"), "detach": (".detach()", "")}
    check = blank(normal(8), mistakes=mistakes, gradient=True)(loss)
    assert check.judge(lambda q: q.mean() / q.abs().mean()) == ("✗", ["sign", "detach"])
    for almost in (lambda q: loss(q).detach(), lambda q: loss(q) + q.sum() - q.sum().detach()):
        assert "gradient" in check.verdict(almost)


def loss(q):
    return -q.mean() / q.abs().mean().detach()


def test_a_blank_can_be_a_value_and_a_mistake_can_be_in_several_places():
    @blank(mistakes={"both too high": [("3.0", "4.0"), ("2.0", "3.0")]})
    def corner():
        return torch.tensor([3.0, 2.0])

    assert corner.judge([3, 2])[0] == "✓"
    assert corner.judge([4, 3]) == ("✗", ["both too high"])
    assert corner.judge(...)[0] == "…"


def test_random_functions_get_the_same_random_numbers():
    @blank(normal(3))
    def noisy(x):
        return x + torch.randn(3)

    assert noisy.judge(lambda x: torch.randn(3) + x)[0] == "✓"
    assert noisy.judge(lambda x: torch.rand(3) + x)[0] == "✗"
