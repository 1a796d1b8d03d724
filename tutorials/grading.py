"""Grades tutorials/homework.ipynb: each function is held against diffusion_ql.py.

Both get the same networks, the same batch and the same random numbers (the same seed). Where they
differ, the answer is compared with those of typical mistakes: mistakes.py lists them as changes to
the solution, with a hint. A recognised mistake costs a point; up to two at once are found.
"""

import inspect
from itertools import combinations
from typing import NamedTuple

import torch

from diffusion_ql import Args, Batch, DiffusionPolicy, DiffusionQL
from tutorials.mistakes import MISTAKES
from tutorials.solutions import homework

BATCH_SIZE = 8
POINTS = {
    "p_sample": 3,
    "denoising_loss": 2,
    "policy_loss": 2,
    "critic_target": 3,
    "max_q_target": 1,  # a bonus
}
BONUS = "max_q_target"


class Result(NamedTuple):
    points: int
    hints: list  # of texts; none if all is right


# ---- What the functions are tried on -------------------------------------------------------------
@torch.no_grad()
def make_agent():
    """A small agent whose networks all differ, and whose critics cross each other and 0."""
    torch.manual_seed(0)
    args = Args(hidden_dim=16, n_timesteps=5, eta=0.7, discount=0.9, device="cpu")
    agent = DiffusionQL(state_dim=3, action_dim=2, args=args)
    for network in (agent.actor, agent.critic, agent.ema_actor, agent.critic_target):
        network.requires_grad_(True)  # so that a forgotten no_grad shows
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)

    batch = make_batch()
    for critic in (agent.critic, agent.critic_target):
        q1, q2 = critic(batch.state, batch.action)
        critic.q1_model[-1].bias -= q1.mean()
        critic.q2_model[-1].bias -= q2.mean()
    return agent


