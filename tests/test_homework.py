"""The homework: its blanks earn nothing, its solution everything, and mistakes are told apart."""

from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient

from diffusion_ql import DiffusionPolicy, DiffusionQL
from tutorials.grading import (
    ASK,
    BONUS,
    LIBRARY,
    POINTS,
    differences,
    grade,
    grade_prediction,
    report,
    train_on_bandit,
    with_mistakes,
)
from tutorials.mistakes import MISTAKES
from tutorials.solutions import homework

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
SOLUTIONS = {name: getattr(homework, name) for name in ASK}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    return ["".join(output.text for output in cell.outputs) for cell in code_cells(notebook)]


def test_the_committed_notebook_has_blanks_and_reports_no_points():
    committed = nbformat.read(TUTORIALS / "homework.ipynb", 4)
    assert max(len(cell.source.splitlines()) for cell in code_cells(committed)) <= 25
    blanks = [cell for cell in code_cells(committed) if "raise NotImplementedError" in cell.source]
    assert len(blanks) == len(ASK) + 1  # and the line that task 5 breaks

    again = nbformat.read(TUTORIALS / "homework.ipynb", 4)
    where = {"metadata": {"path": TUTORIALS}}
    NotebookClient(again, timeout=300, kernel_name="python3", resources=where).execute()
    assert printed(again) == printed(committed)
    assert printed(again)[-1].endswith("Total: 0 of 12 points\n")


def test_the_solution_earns_all_points():
    assert sum(points for name, points in POINTS.items() if name != BONUS) == 12
    assert report(*SOLUTIONS.values()).endswith("Total: 11 of 10 points")
    assert report(homework.p_sample, homework.policy_loss).endswith("Total: 5 of 5 points")


@pytest.mark.parametrize("name", ASK)
def test_the_library_is_its_own_measure(name):
    assert not differences(ASK[name](LIBRARY[name]), ASK[name](SOLUTIONS[name]))


# Noise at the last step changes nothing as long as its variance is the posterior's, which is 0.
UNSEEN = "Noise is added at the last step, i = 0."


@pytest.mark.parametrize(
    "name, hint", [(name, hint) for name in MISTAKES for hint in MISTAKES[name] if hint != UNSEEN]
)
def test_each_typical_mistake_costs_a_point_and_is_told_from_all_others(name, hint):
    mistaken = with_mistakes(SOLUTIONS[name], [MISTAKES[name][hint]])
    assert grade(mistaken) == (POINTS[name] - 1, [hint])


# ---- Students: functions written otherwise than the solution -------------------------------------
def hints(name, function):
    """What the grader says of a function under the name of one of the homework."""
    function.__name__ = name
    return grade(function)


def test_the_equation_of_the_paper_is_told_from_the_releases():
    def step(policy, x, i, state):
        """Eq. 1 to the letter: no clamp, and the variance beta_i."""
        alpha = 1 - policy.betas[i]
        scale = policy.betas[i] / (1 - policy.alphas_cumprod[i]).sqrt()
        noise = policy.model(x, torch.full((1,), i), state)
        mean = (x - scale * noise) / alpha.sqrt()
        if i == 0:
            return mean
        return mean + policy.betas[i].sqrt() * torch.randn_like(x)

    points, said = hints("p_sample", step)
    assert points == 1
    assert "not clamped" in said[0] and "eq. 1" in said[1]


def p_sample(policy, x, i, state, variance, last=True):
    """The homework's, with the methods of the library."""
    t = torch.full((1,), i)
    x0 = policy.predict_start_from_noise(x, t, policy.model(x, t, state)).clamp(-1, 1)
    mean = policy.posterior_mean_coef1[i] * x0 + policy.posterior_mean_coef2[i] * x
    if i == 0 and not last:
        return mean
    return mean + variance[i].sqrt() * torch.randn_like(x)


def test_noise_at_the_last_step_shows_with_the_papers_variance():
    def noisy(policy, x, i, state):
        return p_sample(policy, x, i, state, policy.betas)

    points, said = hints("p_sample", noisy)
    assert points == 1
    assert "eq. 1" in said[0] and "last step" in said[1]

    def harmless(policy, x, i, state):
        return p_sample(policy, x, i, state, policy.posterior_variance)

    assert hints("p_sample", harmless) == (3, [])


def test_an_index_beyond_the_schedule_is_explained():
    def step(policy, x, i, state):
        return policy.alphas_cumprod[i + 1] * x

    points, said = hints("p_sample", step)
    assert points == 0 and "Index i = 0 is the paper's i = 1" in said[0]


def test_a_loss_without_a_root_and_with_a_sum_is_recognised():
    def loss(policy, action, state):
        t = torch.randint(policy.n_timesteps, (len(action),))
        noise = torch.randn_like(action)
        level = policy.alphas_cumprod[t].unsqueeze(-1)
        x = level * action + (1 - level) * noise
        errors = (policy.model(x, t, state) - noise) ** 2
        return errors.sum(1).mean()

    points, said = hints("denoising_loss", loss)
    assert points == 0
    assert "square roots" in said[0] and "dimensions" in said[1]


