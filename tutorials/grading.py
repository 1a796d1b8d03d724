"""Says whether a student's function is right, and if not, which typical mistake it makes.

A call under each blank of a lesson, and `report` in the homework, say so at once; the checks are in
tutorials/checks/. See `blank`.

Both functions, the student's and the right one, get the same inputs and random numbers (the same
seed). Where they differ, the answer is compared with those of typical mistakes, which are changes
to the right function's source. Up to two at once are found.
"""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import torch


# ---- Typical mistakes ----------------------------------------------------------------------------
def with_mistakes(solution, mistakes):
    """The solution, a function, after changes (right, wrong) of its source.

    A mistake is one such change or a list of them. None if one finds no place.
    """
    source = inspect.getsource(solution)
    source = source[source.index("def ") :]
    for mistake in mistakes:
        changes = mistake if isinstance(mistake, list) else [mistake]
        for right, wrong in changes:
            if right not in source:
                return None
            source = source.replace(right, wrong)
    scope = dict(solution.__globals__)
    exec(source, scope)
    return scope[solution.__name__]


def differences(answers, expected):
    """What the two disagree on, values first."""
    wrong = [about for about, value in expected.items() if not is_close(answers[about], value)]
    return sorted(wrong, key=lambda about: about.startswith("the gradient"))


def is_close(answer, expected):
    same_shape = answer.shape == expected.shape
    return same_shape and torch.allclose(answer, expected, 1e-3, 1e-5, equal_nan=True)


def recognise(solution, mistakes, ask, answers):
    """The hints of the fewest typical mistakes, at most two, that give these answers; or none.

    mistakes: {hint: mistake}. ask(function) → the answers of a function.
    """
    for count in (1, 2):
        for hints in combinations(mistakes, count):
            mistaken = with_mistakes(solution, [mistakes[hint] for hint in hints])
            if mistaken is None:
                continue
            try:
                same = not differences(answers, ask(mistaken))
            except (RuntimeError, IndexError, ValueError):
                continue
            if same:
                return list(hints)
    return []


# ---- A check for each blank ----------------------------------------------------------------------
def blank(*inputs, mistakes=(), gradient=False):
    """Makes the function below it, which is the right answer, the check of a blank.

        @blank(uniform(8, 2), share(8, 1), normal(8, 2), mistakes={
            "alpha-bar is missing its roots.": ("kept.sqrt() * x0", "kept * x0"),
        })
        def forward_process(x0, kept, noise):
            return kept.sqrt() * x0 + (1 - kept).sqrt() * noise

    Written in checks/lesson_2.py, this is all that a blank needs. The lesson calls

        from tutorials.checks import lesson_2 as check

        check.forward_process(add_noise)  # the student's function, whatever its name

    which prints one line: right, not done yet, or a hint. It raises nothing, changes nothing, and
    leaves the random state alone. For a blank that is a number or a tensor, and not a function,
    give no inputs: the function below returns it, and the student's value takes add_noise's place.
    Several results (mean, variance) are tensors of one shape.

    inputs: of the function, in their order. What can be called (normal(8, 2), make_agent) draws or
        makes one, anew for each call; anything else is handed over as it is.
    mistakes: {hint: (right, wrong)}: text of the function below, and what a student writes in its
        place; or {hint: [(right, wrong), ...]} where a mistake is in several places.
    gradient: compare also the gradients, for the inputs that are tensors of floats and for the
        parameters of those that are networks, if they require one. For losses: a forgotten detach
        shows in nothing else. Of several results, the first is the loss; the others may be plain
        numbers.
    """

    def make_check(solution):
        return Check(solution, inputs, dict(mistakes), gradient)

    return make_check


class Check(NamedTuple):
    """The check of a blank. Calling it with the student's answer prints the verdict."""

    solution: Callable
    inputs: tuple
    mistakes: dict
    gradient: bool

    def __call__(self, student):
        with torch.random.fork_rng(devices=[]):
            print(self.verdict(student))

    def verdict(self, student):
        """The line that is printed."""
        mark, texts = self.judge(student)
        return f"{mark} {self.solution.__name__}: {' '.join(texts)}"

    def judge(self, student):
        """✓, … (not done yet) or ✗, and texts: if it is a typical mistake or two, their hints."""
        try:
            answers = self.ask(student)
        except NotImplementedError:
            return "…", ["not done yet."]
        except Exception as error:  # whatever it is, the student shall read it in one line
            if "ellipsis" in str(error):
                return "…", ["not done yet, there is a `...` left."]
            return "✗", [f"{type(error).__name__}: {error}"]
        expected = self.ask(self.solution)
        wrong = differences(answers, expected)
        if not wrong:
            return "✓", ["right."]
        hints = recognise(self.solution, self.mistakes, self.ask, answers)
        return "✗", hints or [difference(answers, expected, wrong[0])]

    def ask(self, function):
        """What a function answers on three draws of the inputs: {what it is about: tensor}."""
        answers = {}
        for seed in range(3):
            torch.manual_seed(seed)
            inputs = [make() if callable(make) else make for make in self.inputs]
            leaves = leaves_of(inputs) if self.gradient else []
            torch.manual_seed(seed)
            value = function(*inputs) if callable(function) else function
            if value is None or value is ...:
                raise NotImplementedError
            if isinstance(value, tuple) and len(value) == 1:
                raise ValueError("that is a tuple with one entry: return its [0].")
            parts = value if isinstance(value, tuple) else (value,)
            parts = [torch.as_tensor(part) for part in parts]
            answers[f"the result, draw {seed}"] = torch.stack(parts).squeeze(0).detach().double()
            if self.gradient:
                answers[f"the gradient, draw {seed}"] = gradient(parts[0], leaves).double()
        return answers


def leaves_of(inputs):
    """The tensors for which a gradient is compared. Inputs require one from here on."""
    leaves = []
    for entry in inputs:
        if isinstance(entry, torch.nn.Module):
            leaves += [parameter for parameter in entry.parameters() if parameter.requires_grad]
        elif isinstance(entry, torch.Tensor) and entry.is_floating_point():
            leaves.append(entry.requires_grad_())
    return leaves


def difference(answers, expected, about):
    """How an answer that no typical mistake explains differs, in words."""
    ours, right = answers[about], expected[about]
    if ours.shape != right.shape:
        return f"the result has shape {tuple(ours.shape)}, it should have {tuple(right.shape)}."
    if about.startswith("the gradient"):
        return "the values are right, but their gradient is not: is a detach missing, or too many?"
    where = (ours - right).abs().argmax()
    return f"one number is {ours.flatten()[where]:.4g} and should be {right.flatten()[where]:.4g}."


def gradient(value, inputs):
    """The gradient of value.sum() for the inputs, as one vector; zeros where there is none."""
    if not value.requires_grad:
        return torch.zeros(sum(entry.numel() for entry in inputs))
    parts = torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def normal(*shape):
    """An input: standard normal numbers."""
    return partial(torch.randn, *shape)


def uniform(*shape):
    """An input: numbers between -1 and 1, as actions are."""

    def draw():
        return 2 * torch.rand(*shape) - 1

    return draw


def share(*shape):
    """An input: numbers between 0 and 1."""
    return partial(torch.rand, *shape)
