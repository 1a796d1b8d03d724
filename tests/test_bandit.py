"""The 2-D bandit: its data, its measures where their values are known, and which method is best."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_ql import DiffusionPolicy, DoubleCritic
from toy_experiments import bandit
from toy_experiments.cloning import CVAE, ExactDenoiser, mmd
from toy_experiments.guided import BEAR, METHODS
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
    assert numbers["imbalance"] < 0.001
    assert abs(numbers["energy_distance"]) < 0.003
    assert numbers["reward"] == pytest.approx(9.5 / 4, abs=0.01)
    assert numbers["edge"] < 0.001


def test_measures_of_known_distributions():
    data = bandit.make_data(seed=0)
    best = bandit.measure(torch.tensor([0.8, -0.8]) + torch.randn(2000, 2) * 0.05, data)
    assert best["best_corner"] > 0.99
    assert best["reward"] == pytest.approx(5, abs=0.02)
    assert best["imbalance"] == pytest.approx(0.75, abs=0.01)
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


def test_few_steps_cannot_clone_the_corners_whatever_the_network():
    share = {}
    for n in (5, 50):
        policy = DiffusionPolicy(2, 2, n)
        policy.model = ExactDenoiser(n)
        share[n] = bandit.measure(bandit.sample(policy), bandit.make_data())["on_mode"]
    assert 0.4 < share[5] < 0.6
    assert share[50] > 0.99


def test_gaussian_learns_mean_and_std():
    policy, _, _ = clone("Gaussian", steps=600)
    spread = policy.distribution(torch.zeros(1, 2))
    assert spread.mean.abs().max() < 0.15
    assert (spread.stddev - 0.8).abs().max() < 0.1


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
    steps = {"Gaussian": 500, "CVAE": 1000, "MMD": 500, "diffusion": 1500}
    on_mode = {}
    for method in steps:
        _, _, numbers = clone(method, steps=steps[method])
        on_mode[method] = numbers["on_mode"]
    diffusion = on_mode.pop("diffusion")
    assert diffusion > 0.8
    assert max(on_mode.values()) < 0.4, on_mode


def test_diffusion_ql_earns_the_most():
    """The others are settled soon; Diffusion-QL first overshoots to the edge of the square."""
    steps = {"TD3+BC": 600, "BCQ": 600, "BEAR": 300, "Diffusion-QL": 6000}
    reward = {}
    for method in METHODS:
        _, _, _, numbers = learn(method, steps=steps[method])
        reward[method] = numbers["reward"]
        history = numbers["history"]
    diffusion_ql = reward.pop("Diffusion-QL")  # the last one
    assert diffusion_ql > 3
    assert max(reward.values()) < 2, reward
    assert history[0]["edge"] > 0.5
    assert history[-1]["edge"] < 0.1


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
    assert Path(f"here/{script}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("script", ["behavior_cloning", "q_learning"])
def test_an_unknown_method_is_an_error_of_one_line(script):
    bad = run_script(script, "--methods", "gaussian")
    assert bad.returncode == 2
    assert "invalid choice" in bad.stderr
    assert len(bad.stderr.splitlines()) == 1  # so no traceback


def test_figure_3_shows_every_n():
    done = run_script("n_timesteps", "--steps", "10", "--out", "here", "--n-timesteps", "2", "3")
    assert done.returncode == 0, done.stderr
    results = json.loads(Path("here/n_timesteps.json").read_text())["results"]
    assert list(results) == [
        "exact denoiser, N = 2",
        "exact denoiser, N = 3",
        "diffusion, N = 2",
        "diffusion, N = 3",
        "Diffusion-QL, N = 2",
        "Diffusion-QL, N = 3",
    ]