def make_batch():
    """Transitions, some of them terminal."""
    torch.manual_seed(1)
    return Batch(
        state=torch.randn(BATCH_SIZE, 3),
        action=torch.rand(BATCH_SIZE, 2) * 2 - 1,
        next_state=torch.randn(BATCH_SIZE, 3),
        reward=torch.randn(BATCH_SIZE, 1),
        not_done=torch.tensor([[1.0], [0.0]]).repeat(BATCH_SIZE // 2, 1),
    )


def gradient(value, inputs):
    """The gradient of value.sum() for the inputs, as one vector; zeros where there is none."""
    if not value.requires_grad:
        return torch.zeros(sum(entry.numel() for entry in inputs))
    parts = torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


# ---- What each function answers: {what it is about: tensor} --------------------------------------
def ask_p_sample(function):
    policy = make_agent().actor
    state = make_batch().state
    answers = {}
    for i in reversed(range(policy.n_timesteps)):
        torch.manual_seed(i)
        x = (1.5 * torch.randn(BATCH_SIZE, 2)).requires_grad_()
        value = function(policy, x, i, state)
        check_tensor(value, (BATCH_SIZE, 2))
        answers[f"i = {i}"] = value
    answers["the gradient at i = 0"] = gradient(value, [x])
    return answers


def ask_denoising_loss(function):
    policy = make_agent().actor
    batch = make_batch()
    torch.manual_seed(2)
    value = function(policy, batch.action, batch.state)
    check_tensor(value, ())
    return {"the value": value, "the gradient": gradient(value, list(policy.parameters()))}


def ask_policy_loss(function):
    agent = make_agent()
    batch = make_batch()
    answers = {}
    for seed in (1, 2):  # the coin falls on either side
        torch.manual_seed(seed)
        value = function(agent, batch)
        check_tensor(value, ())
        answers[f"the value, seed {seed}"] = value
        answers[f"the gradient, seed {seed}"] = gradient(value, list(agent.actor.parameters()))
    return answers


def ask_target(function):
    agent = make_agent()
    batch = make_batch()
    torch.manual_seed(3)
    value = function(agent, batch)
    check_tensor(value, (BATCH_SIZE, 1))
    return {
        "transitions that go on": value[batch.not_done == 1],
        "terminal transitions": value[batch.not_done == 0],
        "no gradient": torch.tensor(float(value.requires_grad)),
    }


def check_tensor(value, shape):
    """Raises ValueError, with a hint, unless the value is a finite tensor of this shape."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"return a tensor, not a {type(value).__name__}")
    if value.shape != shape:
        raise ValueError(f"the result has shape {tuple(value.shape)}, it should have {shape}")
    if not value.isfinite().all():
        raise ValueError("the result holds NaN or infinity")


# ---- diffusion_ql.py, with the arguments of the homework -----------------------------------------
def library_policy_loss(agent, batch):
    loss, _ = agent.policy_loss(batch)
    return loss


def library_target(agent, batch):
    """The target inside critic_loss: for critics of 0, d loss / d Q1 is -2 / B times the target."""
    q1 = torch.zeros(BATCH_SIZE, 1, requires_grad=True)
    q2 = torch.zeros(BATCH_SIZE, 1)
    agent.critic.forward = lambda state, action: (q1, q2)
    loss, _ = agent.critic_loss(batch)
    loss.backward()
    return -BATCH_SIZE / 2 * q1.grad


def library_max_q_target(agent, batch):
    agent.args.max_q_backup = True
    return library_target(agent, batch)


ASK = {
    "p_sample": ask_p_sample,
    "denoising_loss": ask_denoising_loss,
    "policy_loss": ask_policy_loss,
    "critic_target": ask_target,
    "max_q_target": ask_target,
}
LIBRARY = {
    "p_sample": DiffusionPolicy.p_sample,
    "denoising_loss": DiffusionPolicy.loss,
    "policy_loss": library_policy_loss,
    "critic_target": library_target,
    "max_q_target": library_max_q_target,
}


# ---- Grades --------------------------------------------------------------------------------------
def with_mistakes(name, hints):
    """The solution with the mistakes of these hints; None if one of them finds no place in it."""
    source = inspect.getsource(getattr(homework, name))
    for hint in hints:
        right, wrong = MISTAKES[name][hint]
        if right not in source:
            return None
        source = source.replace(right, wrong)
    scope = dict(vars(homework))
    exec(source, scope)
    return scope[name]


def differences(answers, expected):
    """What the two disagree on."""
    return [
        about
        for about, value in expected.items()
        if not torch.allclose(answers[about], value, rtol=1e-3, atol=1e-5)
    ]


def recognise(name, answers):
    """The hints of the fewest typical mistakes, at most two, that give these answers; or none."""
    for count in (1, 2):
        for hints in combinations(MISTAKES[name], count):
            mistaken = with_mistakes(name, hints)
            if mistaken is None:
                continue
            try:
                same = not differences(answers, ASK[name](mistaken))
            except (RuntimeError, IndexError, ValueError):
                continue
            if same:
                return list(hints)
    return []


def grade(function):
    """The Result of one function of the homework, which its name tells."""
    name = function.__name__
    with torch.random.fork_rng():
        try:
            answers = ASK[name](function)
        except NotImplementedError:
            return Result(0, ["Not done yet."])
        except IndexError as error:
            return Result(0, [f"{error}. Index i = 0 is the paper's i = 1, N - 1 its i = N."])
        except Exception as error:  # whatever it is, it belongs into the report
            return Result(0, [f"{type(error).__name__}: {error}."])

        wrong = differences(ASK[name](LIBRARY[name]), answers)
        if not wrong:
            return Result(POINTS[name], [])
        hints = recognise(name, answers)
        if hints:
            return Result(max(0, POINTS[name] - len(hints)), hints)
        right = [about for about in answers if about not in wrong]
        hints = [f"Wrong, and no typical mistake: {', '.join(wrong)}."]
        if right:
            hints.append(f"Right: {', '.join(right)}.")
        return Result(0, hints)


def report(*functions):
    """Grades functions of the homework: a line for each, its hints, and the total."""
    lines = []
    total = 0
    possible = 0
    for function in functions:
        name = function.__name__
        result = grade(function)
        total += result.points
        if name == BONUS:
            label = f"{name} (bonus)"
        else:
            label = name
            possible += POINTS[name]
        lines.append(f"{label}: {result.points} of {POINTS[name]}")
        lines += [f"    {hint}" for hint in result.hints]
    if len(functions) > 1:
        lines.append(f"Total: {total} of {possible} points")
    return "\n".join(lines)
