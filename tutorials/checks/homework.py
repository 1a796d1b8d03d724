"""The checks of tutorials/homework.ipynb, its points, and its fifth task.

Each function is held against that of solutions/homework.py, which a test holds against
diffusion_ql.py; how is written in tutorials/grading.py. A recognised mistake costs a point. To
teach the grader another mistake, add it to its function: {hint: (right, wrong)}, where `wrong`
takes the place of `right` in the solution; or a list of such pairs.
"""

from typing import NamedTuple

import torch

from diffusion_ql import Args, Batch, DiffusionQL
from toy_experiments.bandit import CORNERS, REWARDS, make_data, measure
from tutorials.grading import blank, normal, uniform
from tutorials.solutions import homework

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


# ---- What the functions are tried on -------------------------------------------------------------
@torch.no_grad()
def agent():
    """A small agent whose networks all differ, and whose critics cross each other and 0."""
    args = Args(hidden_dim=16, n_timesteps=5, eta=0.7, discount=0.9, device="cpu")
    made = DiffusionQL(state_dim=3, action_dim=2, args=args)
    made.requires_grad_(True)  # also of the averages, so that a forgotten no_grad shows
    for parameter in made.parameters():
        parameter += 0.2 * torch.randn_like(parameter)

    some = batch()
    for critic in (made.critic, made.critic_target):
        q1, q2 = critic(some.state, some.action)
        critic.q1_model[-1].bias -= q1.mean()
        critic.q2_model[-1].bias -= q2.mean()
    return made


def learner():
    """The same, where only the policy learns: whether critics have gradients is left open."""
    made = agent()
    made.requires_grad_(False)
    made.actor.requires_grad_(True)
    return made


def policy():
    return agent().actor


def batch():
    """Transitions, some of them terminal."""
    return Batch(
        state=torch.randn(8, 3),
        action=torch.rand(8, 2) * 2 - 1,
        next_state=torch.randn(8, 3),
        reward=torch.randn(8, 1),
        not_done=torch.tensor([[1.0], [0.0]]).repeat(4, 1),
    )


def noisy():
    """Noisy actions, many of them out of bounds."""
    return 1.5 * torch.randn(8, 2)


def timestep():
    """The last one, the one before it and the first one: one for each of a check's three draws."""
    return (0, 1, 4)[torch.initial_seed()]


