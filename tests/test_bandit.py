"""The 2-D bandit: its task, its measures where their values are known, and which method is best."""

import numpy as np
import pytest
import torch

from diffusion_ql import Args, DiffusionPolicy, DiffusionQL, evaluate, load_dataset
from forks import AWR, BCCVAE, BCDiffusion
from toy_experiments import bandit, pictures
from toy_experiments.bandit import ExactDenoiser, exact_policy
from toy_experiments.few_steps import LastStepOwnNetworks, NetworkPerStep, OwnNetworks


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def train(method, steps, **settings):
    """Measures of a method's samples after some steps on the bandit's data."""
    args = method.Args(env="bandit", steps=steps, **settings)
    data = bandit.make_data()
    agent = method(2, 2, args)
    for _ in range(steps):
        agent.update(data.sample(args.batch_size))
    with torch.no_grad():
        return bandit.measure(agent.actor.sample(torch.zeros(2000, 2)))


# ---- The task ------------------------------------------------------------------------------------
def test_the_task_is_the_data_and_an_environment_that_pays_the_same():
    for task, rewards in bandit.TASKS.items():
        dataset = load_dataset(task)
        made = bandit.make_data(rewards=rewards)
        for ours, theirs in zip(dataset.transitions, made, strict=True):
            torch.testing.assert_close(ours, theirs)

        class Corner:
            def act(self, states):
                return bandit.CORNERS[0].expand(len(states), 2)

        returns = evaluate(Corner(), dataset, 12)
        np.testing.assert_allclose(dataset.score(returns), rewards[0])  # a score is the reward


def test_moments_of_the_data():
    data = bandit.make_data(40_000, seed=1)
    for corner, reward in zip(bandit.CORNERS, bandit.REWARDS, strict=True):
        mine = (torch.sign(data.action) == torch.sign(corner)).all(dim=1)
        assert mine.sum() == 10_000
        action = data.action[mine]
        torch.testing.assert_close(action.mean(0), corner, atol=0.003, rtol=0)
        torch.testing.assert_close(action.std(0), torch.full((2,), 0.05), atol=0.002, rtol=0)
        assert data.reward[mine].mean() == pytest.approx(reward, abs=0.02)
        assert data.reward[mine].std() == pytest.approx(0.5, abs=0.02)
    assert data.action.abs().max() <= 1 and not data.state.any() and not data.not_done.any()
    assert torch.equal(data.action, bandit.make_data(40_000, seed=1).action)
    assert not torch.equal(data.action, bandit.make_data(40_000, seed=2).action)


def test_measures_of_the_data_itself():
    """With other rewards, two corners that pay most count as one best corner."""
    actions = bandit.make_data(8000, seed=1).action
    numbers = bandit.measure(actions, rewards=(1.0, 4.0, 4.0, 0.0))
    assert numbers["on_mode"] > 0.999 and numbers["edge"] < 0.001
    assert numbers["smallest_corner"] == pytest.approx(0.25, abs=0.001)
    assert abs(numbers["energy_distance"]) < 0.003
    assert numbers["best_corner"] == pytest.approx(0.5, abs=0.001)
    assert numbers["reward"] == pytest.approx(9 / 4, abs=0.01)


def test_measures_of_known_actions():
    rim = torch.tensor([[0.8, -0.601], [0.8, -0.599], [0.0, 0.0]])  # the circle's radius is 0.2
    assert bandit.reward_of(rim).tolist() == [5, 0, 0]
    best = bandit.measure(bandit.CORNERS[[3]].expand(50, 2))
    assert (best["best_corner"], best["smallest_corner"], best["reward"]) == (1, 0, 5)
    assert bandit.measure(torch.tensor([[1.0, -1.0]] * 10))["edge"] == 1


def test_energy_distance_of_two_normals():
    x = torch.randn(2000, 1)
    y = torch.randn(2000, 1) + 1
    # E|x - y| for a difference N(1, 2); E|x - x'| = 2 / sqrt(pi)
    density = torch.exp(torch.tensor(-0.25))
    between = 2 / torch.pi**0.5 * density + torch.erf(torch.tensor(0.5))
    expected = 2 * between - 4 / torch.pi**0.5
    assert bandit.squared_energy_distance(x, y) == pytest.approx(expected.item(), abs=0.08)
    same = bandit.squared_energy_distance(x, torch.randn(2000, 1))
    assert same == pytest.approx(0, abs=0.01)


