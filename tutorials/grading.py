"""Says whether a student's function is right, and if not, which typical mistake it makes.

In the lessons a call under each blank says so at once: see `blank`, and check.py for the checks. In
tutorials/homework.ipynb `report` grades: each function is held against diffusion_ql.py.

Both functions get the same inputs, networks and random numbers (the same seed). Where they differ,
the answer is compared with those of typical mistakes, which are changes to the solution's source.
Up to two at once are found. In the homework (mistakes.py) a recognised mistake costs a point.
"""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import torch

from diffusion_ql import Args, Batch, DiffusionPolicy, DiffusionQL
from toy_experiments.bandit import CORNERS, REWARDS, make_data, measure
from tutorials.mistakes import MISTAKES
from tutorials.solutions import homework

BATCH_SIZE = 8
POINTS = {
    "p_sample": 3,
    "denoising_loss": 2,
    "policy_loss": 2,
    "critic_target": 3,
    "max_q_target": 1,  # a bonus
    "training": 1,
    "prediction": 1,
}
BONUS = "max_q_target"
BANDIT_SETTINGS = dict(
    lr=3e-3, critic_lr=3e-3, eta=0.3, hidden_dim=64, batch_size=100, device="cpu"
)


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
    """What the two disagree on."""
    return [about for about, value in expected.items() if not is_close(answers[about], value)]


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


# ---- Lessons: a check for each blank -------------------------------------------------------------
def blank(*inputs, mistakes=(), gradient=False):
    """Makes the function below it, which is the right answer, the check of a blank in a lesson.

        @blank(uniform(8, 2), share(8, 1), normal(8, 2), mistakes={
            "alpha-bar is missing its roots.": ("kept.sqrt() * x0", "kept * x0"),
        })
        def forward_process(x0, kept, noise):
            return kept.sqrt() * x0 + (1 - kept).sqrt() * noise

    Written in check.py, this is all that a blank needs. The lesson calls

        from tutorials import check

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
        parameters of those that are networks. For losses: a forgotten detach shows in nothing else.
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
        name = self.solution.__name__
        try:
            answers = self.ask(student)
        except NotImplementedError:
            return f"… {name}: not done yet."
        except Exception as error:  # whatever it is, the student shall read it in one line
            if "ellipsis" in str(error):
                return f"… {name}: not done yet, there is a `...` left."
            return f"✗ {name}: {type(error).__name__}: {error}"
        expected = self.ask(self.solution)
        wrong = differences(answers, expected)
        if not wrong:
            return f"✓ {name}: right."
        hints = recognise(self.solution, self.mistakes, self.ask, answers)
        return f"✗ {name}: {' '.join(hints) or difference(answers, expected, wrong[0])}"

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
            if isinstance(value, tuple):
                value = torch.stack(value)
            value = torch.as_tensor(value)
            answers[f"the result, draw {seed}"] = value.detach().double()
            if self.gradient:
                answers[f"the gradient, draw {seed}"] = gradient(value, leaves).double()
        return answers


def leaves_of(inputs):
    """The tensors for which a gradient is compared; from here on each requires one."""
    leaves = []
    for entry in inputs:
        if isinstance(entry, torch.nn.Module):
            leaves += [p.requires_grad_() for p in entry.parameters()]
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


# ---- Grades of the homework ----------------------------------------------------------------------
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
        hints = recognise(getattr(homework, name), MISTAKES[name], ASK[name], answers)
        if hints:
            return Result(max(0, POINTS[name] - len(hints)), hints)
        right = [about for about in answers if about not in wrong]
        hints = [f"Wrong, and no typical mistake: {', '.join(wrong)}."]
        if right:
            hints.append(f"Right: {', '.join(right)}.")
        return Result(0, hints)


def report(*functions, bandit=None):
    """Grades functions of the homework: a line for each, its hints, and the total.

    bandit: of task 5, what train_on_bandit returned for your functions, the prediction, and what it
    returned for the broken ones.
    """
    graded = [(function.__name__, grade(function)) for function in functions]
    if bandit is not None:
        graded += [
            ("training", grade_training(bandit[0])),
            ("prediction", grade_prediction(*bandit)),
        ]
    lines = []
    for name, result in graded:
        label = f"{name} (bonus)" if name == BONUS else name
        lines.append(f"{label}: {result.points} of {POINTS[name]}")
        lines += [f"    {hint}" for hint in result.hints]
    if len(graded) > 1:
        total = sum(result.points for _, result in graded)
        possible = sum(POINTS[name] for name, _ in graded if name != BONUS)
        lines.append(f"Total: {total} of {possible} points")
    return "\n".join(lines)


# ---- Task 5: the bandit, learned by the student's functions --------------------------------------
MEASURES = {"best": "nearest to the best corner", "edge": "at the edge of the square"}
WORDS = ("more", "fewer", "as many")  # "as many": the share differs by less than 0.1
TO_PREDICT = 'First predict "best" and "edge": each is "more", "fewer" or "as many".'


def train_on_bandit(agent_class, prediction=None):
    """Trains an agent for 1,000 steps on the bandit. Returns which shares of its actions are where.

    prediction: {name of MEASURES: one of WORDS}, asked for before it is put to the test. What keeps
    it from training is printed, and None is returned.
    """
    if prediction is not None and not is_complete(prediction):
        print(TO_PREDICT)
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = make_data()
        try:
            agent = agent_class(2, 2, Args(**BANDIT_SETTINGS))
            for _ in range(1000):
                agent.update(data.sample(agent.args.batch_size))
            with torch.no_grad():
                actions = agent.actor.sample(torch.zeros(2000, 2))
        except NotImplementedError:
            print("Not done yet.")
            return None
        except Exception as error:  # whatever it is, the student shall read it in one line
            print(f"{type(error).__name__}: {error}")
            return None
    nearest = torch.cdist(actions, CORNERS).argmin(dim=1)
    best = (nearest == REWARDS.index(max(REWARDS))).float().mean().item()
    shares = {"best": best, "edge": measure(actions)["edge"]}
    for name, share in shares.items():
        print(f"{share:4.0%} of the actions are {MEASURES[name]} ({name})")
    return shares


def is_complete(prediction):
    return all(prediction.get(name) in WORDS for name in MEASURES)


def grade_training(trained):
    if trained is None:
        return Result(0, ["Not trained yet."])
    if trained["best"] < 0.6:
        return Result(0, ["Fewer than 60 % of the actions are nearest to the best corner."])
    return Result(1, [])


def grade_prediction(trained, prediction, broken):
    """The point is for two predictions that were put to the test, right or wrong."""
    if not is_complete(prediction):
        return Result(0, [TO_PREDICT])
    if trained is None or broken is None:
        return Result(0, ["Not put to the test yet."])
    hints = []
    for name, predicted in prediction.items():
        change = broken[name] - trained[name]
        came = "as many"
        if abs(change) >= 0.1:
            came = "more" if change > 0 else "fewer"
        verdict = "as predicted" if came == predicted else f"you predicted {predicted}: why?"
        hints.append(f"{name}: {trained[name]:.0%} became {broken[name]:.0%}, {came}; {verdict}")
    return Result(1, hints)
