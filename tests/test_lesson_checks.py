"""The checks under the lessons' blanks: the answer passes, a mistake is told from the others."""

import importlib

import pytest
from lessons import ROOT

from tutorials.grading import Check, with_mistakes

CHECKS = {}
for path in sorted(ROOT.glob("tutorials/checks/lesson_*.py")):
    module = importlib.import_module(f"tutorials.checks.{path.stem}")
    for name, check in vars(module).items():
        if isinstance(check, Check):
            CHECKS[f"{path.stem}.{name}"] = check


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_a_check_knows_the_answer_and_tells_each_mistake_from_the_others(check):
    name = check.solution.__name__
    assert check.verdict(check.solution) == f"✓ {name}: right."
    for hint, mistake in check.mistakes.items():
        mistaken = with_mistakes(check.solution, [mistake])
        assert check.verdict(mistaken) == f"✗ {name}: {hint}"