def test_the_exact_denoiser_is_the_expected_noise():
    """Against a Monte Carlo estimate: the mean noise of the noisy actions in a small box."""
    policy = DiffusionPolicy(2, 2, 5, 16)
    torch.manual_seed(0)
    clean = bandit.make_data(1_000_000).action
    noise = torch.randn(1_000_000, 2)
    t = torch.tensor([1])
    noisy = policy.q_sample(clean, t, noise)
    for point in torch.tensor([[0.3, -0.2], [-0.7, 0.1]]):
        inside = ((noisy - point).abs() < 0.05).all(dim=1)
        exact = ExactDenoiser(5)(point[None], t, None)[0]
        torch.testing.assert_close(exact, noise[inside].mean(0), atol=0.03, rtol=0)


def on_mode(policy):
    return bandit.measure(policy.sample(torch.zeros(2000, 2)))["on_mode"]


def test_few_steps_cannot_clone_the_corners_whatever_the_network():
    assert 0.4 < on_mode(exact_policy(5)) < 0.6
    assert on_mode(exact_policy(50)) > 0.99
    assert on_mode(exact_policy(5, bandit.CORNERS[[3]])) > 0.99
    assert 0.75 < on_mode(exact_policy(5, bandit.CORNERS[[0, 3]])) < 0.9


# ---- Learning ------------------------------------------------------------------------------------
@pytest.mark.slow
def test_methods_learn():
    """The data earns 2.375."""
    assert train(BCDiffusion, 1500, n_timesteps=50)["on_mode"] > 0.8
    assert train(BCCVAE, 1000)["on_mode"] < 0.7
    assert train(AWR, 300)["reward"] > 4


@pytest.mark.slow
def test_diffusion_ql_overshoots_and_comes_back():
    args = Args(env="bandit", steps=3500)
    agent = DiffusionQL(2, 2, args)
    data = bandit.make_data()
    seen = {}
    for step in range(1, args.steps + 1):
        agent.update(data.sample(100))
        if step in (400, 3500):
            with torch.no_grad():
                seen[step] = bandit.measure(agent.actor.sample(torch.zeros(2000, 2)))
    assert seen[400]["edge"] > 0.5
    assert seen[3500]["edge"] < 0.1 and seen[3500]["reward"] > 3


# ---- The experiments' own forks ------------------------------------------------------------------
@pytest.mark.parametrize("method", [OwnNetworks, LastStepOwnNetworks])
def test_qs_gradient_reaches_the_steps_that_it_should(method):
    """With a network per step, it is seen which steps Q's gradient reaches."""
    policy = method(2, 2, Args(env="bandit", n_timesteps=3)).actor
    policy.sample(torch.zeros(8, 2)).sum().backward()
    reached = []
    for network in policy.model.networks:
        gradients = [parameter.grad for parameter in network.parameters()]
        reached.append(any(gradient is not None and gradient.any() for gradient in gradients))
    assert reached == [True, method is OwnNetworks, method is OwnNetworks]


def test_a_network_per_step_gives_each_timestep_its_own():
    model = NetworkPerStep(3, 2, 2, 16)
    x = torch.randn(4, 2)
    state = torch.zeros(4, 2)
    together = model(x, torch.tensor([0, 2, 1, 2]), state)
    for row, t in enumerate([0, 2, 1, 2]):
        alone = model(x[row : row + 1], torch.tensor([t]), state[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_rules_of_acting_prefer_a_high_q():
    class Uniform:
        def sample(self, state):
            return 2 * torch.rand(len(state), 2) - 1

    class Agent(DiffusionQL):
        def acting_policy(self):
            return Uniform()

    agent = Agent(2, 2, Args(env="bandit"))
    agent.critic_target.forward = lambda state, action: (3 * action[:, :1], 4 + action[:, :1])
    chosen = {rule: pictures.choose(agent, torch.zeros(2000, 2), rule) for rule in pictures.RULES}
    mean = {rule: actions[:, 0].mean() for rule, actions in chosen.items()}
    # the expected largest of 50 uniform numbers in [-1, 1]; softmax of 3x: coth(3) - 1/3
    assert mean["a sample"] == pytest.approx(0, abs=0.04)
    assert mean["softmax of 50"] == pytest.approx(1.0050 - 1 / 3, abs=0.04)
    assert mean["best of 50"] == pytest.approx(2 * 50 / 51 - 1, abs=0.01)
