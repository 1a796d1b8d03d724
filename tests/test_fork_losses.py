"""The losses of forks.py against a second writing of each formula: values and gradients.

A check of values alone would pass a loss whose graph is cut, such as EDP with its guess detached.
"""

import math

import pytest
import torch
import torch.nn.functional as F

import forks
from diffusion_ql import Batch, DiffusionPolicy
from toy_experiments.bandit import make_data
from tutorials.run_folder import loss_of_one_gaussian


def make(name, **settings):
    """A small agent and a batch, by the same random numbers each time."""
    torch.manual_seed(1)
    method = forks.METHODS[name]
    agent = method(3, 2, method.Args(hidden_dim=8, **settings))
    widths = (3, 2, 3, 1, 1)
    state, action, next_state, reward, not_done = [torch.randn(6, width) for width in widths]
    return agent, Batch(state, action.tanh(), next_state, reward, (not_done > 0).float())


def assert_same(agent, batch, kind, formula):
    """The loss of this kind has the value and the gradients of the formula."""
    results = []
    for function in (getattr(agent, f"{kind}_loss"), lambda batch: (formula(agent, batch), None)):
        agent.zero_grad()
        torch.manual_seed(2)  # both draw the same noise, in the same order
        loss = function(batch)[0]
        loss.backward()
        grads = {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}
        results.append((loss, {name: grad.clone() for name, grad in grads.items()}))
    (ours, our_grads), (theirs, their_grads) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert our_grads.keys() == their_grads.keys() and our_grads
    for name in our_grads:
        torch.testing.assert_close(our_grads[name], their_grads[name], rtol=1e-4, atol=1e-6)


def climbed(q1, q2):
    """Minus Q over the other critic's mean |Q|, which critic by a coin, as in eq. 3."""
    first = torch.rand(()).item() > 0.5
    up, other = (q1, q2) if first else (q2, q1)
    return -up.mean() / other.detach().abs().mean()


def negative_log_likelihood(agent, batch):
    mean, log_std = agent.actor.network(batch.state).chunk(2, dim=-1)
    per_number = (
        ((batch.action - mean) / log_std.exp()) ** 2 / 2 + log_std + math.log(2 * math.pi) / 2
    )
    return per_number.sum(-1)  # (B,)


def gaussian_clone(agent, batch):
    return negative_log_likelihood(agent, batch).mean()


def mixture_clone(agent, batch):
    k = agent.args.components
    out = agent.actor.network(batch.state)
    logits = out[:, :k]
    mean = out[:, k : 3 * k].reshape(-1, k, 2)
    std = out[:, 3 * k :].reshape(-1, k, 2).clamp(-5, 2).exp()
    gap = (batch.action[:, None] - mean) / std
    log_density = (-(gap**2) / 2 - std.log() - math.log(2 * math.pi) / 2).sum(-1)
    return -(logits.log_softmax(-1) + log_density).logsumexp(-1).mean()


def cvae_clone(policy, batch):
    mean, log_std = policy.encoder(torch.cat([batch.state, batch.action], -1)).chunk(2, -1)
    variance = (2 * log_std).exp()
    latent = mean + log_std.exp() * torch.randn(mean.shape)
    decoded = policy.decoder(torch.cat([batch.state, latent], -1))
    kl = (variance + mean**2 - 1 - variance.log()) / 2
    return ((decoded - batch.action) ** 2).mean() + 0.5 * kl.mean()


def td3bc(agent, batch):
    action = agent.actor.network(batch.state)
    clone = ((action - batch.action) ** 2).mean()
    return clone + 2.5 * climbed(*agent.critic(batch.state, action))


def gaussian_ql(agent, batch):
    clone = gaussian_clone(agent, batch)
    mean, log_std = agent.actor.network(batch.state).chunk(2, dim=-1)
    action = (mean + log_std.exp() * torch.randn(mean.shape)).clamp(-1, 1)
    return clone + agent.args.eta * climbed(*agent.critic(batch.state, action))


def edp(agent, batch):
    t = torch.randint(agent.args.n_timesteps, (len(batch.action),))
    noise = torch.randn(batch.action.shape)
    signal = agent.actor.alphas_cumprod[t, None].sqrt()
    spread = (1 - agent.actor.alphas_cumprod[t, None]).sqrt()
    x = signal * batch.action + spread * noise
    predicted = agent.actor.model(x, t, batch.state)
    guess = ((x - spread * predicted) / signal).clamp(-1, 1)
    clone = ((predicted - noise) ** 2).mean()
    return clone + agent.args.eta * climbed(*agent.critic(batch.state, guess))


