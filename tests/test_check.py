"""The checks of the lessons' blanks: the right answer passes, a mistake is told from the others."""

import pytest
import torch

from tutorials import check
from tutorials.grading import Check, blank, normal, with_mistakes

CHECKS = {name: value for name, value in vars(check).items() if isinstance(value, Check)}
MISTAKES = [(name, hint) for name, one in CHECKS.items() for hint in one.mistakes]


@pytest.mark.parametrize("name", CHECKS)
def test_the_right_answer_passes(name):
    assert CHECKS[name].verdict(CHECKS[name].solution) == f"✓ {name}: right."


@pytest.mark.parametrize("name, hint", MISTAKES)
def test_every_mistake_is_told_from_the_others(name, hint):
    mistaken = with_mistakes(CHECKS[name].solution, [CHECKS[name].mistakes[hint]])
    assert CHECKS[name].verdict(mistaken) == f"✗ {name}: {hint}"


def test_a_check_prints_one_line_and_changes_nothing(capsys):
    def add_noise(x, a, e):
        x *= a.sqrt()  # in place: the next call gets other inputs
        return x + e * torch.sqrt(1 - a)

    before = torch.get_rng_state()
    for _ in range(2):
        assert check.forward_process(add_noise) is None
        assert capsys.readouterr().out == "✓ forward_process: right.\n"
    assert torch.equal(before, torch.get_rng_state())


def unfinished(x0, kept, noise):
    scale = ...  # your code here
    return scale * x0


def broken(x0, kept, noise):
    return kept.sqroot()


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda x0, kept, noise: ..., "… forward_process: not done yet."),
        (lambda x0, kept, noise: None, "… forward_process: not done yet."),
        (unfinished, "… forward_process: not done yet, there is a `...` left."),
        (broken, "✗ forward_process: AttributeError: 'Tensor' object has no attribute 'sqroot'"),
        (lambda x0, kept, noise: kept, "✗ forward_process: the result has shape (8, 1), it "),
        (lambda x0, kept, noise: 2 * x0, "✗ forward_process: one number is "),
    ],
)
def test_what_is_no_answer_is_said_in_one_line(answer, said):
    verdict = check.forward_process.verdict(answer)
    assert verdict.startswith(said) and "\n" not in verdict


def test_two_mistakes_at_once_and_a_wrong_gradient_are_explained():
    verdict = check.q_loss.verdict(lambda q, other: q.mean() / other.abs().mean())
    assert "not detached" in verdict and "The sign" in verdict
    verdict = check.q_loss.verdict(lambda q, other: -(q.mean() / other.abs().mean()).detach())
    assert "their gradient is not" in verdict


def test_a_blank_can_be_a_value_and_a_mistake_can_be_in_several_places():
    @blank(mistakes={"Both are one too high.": [("3.0", "4.0"), ("2.0", "3.0")]})
    def corner():
        return torch.tensor([3.0, 2.0])

    assert corner.verdict(torch.tensor([3, 2])) == "✓ corner: right."
    assert corner.verdict([4, 3]) == "✗ corner: Both are one too high."
    assert corner.verdict(...) == "… corner: not done yet."

    @blank(normal(3))
    def noisy(x):
        return x + torch.randn(3)

    assert noisy.verdict(lambda x: torch.randn(3) + x) == "✓ noisy: right."