def test_the_smaller_critic_a_scale_per_sample_and_a_clamped_mean_cost_one_point_each():
    """As a student writes them, who knows TD3, divides first, or clamps last."""

    def smaller(agent, batch):
        bc_loss = agent.actor.loss(batch.action, batch.state)
        q = torch.min(*agent.critic(batch.state, agent.actor.sample(batch.state)))
        torch.rand(())
        return bc_loss - agent.args.eta * q.mean() / q.abs().mean().detach()

    points, said = hints("policy_loss", smaller)
    assert points == 1 and len(said) == 1 and "TD3 and SAC" in said[0]

    def per_sample(agent, batch):
        bc_loss = agent.actor.loss(batch.action, batch.state)
        qs = agent.critic(batch.state, agent.actor.sample(batch.state))
        coin = int(torch.rand(()) > 0.5)
        return bc_loss - agent.args.eta * (qs[1 - coin] / qs[coin].abs().detach()).mean()

    points, said = hints("policy_loss", per_sample)
    assert points == 1 and len(said) == 1 and "not one for each sample" in said[0]

    def clamped(policy, x, i, state):
        t = torch.full((1,), i)
        x0 = policy.predict_start_from_noise(x, t, policy.model(x, t, state))
        mean = policy.posterior_mean_coef1[i] * x0 + policy.posterior_mean_coef2[i] * x
        mean = mean.clamp(-1, 1)
        return mean + policy.posterior_variance[i].sqrt() * torch.randn_like(x)

    points, said = hints("p_sample", clamped)
    assert points == 2 and len(said) == 1 and "not the mean" in said[0]


def test_a_missing_detach_and_a_missing_coin_are_recognised():
    def loss(agent, batch):
        bc_loss = agent.actor.loss(batch.action, batch.state)
        q1, q2 = agent.critic(batch.state, agent.actor.sample(batch.state))
        return bc_loss - agent.args.eta * q1.mean() / q2.abs().mean()

    points, said = hints("policy_loss", loss)
    assert points == 0
    assert "not detached" in said[0] and "coin" in said[1]


def test_a_target_with_the_wrong_networks_or_without_terminals_is_recognised():
    @torch.no_grad()
    def target(agent, batch):
        q1, q2 = agent.critic(batch.next_state, agent.actor.sample(batch.next_state))
        return batch.reward + agent.args.discount * batch.not_done * torch.min(q1, q2)

    points, said = hints("critic_target", target)
    assert points == 1
    assert "averaged policy" in said[0] and "target critics" in said[1]

    def endless(agent, batch):
        q = agent.critic_target(batch.next_state, agent.ema_actor.sample(batch.next_state))
        return batch.reward + agent.args.discount * torch.min(*q).detach()

    points, said = hints("critic_target", endless)
    assert points == 2 and said == ["not_done is forgotten: nothing follows a terminal state."]


def test_what_is_no_typical_mistake_is_located():
    def doubled_at_the_end(policy, x, i, state):
        if i == 0:
            return 2 * homework.p_sample(policy, x, i, state)
        return homework.p_sample(policy, x, i, state)

    points, said = hints("p_sample", doubled_at_the_end)
    assert points == 0
    assert said[0].endswith(": i = 0, the gradient at i = 0.") and "i = 4" in said[1]


@pytest.mark.parametrize(
    "answer, said",
    [
        (None, "return a tensor, not a NoneType"),
        (torch.zeros(8), "the result has shape (8,), it should have (8, 1)"),
        (torch.full((8, 1), torch.nan), "the result holds NaN or infinity"),
    ],
)
def test_what_is_no_answer_is_explained(answer, said):
    def target(agent, batch):
        return answer

    points, found = hints("critic_target", target)
    assert points == 0 and said in found[0]


def test_an_error_is_reported_and_the_random_state_is_left_alone():
    def broken(policy, action, state):
        return F.mse_loss(policy.modell(action), action)

    before = torch.get_rng_state()
    points, said = hints("denoising_loss", broken)
    assert points == 0 and "modell" in said[0]
    assert torch.equal(before, torch.get_rng_state())


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


def test_the_solution_learns_the_bandit_and_a_prediction_is_put_to_the_test():
    trained = train_on_bandit(MyQL)
    assert trained["best_corner"] >= 0.8
    prediction = {"on_mode": "more", "best_corner": "fewer"}
    broken = train_on_bandit(WrongSign, prediction)
    said = report(homework.p_sample, bandit=(trained, prediction, broken))
    assert "training: 1 of 1" in said and said.endswith("Total: 5 of 5 points")
    assert "best_corner" in said and "fewer; as predicted" in said


def test_what_keeps_task_5_from_its_points_is_said(capsys):
    trained = {"on_mode": 1.0, "best_corner": 0.95}
    assert train_on_bandit(MyQL, {"on_mode": "more", "best_corner": "?"}) is None
    assert "First predict" in capsys.readouterr().out

    class Blank(MyQL):
        def policy_loss(self, batch):
            raise NotImplementedError

    class Typo(MyQL):
        def policy_loss(self, batch):
            return self.actr.loss(batch.action, batch.state), {}

    assert train_on_bandit(Blank) is None and train_on_bandit(Typo) is None
    out = capsys.readouterr().out
    assert "Not done yet" in out and "AttributeError" in out and "actr" in out
    complete = {"on_mode": "as many", "best_corner": "more"}
    assert grade_prediction(trained, complete, None).points == 0
    points, said = grade_prediction(trained, complete, {"on_mode": 0.91, "best_corner": 0.2})
    assert points == 1 and "as many; as predicted" in said[0]
    assert said[1] == "best_corner: 95% became 20%, fewer; you predicted more: why?"
    assert "training: 0 of 1" in report(bandit=({**trained, "best_corner": 0.7}, complete, None))