def fql(agent, batch):
    start = torch.randn(batch.action.shape)
    t = torch.rand(len(start), 1)
    middle = start + t * (batch.action - start)
    velocity = agent.actor.flow(torch.cat([middle, t, batch.state], -1))
    flow = ((velocity - (batch.action - start)) ** 2).mean()
    noise = torch.randn(batch.action.shape)
    jump = agent.actor.one_step(torch.cat([noise, batch.state], -1))
    x = noise.clone()
    with torch.no_grad():
        for k in range(10):
            now = torch.full((len(x), 1), k / 10)
            x += agent.actor.flow(torch.cat([x, now, batch.state], -1)) / 10
    q = sum(agent.critic(batch.state, jump.clamp(-1, 1))) / 2
    distill = ((jump - x.clamp(-1, 1)) ** 2).mean()
    return flow + agent.args.alpha * distill - q.mean() / q.detach().abs().mean()


def iql_critics(agent, batch):
    target_q = torch.stack(agent.critic_target(batch.state, batch.action)).min(0).values.detach()
    gap = target_q - agent.value(batch.state)
    expectile = torch.where(gap > 0, 0.7 * gap**2, 0.3 * gap**2).mean()
    target = batch.reward + 0.99 * batch.not_done * agent.value(batch.next_state).detach()
    q1, q2 = agent.critic(batch.state, batch.action)
    return expectile + ((q1 - target) ** 2).mean() + ((q2 - target) ** 2).mean()


def awr(agent, batch):
    with torch.no_grad():
        q = torch.stack(agent.critic(batch.state, batch.action)).min(0).values
        weight = ((q - agent.value(batch.state)) / 0.2).exp()[:, 0]
    return (weight / weight.sum() * negative_log_likelihood(agent, batch)).sum()


def bcq(agent, batch):
    policy = agent.actor
    clone = cvae_clone(policy, batch)
    latent = torch.randn(len(batch.state), policy.latent_dim).clamp(-0.5, 0.5)
    action = policy.decoder(torch.cat([batch.state, latent], -1)).detach()
    moved = action + 0.05 * policy.move(torch.cat([batch.state, action], -1))
    return clone - agent.critic(batch.state, moved.clamp(-1, 1))[0].mean()


def best_of_ten(agent, batch):
    states = batch.next_state.repeat_interleave(10, 0)
    with torch.no_grad():
        q = torch.stack(agent.critic_target(states, agent.ema_actor.sample(states)))
        mixed = 0.75 * q.min(0).values + 0.25 * q.max(0).values
        target = batch.reward + 0.99 * batch.not_done * mixed.reshape(6, 10).max(1).values[:, None]
    q1, q2 = agent.critic(batch.state, batch.action)
    return F.mse_loss(q1, target) + F.mse_loss(q2, target)


@pytest.mark.parametrize(
    "name, kind, formula",
    [
        ("BCGaussian", "policy", gaussian_clone),
        ("BCMixture", "policy", mixture_clone),
        ("BCCVAE", "policy", lambda agent, batch: cvae_clone(agent.actor, batch)),
        ("TD3BC", "policy", td3bc),
        ("GaussianQL", "policy", gaussian_ql),
        ("EDP", "policy", edp),
        ("FQL", "policy", fql),
        ("IDQL", "critic", iql_critics),
        ("AWR", "policy", awr),
        ("BCQ", "policy", bcq),
        ("BCQ", "critic", best_of_ten),
    ],
)
def test_a_loss_is_its_formula(name, kind, formula):
    agent, batch = make(name)
    agent.critic.requires_grad_(kind == "critic")
    assert_same(agent, batch, kind, formula)


def test_mmd_is_zero_for_equal_sets_and_grows_with_the_distance():
    agent, _ = make("BCMMD", sigma=1.0)
    x = torch.randn(4, 10, 2)
    kernel = agent.actor.kernel
    within = kernel(x, x)
    for shift, low, high in ((0.0, -1e-6, 1e-6), (0.5, 1e-3, 1), (3.0, 0.3, 2)):
        y = x + shift
        squared = within + kernel(y, y) - 2 * kernel(x, y)
        assert ((squared >= low) & (squared <= high)).all()


def test_bears_multiplier_grows_only_while_the_policy_strays():
    agent, batch = make("BEAR")
    for threshold, sign in ((0.0, -1), (9.0, 1)):  # descent: a negative gradient makes it grow
        agent.args.threshold = threshold
        agent.zero_grad()
        agent.policy_loss(batch)[0].backward()
        assert math.copysign(1, agent.log_multiplier.grad) == sign


def test_weighted_diffusion_clones_the_good_actions_alone():
    agent, batch = make("WeightedDiffusion", temperature=1e-3)
    q = torch.minimum(*agent.critic(batch.state, batch.action)) - agent.value(batch.state)
    best = q.argmax().item()
    weights = agent.weights(batch)
    assert weights.sum().item() == pytest.approx(1) and weights.argmax().item() == best


def test_the_loss_of_one_gaussian_is_that_of_the_best_line():
    policy, action = DiffusionPolicy(2, 2, n_timesteps=50), make_data().action
    noise = torch.randn(len(action), 50, 2)
    x = policy.q_sample(action[:, None], torch.arange(50), noise)
    slope = (x * noise).mean(dim=0) / x.square().mean(dim=0)
    loss = (noise - slope * x).square().mean()
    assert abs(loss_of_one_gaussian(policy, action) - loss) < 0.005
