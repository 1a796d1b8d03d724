"""The homework: blanks earn nothing, the solution everything, and mistakes cost what they should.

test_check.py has each single mistake, as a change to the solution. Here students write otherwise.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient

from diffusion_ql import DiffusionPolicy, DiffusionQL
from tutorials.checks.homework import CHECKS, grade, grade_prediction, report, train_on_bandit
from tutorials.solutions import homework

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs)


@pytest.mark.slow
def test_the_committed_notebook_has_blanks_and_reports_no_points():
    committed = nbformat.read(TUTORIALS / "homework.ipynb", 4)
    again = nbformat.read(TUTORIALS / "homework.ipynb", 4)
    where = {"metadata": {"path": TUTORIALS}}
    NotebookClient(again, timeout=300, kernel_name="python3", resources=where).execute()
    assert printed(again) == printed(committed)
    assert printed(again).endswith("Total: 0 of 12 points\n")


def test_the_solution_earns_all_points():
    solutions = [check.solution for check in CHECKS.values()]
    assert report(*solutions).endswith("Total: 11 of 10 points")  # with the bonus
    assert report(homework.p_sample, homework.policy_loss).endswith("Total: 5 of 5 points")


# ---- The solution and diffusion_ql.py ------------------------------------------------------------
def library_policy_loss(agent, batch):
    return agent.policy_loss(batch)[0]


def library_target(agent, batch, **settings):
    agent.args = replace(agent.args, **settings)
    agent.regress = lambda batch, target: target
    return agent.critic_loss(batch)


@pytest.mark.parametrize(
    "name, function",
    [
        ("p_sample", DiffusionPolicy.p_sample),
        ("denoising_loss", DiffusionPolicy.loss),
        ("policy_loss", library_policy_loss),
        ("critic_target", library_target),
        ("max_q_target", partial(library_target, max_q_backup=True)),
    ],
)
def test_the_solution_is_what_the_library_computes(name, function):
    assert CHECKS[name].judge(function) == ("✓", ["right."])


# ---- Students ------------------------------------------------------------------------------------
def graded(name, function):
    """The grade of a function under the name of one of the homework."""
    function.__name__ = name
    return grade(function)


def equation_1(policy, x, i, state):
    """Eq. 1 to the letter: no clamp, and the variance beta_i."""
    scale = policy.betas[i] / (1 - policy.alphas_cumprod[i]).sqrt()
    mean = x - scale * policy.model(x, torch.full((1,), i), state)
    mean = mean / (1 - policy.betas[i]).sqrt()
    return mean if i == 0 else mean + policy.betas[i].sqrt() * torch.randn_like(x)


def smaller_critic(agent, batch):
    bc_loss = agent.actor.loss(batch.action, batch.state)
    q = torch.min(*agent.critic(batch.state, agent.actor.sample(batch.state)))
    torch.rand(())
    return bc_loss - agent.args.eta * q.mean() / q.abs().mean().detach()


def no_coin_and_no_detach(agent, batch):
    bc_loss = agent.actor.loss(batch.action, batch.state)
    q1, q2 = agent.critic(batch.state, agent.actor.sample(batch.state))
    return bc_loss - agent.args.eta * q1.mean() / q2.abs().mean()


@torch.no_grad()
def wrong_networks(agent, batch):
    q1, q2 = agent.critic(batch.next_state, agent.actor.sample(batch.next_state))
    return batch.reward + agent.args.discount * batch.not_done * torch.min(q1, q2)


@pytest.mark.parametrize(
    "name, function, points, hints",
    [
        ("p_sample", equation_1, 1, ["not clamped", "eq. 1"]),
        ("policy_loss", smaller_critic, 1, ["TD3"]),
        ("policy_loss", no_coin_and_no_detach, 0, ["not detached", "coin"]),
        ("critic_target", wrong_networks, 1, ["averaged policy", "target critics"]),
        ("critic_target", lambda agent, batch: batch.reward, 0, ["one number is"]),
        ("critic_target", lambda agent, batch: agent.critik, 0, ["AttributeError"]),
    ],
)
def test_mistakes_in_a_students_own_words(name, function, points, hints):
    result = graded(name, function)
    assert result.points == points
    for hint, said in zip(hints, result.hints, strict=True):
        assert hint in said


def test_right_functions_may_be_written_otherwise():
    """Noise at the last step harms nothing where its variance is 0; frozen critics neither."""

    def step(policy, x, i, state):
        std = policy.posterior_variance[i].sqrt()
        return policy.p_sample(x, i, state) + (std * torch.randn_like(x) if i == 0 else 0)

    def loss(agent, batch):
        agent.critic.requires_grad_(False)
        return library_policy_loss(agent, batch)

    assert graded("p_sample", step) == (3, [])
    assert graded("policy_loss", loss) == (2, [])


# ---- Task 5 --------------------------------------------------------------------------------------
class MyPolicy(DiffusionPolicy):
    p_sample = homework.p_sample
    loss = homework.denoising_loss


class MyQL(DiffusionQL):
    def make_policy(self, state_dim, action_dim):
        return MyPolicy(state_dim, action_dim, self.args.n_timesteps, self.args.hidden_dim)

    def critic_loss(self, batch):
        target = homework.critic_target(self, batch)
        q1, q2 = self.critic(batch.state, batch.action)
        return F.mse_loss(q1, target) + F.mse_loss(q2, target), {}

    def policy_loss(self, batch):
        return homework.policy_loss(self, batch), {}


class WrongSign(MyQL):
    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        return 2 * bc_loss - homework.policy_loss(self, batch), {}


@pytest.mark.slow
def test_the_solution_learns_the_bandit_and_a_prediction_is_put_to_the_test():
    trained = train_on_bandit(MyQL)
    assert trained["best"] > 0.7
    prediction = {"best": "fewer", "edge": "more"}
    broken = train_on_bandit(WrongSign, prediction)
    assert broken["best"] < trained["best"] - 0.1 and broken["edge"] > trained["edge"] + 0.1
    said = report(homework.p_sample, bandit=(trained, prediction, broken))
    assert said.endswith("Total: 5 of 5 points") and said.count("as predicted") == 2


def test_what_keeps_task_5_from_its_points(capsys):
    assert train_on_bandit(MyQL, {"best": "more", "edge": "?"}) is None  # no prediction

    class Typo(MyQL):
        def policy_loss(self, batch):
            return self.actr.loss(batch.action, batch.state), {}

    assert train_on_bandit(Typo) is None and "actr" in capsys.readouterr().out
    trained = {"best": 0.95, "edge": 0.6}
    complete = {"best": "more", "edge": "as many"}
    assert grade_prediction(trained, complete, None).points == 0
    points, said = grade_prediction(trained, complete, {"best": 0.2, "edge": 0.69})
    assert points == 1  # also for a wrong one, which is told
    assert ["as predicted" in line for line in said] == [False, True]
    assert "training: 0 of 1" in report(bandit=({**trained, "best": 0.5}, complete, None))
