"""The 2-D bandit: its data, its measures on distributions whose answer is known, and the order in which the methods come out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_ql import DiffusionPolicy, DoubleCritic
from toy_experiments import bandit
from toy_experiments.behavior_cloning import CVAE, ExactDenoiser, clone, mmd
from toy_experiments.q_learning import BEAR, METHODS, learn

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_moments_of_the_data():
    data = bandit.make_data(40_000, seed=1)
    for corner, reward in zip(bandit.CORNERS, bandit.REWARDS):
        mine = (torch.sign(data.action) == torch.sign(corner)).all(1)
        assert mine.sum() == 10_000
        torch.testing.assert_close(data.action[mine].mean(0), corner, atol=0.003, rtol=0)
        torch.testing.assert_close(
            data.action[mine].std(0), torch.full((2,), 0.05), atol=0.002, rtol=0
        )
        assert data.reward[mine].mean() == pytest.approx(reward.item(), abs=0.02) and data.reward[
            mine
        ].std() == pytest.approx(0.5, abs=0.02)
    assert data.action.abs().max() <= 1 and not data.state.any()
    assert torch.equal(bandit.make_data(seed=3).action, bandit.make_data(seed=3).action)
    assert not torch.equal(bandit.make_data(seed=3).action, bandit.make_data(seed=4).action)


def test_measures_of_known_distributions():
    data, other = bandit.make_data(seed=0), bandit.make_data(8000, seed=1).action
    numbers = bandit.measure(other, data)
    assert (
        numbers["on_mode"] > 0.999
        and numbers["imbalance"] < 0.001
        and abs(numbers["energy_distance"]) < 0.003
    )
    assert numbers["reward"] == pytest.approx(9.5 / 4, abs=0.01) and numbers["edge"] < 0.001
    best = bandit.measure(torch.tensor([0.8, -0.8]) + torch.randn(2000, 2) * 0.05, data)
    assert (
        best["best_corner"] > 0.99
        and best["reward"] == pytest.approx(5, abs=0.02)
        and best["imbalance"] == pytest.approx(0.75, abs=0.01)
    )
    centre = bandit.measure(torch.zeros(2000, 2), data)
    assert centre["on_mode"] == 0 == centre["reward"]
    assert bandit.measure(torch.tensor([[1.0, -1.0]] * 10), data)["edge"] == 1
    rim = bandit.measure(torch.tensor([[0.8, -0.601], [0.8, -0.599]]), data)
    assert rim["on_mode"] == 0.5  # the circle's radius is 0.2


def test_energy_distance_of_two_normals():
    x, y = torch.randn(2000, 1), torch.randn(2000, 1) + 1
    # E|x - y| for a difference N(1, 2); E|x - x'| = 2 / sqrt(pi)
    expected = (
        2 * (2 / torch.pi**0.5 * torch.exp(torch.tensor(-0.25)) + torch.erf(torch.tensor(0.5)))
        - 4 / torch.pi**0.5
    )
    assert bandit.energy_distance(x, y) == pytest.approx(expected.item(), abs=0.08)
    assert bandit.energy_distance(x, torch.randn(2000, 1)) == pytest.approx(0, abs=0.01)


def test_mmd_is_zero_for_equal_and_grows_with_distance():
    x = torch.randn(3, 10, 2)
    near, far = mmd(x, x + 0.5, 20.0), mmd(x, x + 2, 20.0)
    assert mmd(x, x, 20.0).max() < 2e-3 and (far > near).all() and (near > 2e-3).all()


def test_the_exact_denoiser_is_the_expected_noise():
    """Against a Monte Carlo estimate: the average noise among pairs whose noisy action falls into a small box."""
    torch.manual_seed(0)
    policy, clean, noise = (
        DiffusionPolicy(2, 2, 5, 16),
        bandit.make_data(4_000_000).action,
        torch.randn(4_000_000, 2),
    )
    noisy = policy.sqrt_alphas_cumprod[1] * clean + policy.sqrt_one_minus_alphas_cumprod[1] * noise
    for point in torch.tensor([[0.3, -0.2], [-0.7, 0.1]]):
        inside = ((noisy - point).abs() < 0.03).all(1)
        exact = ExactDenoiser(5)(point[None], torch.tensor([1]), None)[0]
        torch.testing.assert_close(exact, noise[inside].mean(0), atol=0.03, rtol=0)


def test_few_steps_cannot_clone_the_corners_whatever_the_network():
    share = {}
    for n in (5, 50):
        policy = DiffusionPolicy(2, 2, n)
        policy.model = ExactDenoiser(n)
        share[n] = bandit.measure(bandit.sample(policy), bandit.make_data())["on_mode"]
    assert 0.4 < share[5] < 0.6 and share[50] > 0.99


def test_gaussian_learns_mean_and_std():
    policy, samples, _ = clone("Gaussian", steps=600)
    spread = policy.distribution(torch.zeros(1, 2))
    assert spread.mean.abs().max() < 0.15 and (spread.stddev - 0.8).abs().max() < 0.1


def test_cvae_clips_its_latent_when_sampling():
    policy = CVAE(latent_clip=0.0)
    assert policy.sample(torch.zeros(10, 2)).diff(dim=0).abs().max() < 1e-6


def test_bears_multiplier_rises_when_the_policy_strays():
    policy, data = BEAR(), bandit.make_data()
    policy.threshold = -1.0  # always astray
    bandit.train(policy, data, 20, DoubleCritic(2, 2, 16))
    assert policy.log_multiplier > 5.001
    assert (
        mmd(torch.rand(100, 10, 2) * 2 - 1, torch.rand(100, 10, 2) * 2 - 1, 20.0).mean() > 0.05
    )  # so 0.05 cannot be held


def test_cloning_by_diffusion_is_the_most_on_mode():
    steps = {"Gaussian": 500, "CVAE": 1000, "MMD": 500, "diffusion": 1500}
    on_mode = {method: clone(method, steps=steps)[2]["on_mode"] for method, steps in steps.items()}
    assert (
        on_mode["diffusion"] > 0.8 > 0.4 > max(on_mode["Gaussian"], on_mode["CVAE"], on_mode["MMD"])
    ), on_mode


def test_diffusion_ql_earns_the_most():
    """The others are settled after a few hundred steps; Diffusion-QL first overshoots to the edge of the square."""
    steps = {"TD3+BC": 600, "BCQ": 600, "BEAR": 300, "Diffusion-QL": 6000}
    numbers = {method: learn(method, steps=steps[method])[3] for method in METHODS}
    reward = {method: measured["reward"] for method, measured in numbers.items()}
    assert (
        reward["Diffusion-QL"]
        > 3
        > 2
        > max(reward[method] for method in METHODS if method != "Diffusion-QL")
    ), reward
    history = numbers["Diffusion-QL"]["history"]
    assert history[0]["edge"] > 0.5 > 0.1 > history[-1]["edge"]


@pytest.mark.parametrize(
    "script, methods, name",
    [
        ("behavior_cloning", ["Gaussian", "diffusion"], "behavior_cloning"),
        ("q_learning", ["TD3+BC", "Diffusion-QL"], "q_learning"),
    ],
)
def test_the_scripts_write_figure_and_numbers(script, methods, name):
    command = [
        sys.executable,
        ROOT / f"toy_experiments/{script}.py",
        "--steps",
        "20",
        "--seeds",
        "2",
        "--out",
        "here",
        "--methods",
        *methods,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"| {methods[1]} |" in done.stdout and "±" in done.stdout
    numbers = json.loads(Path(f"here/{name}.json").read_text())
    assert (
        list(numbers["results"]) == methods
        and len(numbers["results"][methods[0]]) == 2
        and numbers["steps"] == 20
    )
    assert Path(f"here/{name}.png").read_bytes().startswith(b"\x89PNG") and Path(
        f"here/{name}.pdf"
    ).read_bytes().startswith(b"%PDF")
    bad = subprocess.run([*command[:2], "--methods", "gaussian"], capture_output=True, text=True)
    assert bad.returncode == 2 and "invalid choice" in bad.stderr and "Traceback" not in bad.stderr


def test_figure_3_shows_every_n():
    command = [
        sys.executable,
        ROOT / "toy_experiments/q_learning.py",
        "--steps",
        "10",
        "--out",
        "here",
        "--n-timesteps",
        "2",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(Path("here/n_timesteps.json").read_text())["results"]
    assert list(results) == [
        f"{method}, N = {n}"
        for method in ("exact denoiser", "diffusion", "Diffusion-QL")
        for n in (2, 3)
    ]
