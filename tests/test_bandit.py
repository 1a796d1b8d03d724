"""The 2-D bandit: its data, its measures where their values are known, and which method is best."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from diffusion_ql import DiffusionPolicy, DoubleCritic
from toy_experiments import bandit, cloning, guided
from toy_experiments.cloning import CVAE, ExactDenoiser, Gaussian, exact_policy, mmd
from toy_experiments.guided import (
    AWR,
    BEAR,
    GuidedDiffusion,
    LastStepDiffusion,
    WeightedDiffusion,
    act,
    own_networks,
)
from toy_experiments.training import clone, learn, train

SCRIPTS = Path(__file__).resolve().parents[1] / "toy_experiments"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def run_script(name, *options):
    """Runs a script of toy_experiments with these options."""
    command = [sys.executable, SCRIPTS / f"{name}.py", *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_moments_of_the_data():
    data = bandit.make_data(40_000, seed=1)
    for corner, reward in zip(bandit.CORNERS, bandit.REWARDS, strict=True):
        mine = (torch.sign(data.action) == torch.sign(corner)).all(dim=1)
        assert mine.sum() == 10_000
        action = data.action[mine]
        torch.testing.assert_close(action.mean(0), corner, atol=0.003, rtol=0)
        torch.testing.assert_close(action.std(0), torch.full((2,), 0.05), atol=0.002, rtol=0)
        assert data.reward[mine].mean() == pytest.approx(reward.item(), abs=0.02)
        assert data.reward[mine].std() == pytest.approx(0.5, abs=0.02)
    assert data.action.abs().max() <= 1
    assert not data.state.any()


def test_the_data_is_a_function_of_the_seed():
    action = bandit.make_data(seed=3).action
    assert torch.equal(action, bandit.make_data(seed=3).action)
    assert not torch.equal(action, bandit.make_data(seed=4).action)


def test_measures_of_the_data_itself():
    numbers = bandit.measure(bandit.make_data(8000, seed=1).action, bandit.make_data(seed=0))
    assert numbers["on_mode"] > 0.999
    assert numbers["smallest_corner"] == pytest.approx(0.25, abs=0.001)
    assert abs(numbers["energy_distance"]) < 0.003
    assert numbers["reward"] == pytest.approx(9.5 / 4, abs=0.01)
    assert numbers["edge"] < 0.001


def test_measures_of_known_distributions():
    data = bandit.make_data(seed=0)
    best = bandit.measure(torch.tensor([0.8, -0.8]) + torch.randn(2000, 2) * 0.05, data)
    assert best["best_corner"] > 0.99
    assert best["reward"] == pytest.approx(5, abs=0.02)
    assert best["smallest_corner"] == 0
    centre = bandit.measure(torch.zeros(2000, 2), data)
    assert centre["on_mode"] == 0
    assert centre["reward"] == 0
    assert bandit.measure(torch.tensor([[1.0, -1.0]] * 10), data)["edge"] == 1
    rim = bandit.measure(torch.tensor([[0.8, -0.601], [0.8, -0.599]]), data)
    assert rim["on_mode"] == 0.5  # the circle's radius is 0.2


def test_other_rewards():
    """Two corners that pay most count as one best corner."""
    rewards = torch.tensor([1.0, 4.0, 4.0, 0.0])
    data = bandit.make_data(seed=0, rewards=rewards)
    numbers = bandit.measure(data.action, data, rewards)
    assert numbers["best_corner"] == pytest.approx(0.5, abs=0.001)
    assert numbers["reward"] == pytest.approx(9 / 4, abs=0.01)
    assert data.reward.mean() == pytest.approx(9 / 4, abs=0.02)


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


def test_mmd_is_zero_for_equal_and_grows_with_distance():
    x = torch.randn(3, 10, 2)
    near = mmd(x, x + 0.5, 20.0)
    far = mmd(x, x + 2, 20.0)
    assert mmd(x, x, 20.0).max() < 2e-3
    assert (far > near).all()
    assert (near > 2e-3).all()


def test_the_exact_denoiser_is_the_expected_noise():
    """Against a Monte Carlo estimate: the mean noise of the noisy actions in a small box."""
    policy = DiffusionPolicy(2, 2, 5, 16)
    torch.manual_seed(0)
    clean = bandit.make_data(4_000_000).action
    noise = torch.randn(4_000_000, 2)
    t = torch.tensor([1])
    noisy = policy.q_sample(clean, t, noise)
    for point in torch.tensor([[0.3, -0.2], [-0.7, 0.1]]):
        inside = ((noisy - point).abs() < 0.03).all(dim=1)
        exact = ExactDenoiser(5)(point[None], t, None)[0]
        torch.testing.assert_close(exact, noise[inside].mean(0), atol=0.03, rtol=0)


def test_the_exact_denoiser_of_one_corner_knows_the_clean_action():
    """With one Gaussian, the expected noise is linear in the noisy action."""
    denoiser = ExactDenoiser(5, bandit.CORNERS[[3]])
    x = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.4, 0.0]])
    noise = denoiser(x, torch.tensor([2]), None)
    torch.testing.assert_close(noise[0] + noise[2], 2 * noise[1])


def test_few_steps_cannot_clone_the_corners_whatever_the_network():
    share = {}
    for n in (5, 50):
        share[n] = clone(partial(exact_policy, n), steps=0)[-1]["on_mode"]
    assert 0.4 < share[5] < 0.6
    assert share[50] > 0.99
    one_corner = clone(partial(exact_policy, 5, bandit.CORNERS[[3]]), steps=0)[-1]["on_mode"]
    two_corners = clone(partial(exact_policy, 5, bandit.CORNERS[[0, 3]]), steps=0)[-1]["on_mode"]
    assert one_corner > 0.99
    assert 0.75 < two_corners < 0.9


def test_gaussian_learns_mean_and_std():
    policy, _, _ = clone(Gaussian, steps=600)
    spread = policy.distribution(torch.zeros(1, 2))
    assert spread.mean.abs().max() < 0.15
    assert (spread.stddev - 0.8).abs().max() < 0.1


def test_awr_weighs_an_action_by_its_q():
    """Of two actions, one with Q higher by the temperature times log 3, its mean is 3 : 1."""

    def critic(state, action):
        q = 0.2 * torch.log(torch.tensor(3.0)) * (action[:, :1] > 0)
        return q, q + 1  # the lower one counts

    torch.manual_seed(0)
    policy = AWR(temperature=0.2)
    action = torch.tensor([[0.5, 0.0], [-0.5, 0.0]])
    batch = bandit.make_data(2)._replace(action=action, state=torch.zeros(2, 2))
    loss = policy.guided_loss(batch, critic)
    log_likelihood = policy.distribution(batch.state).log_prob(action).sum(dim=-1)
    expected = -(0.75 * log_likelihood[0] + 0.25 * log_likelihood[1])
    torch.testing.assert_close(loss, expected)


def test_weighted_diffusion_clones_by_the_same_weights():
    """Of two actions with weights 3 : 1, three quarters of those that it clones are the first."""

    def critic(state, action):
        q = 0.05 * torch.log(torch.tensor(3.0)) * (action[:, :1] > 0)
        return q, q

    torch.manual_seed(0)
    policy = WeightedDiffusion(temperature=0.05)
    cloned = []
    policy.loss = lambda action, state: cloned.append(action)
    action = torch.tensor([[0.5, 0.0], [-0.5, 0.0]]).repeat(2000, 1)
    policy.guided_loss(bandit.make_data(4000)._replace(action=action), critic)
    assert (cloned[0][:, 0] > 0).float().mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("policy_class", [GuidedDiffusion, LastStepDiffusion])
def test_qs_gradient_reaches_the_steps_that_it_should(policy_class):
    """With a network per step, it is seen which steps Q's gradient reaches."""
    policy = own_networks(policy_class, 3)
    policy.sample(torch.zeros(8, 2)).sum().backward()
    reached = []
    for network in policy.model.networks:
        gradients = [parameter.grad for parameter in network.parameters()]
        reached.append(any(gradient is not None and gradient.any() for gradient in gradients))
    assert reached == [True, policy_class is GuidedDiffusion, policy_class is GuidedDiffusion]