# ---- Typical mistakes ----------------------------------------------------------------------------
P_SAMPLE = {
    "The guess of the clean action is not clamped to [-1, 1].": ("x0.clamp(-1, 1)", "x0"),
    "Clamp the guess of the clean action to [-1, 1], not the mean: a noisy action has no bounds.": [
        ("x0.clamp(-1, 1)", "x0"),
        ("if i == 0:", "mean = mean.clamp(-1, 1)\n    if i == 0:"),
    ],
    "The network is told i + 1: timesteps run from 0 to N - 1 here.": (
        "torch.full((1,), i)",
        "torch.full((1,), i + 1)",
    ),
    "The variance is the posterior's here (the release); beta_i is the paper's eq. 1.": (
        "posterior_variance[i]",
        "betas[i]",
    ),
    "Multiply the noise by the standard deviation, the square root of the variance.": (
        "posterior_variance[i].sqrt()",
        "posterior_variance[i]",
    ),
    # The posterior's variance is 0 there, so this shows only with the variance of eq. 1.
    "Noise is added at the last step, i = 0.": ("if i == 0:", "if False:"),
    "The step without noise is i = 0, not i = 1.": ("if i == 0:", "if i == 1:"),
    "No noise is added.": ("std * torch.randn_like(x)", "0 * x"),
    "The two coefficients of the mean are swapped: the first one belongs to x0.": (
        "posterior_mean_coef1[i] * x0 + policy.posterior_mean_coef2[i] * x",
        "posterior_mean_coef2[i] * x0 + policy.posterior_mean_coef1[i] * x",
    ),
    "No gradient flows from the result to x: leave out detach and no_grad, L_q needs it.": (
        "t = torch.full",
        "x = x.detach(); t = torch.full",
    ),
    # Last, since it changes the pieces that others look for.
    "The index of the schedule is off by one: index i = 0 is the least noisy step.": (
        "[i]",
        "[i - 1]",
    ),
}
DENOISING_LOSS = {
    "alpha-bar is missing its square roots: it scales the variance, not the action.": (
        "kept.sqrt() * action + (1 - kept).sqrt() * noise",
        "kept * action + (1 - kept) * noise",
    ),
    "The factors of action and noise are swapped.": (
        "kept.sqrt() * action + (1 - kept).sqrt() * noise",
        "kept.sqrt() * noise + (1 - kept).sqrt() * action",
    ),
    "Use alpha-bar_i (all steps up to i), not alpha_i = 1 - beta_i (one step).": (
        "policy.alphas_cumprod[t, None]",
        "(1 - policy.betas[t, None])",
    ),
    "The network sees the clean action: hand it the noisy one.": (
        "policy.model(x,",
        "policy.model(action,",
    ),
    "The network is told t + 1: timesteps run from 0 to N - 1 here.": (
        "(x, t, state)",
        "(x, t + 1, state)",
    ),
    "The network predicts the noise, not the clean action.": (
        "predicted - noise",
        "predicted - action",
    ),
    "Take the mean over the action's dimensions, too (the release); the paper sums them.": (
        ".square().mean()",
        ".square().sum(dim=-1).mean()",
    ),
    "Take the mean, not the sum, or the loss grows with the batch.": (
        ".square().mean()",
        ".square().sum()",
    ),
    "The loss has no gradient: leave out detach and no_grad.": (
        "predicted = policy.model(x, t, state)",
        "predicted = policy.model(x, t, state).detach()",
    ),
}
POLICY_LOSS = {
    "The scale is not detached: the policy is also rewarded for a smaller |Q|.": (".detach()", ""),
    "The sign of L_q: a lower loss must mean a higher Q.": ("-climbed.mean()", "climbed.mean()"),
    "The scale comes from the other critic than the one that is climbed.": (
        "other.abs()",
        "climbed.abs()",
    ),
    "The scale is the mean of |Q|, not the absolute value of the mean.": (
        "other.abs().mean()",
        "other.mean().abs()",
    ),
    "The scale is over the policy's own actions (the release), not over the data's.": (
        "other.abs()",
        "agent.critic(batch.state, batch.action)[int(coin)].abs()",
    ),
    "The scale is a single number, the mean of |Q| over the batch, not one for each sample.": (
        "-climbed.mean() / scale",
        "-(climbed / other.abs().detach()).mean()",
    ),
    "Climb one critic, which the coin chooses, not the smaller of the two (as TD3 and SAC do).": (
        "if coin:",
        "q1 = q2 = torch.minimum(q1, q2)\n    if coin:",
    ),
    "Climb the critic that the coin chooses, not the smaller of the two; the scale is right.": (
        "-climbed.mean()",
        "-torch.minimum(q1, q2).mean()",
    ),
    "L_q is not divided by its scale.": (" / scale", ""),
    "eta is missing.": ("agent.args.eta * ql_loss", "ql_loss"),
    "eta weighs L_q, not L_d.": (
        "bc_loss + agent.args.eta * ql_loss",
        "agent.args.eta * bc_loss + ql_loss",
    ),
    "L_d is missing.": ("return bc_loss + ", "return "),
    "The coin is not used: it says which critic is climbed.": ("if coin:", "if True:"),
    "The coin is read the other way round: if it is True, Q1 is climbed.": (
        "if coin:",
        "if not coin:",
    ),
    "Climb the critics, not their targets.": ("agent.critic(", "agent.critic_target("),
    "The actions come from the policy that learns, not from the averaged one.": (
        "agent.actor.sample",
        "agent.ema_actor.sample",
    ),
    "No gradient flows from Q to the policy: sample without detach and no_grad.": (
        "agent.actor.sample(batch.state)",
        "agent.actor.sample(batch.state).detach()",
    ),
}
CRITIC_TARGET = {
    "not_done is forgotten: nothing follows a terminal state.": (" * batch.not_done", ""),
    "not_done is 0 at terminal states, and 1 elsewhere: multiply by it as it is.": (
        "* batch.not_done",
        "* (1 - batch.not_done)",
    ),
    "The discount is forgotten.": ("agent.args.discount * ", ""),
    "The next action comes from the averaged policy, agent.ema_actor.": (
        "agent.ema_actor",
        "agent.actor",
    ),
    "The values come from the target critics, agent.critic_target.": (
        "agent.critic_target",
        "agent.critic",
    ),
    "Take the smaller of the two critics, not the larger.": (
        "torch.minimum(q1, q2)",
        "torch.maximum(q1, q2)",
    ),
    "Take the smaller of the two critics, not their mean.": (
        "torch.minimum(q1, q2)",
        "(q1 + q2) / 2",
    ),
    "Take the smaller of the two critics, not the first alone.": ("torch.minimum(q1, q2)", "q1"),
    "Take the smaller of the two critics at each transition, not over the batch.": (
        "torch.minimum(q1, q2)",
        "torch.minimum(q1, q2).min()",
    ),
    "The target looks at the next state, batch.next_state.": ("batch.next_state", "batch.state"),
    "The target is a number, not something to learn: compute it under torch.no_grad().": (
        "torch.no_grad()",
        "torch.enable_grad()",
    ),
}
MAX_Q_TARGET = {
    "Each critic takes its own best of the 10 first; the smaller of the two comes after.": (
        "best1 =",
        "q1 = q2 = torch.minimum(q1, q2); best1 =",
    ),
    "Take the best of the 10, not their mean.": (
        "amax(dim=1, keepdim=True)",
        "mean(dim=1, keepdim=True)",
    ),
    "The 10 actions of a state are next to each other: view(-1, 10), not view(10, -1).": (
        "view(-1, 10).amax(dim=1, keepdim=True)",
        "view(10, -1).amax(dim=0)[:, None]",
    ),
    "not_done is forgotten: nothing follows a terminal state.": (" * batch.not_done", ""),
}


# ---- Checks --------------------------------------------------------------------------------------
p_sample = blank(policy, noisy, timestep, normal(8, 3), mistakes=P_SAMPLE, gradient=True)(
    homework.p_sample
)
denoising_loss = blank(policy, uniform(8, 2), normal(8, 3), mistakes=DENOISING_LOSS, gradient=True)(
    homework.denoising_loss
)
policy_loss = blank(learner, batch, mistakes=POLICY_LOSS, gradient=True)(homework.policy_loss)
critic_target = blank(agent, batch, mistakes=CRITIC_TARGET, gradient=True)(homework.critic_target)
max_q_target = blank(agent, batch, mistakes=MAX_Q_TARGET, gradient=True)(homework.max_q_target)
CHECKS = {
    check.solution.__name__: check
    for check in (p_sample, denoising_loss, policy_loss, critic_target, max_q_target)
}


# ---- Grades --------------------------------------------------------------------------------------
class Result(NamedTuple):
    points: int
    hints: list  # of texts; none if all is right


def grade(function):
    """The Result of one function of the homework, which its name tells."""
    name = function.__name__
    with torch.random.fork_rng(devices=[]):
        mark, hints = CHECKS[name].judge(function)
    if mark == "✓":
        return Result(POINTS[name], [])
    if hints[0] in CHECKS[name].mistakes:
        return Result(max(0, POINTS[name] - len(hints)), hints)
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