def test_a_network_per_step_gives_each_timestep_its_own():
    model = own_networks(GuidedDiffusion, 3).model
    x = torch.randn(4, 2)
    state = torch.zeros(4, 2)
    together = model(x, torch.tensor([0, 2, 1, 2]), state)
    for row, t in enumerate([0, 2, 1, 2]):
        alone = model(x[row : row + 1], torch.tensor([t]), state[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_acting_prefers_a_high_q():
    def critic(state, action):
        q = 3 * action[:, :1]
        return q, q

    class Uniform:
        def sample(self, state):
            return 2 * torch.rand(len(state), 2) - 1

    actions = act(Uniform(), critic, candidates=50, n=2000)
    # the expected largest of 50 uniform numbers in [-1, 1]; softmax of 3x: coth(3) - 1/3
    assert actions["best"][:, 0].mean() == pytest.approx(2 * 50 / 51 - 1, abs=0.01)
    assert actions["softmax"][:, 0].mean() == pytest.approx(1.0050 - 1 / 3, abs=0.04)


def test_cvae_clips_its_latent_when_sampling():
    policy = CVAE(latent_clip=0.0)
    assert policy.sample(torch.zeros(10, 2)).diff(dim=0).abs().max() < 1e-6


def test_bears_multiplier_rises_when_the_policy_strays():
    policy = BEAR()
    policy.threshold = -1.0  # always astray
    train(policy, bandit.make_data(), 20, DoubleCritic(2, 2, 16))
    assert policy.log_multiplier > 5.001


def test_bears_own_threshold_cannot_be_held():
    """Sets of ten samples of one distribution are further apart than 0.05."""
    x = torch.rand(100, 10, 2) * 2 - 1
    y = torch.rand(100, 10, 2) * 2 - 1
    assert mmd(x, y, 20.0).mean() > 0.05


def test_cloning_by_diffusion_is_the_most_on_mode():
    steps = {"Gaussian": 300, "CVAE": 1000, "MMD": 300, "diffusion": 1500}
    on_mode = {}
    for method, make_policy in cloning.METHODS.items():
        _, _, numbers = clone(make_policy, steps=steps[method])
        on_mode[method] = numbers["on_mode"]
    diffusion = on_mode.pop("diffusion")
    assert diffusion > 0.8
    assert max(on_mode.values()) < 0.4, on_mode


def test_with_reward_awr_and_diffusion_ql_earn_more_than_the_data():
    """The data earns 2.375. Diffusion-QL first overshoots to the edge of the square."""
    steps = {"TD3+BC": 300, "AWR": 300, "BCQ": 300, "BEAR": 150, "Diffusion-QL": 3500}
    reward = {}
    for method, make_policy in guided.METHODS.items():
        _, _, _, numbers = learn(make_policy, steps=steps[method])
        reward[method] = numbers["reward"]
        history = numbers["history"]
    assert reward.pop("Diffusion-QL") > 3  # the last one
    assert history[0]["edge"] > 0.5
    assert history[-1]["edge"] < 0.1
    assert reward.pop("AWR") > 4
    assert max(reward.values()) < 2.3, reward


@pytest.mark.parametrize(
    "script, methods",
    [
        ("behavior_cloning", ["Gaussian", "diffusion"]),
        ("q_learning", ["TD3+BC", "Diffusion-QL"]),
    ],
)
def test_the_scripts_write_figure_and_numbers(script, methods):
    options = ["--steps", "20", "--seeds", "2", "--n-timesteps", "5", "--out", "here"]
    options += ["--methods", *methods]
    done = run_script(script, *options)
    assert done.returncode == 0, done.stderr
    assert f"| {methods[1]} |" in done.stdout
    assert "±" in done.stdout
    numbers = json.loads(Path(f"here/{script}.json").read_text())
    assert list(numbers["results"]) == methods
    assert len(numbers["results"][methods[0]]) == 2
    assert numbers["steps"] == 20
    assert Path(f"here/{script}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", ["behavior_cloning", "q_learning"])
def test_an_unknown_method_is_an_error_without_traceback(script):
    bad = run_script(script, "--methods", "gaussian")
    assert bad.returncode == 2
    assert "invalid choice" in bad.stderr and "Traceback" not in bad.stderr


OTHERS = {  # options of the other experiments, and rows of their numbers
    "n_timesteps": (
        ["--n-timesteps", "2", "5"],
        ["exact denoiser, N = 2", "exact denoiser, N = 5"],
    ),
    "few_steps": (
        ["--n-timesteps", "2", "--methods", "last step"],
        ["two best corners: last step, N = 2", "one best corner: exact clone of the best, N = 2"],
    ),
    "expressiveness": (
        ["--top-left", "4.5", "--methods", "AWR", "weighted diffusion"],
        ["AWR, top left pays 4.5", "weighted diffusion, top left pays 4.5"],
    ),
    "cvae_settings": ([], ["KL weight 0.5, no clip", "KL weight 0.004, clip 0.5"]),
}


@pytest.mark.parametrize("script", OTHERS)
def test_the_other_experiments_write_figure_and_numbers(script):
    """Each with few steps; what is finished is found again."""
    chosen, expected = OTHERS[script]
    options = ["--steps", "10", "--seeds", "1", "--out", "here", *chosen]
    done = run_script(script, *options)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(Path(f"here/{script}.json").read_text())
    found = {**numbers["results"], **numbers.get("references", {})}
    assert set(expected) <= set(found)
    assert Path(f"here/{script}.png").read_bytes().startswith(b"\x89PNG")
    kept = len(list(Path("runs/toy_experiments").rglob("output.pkl")))
    again = run_script(script, *options)
    assert again.returncode == 0, again.stderr
    assert len(list(Path("runs/toy_experiments").rglob("output.pkl"))) == kept
