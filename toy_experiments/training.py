"""Training on the bandit: one loop for all methods, `clone` without reward, `learn` with it."""

import torch
import torch.nn.functional as F

from diffusion_ql import DiffusionPolicy, DoubleCritic
from toy_experiments import cloning, guided
from toy_experiments.bandit import make_data, measure, sample

# Diffusion-QL overshoots to the edge of the square first, and takes its time to return.
STEPS = {"TD3+BC": 6000, "BCQ": 6000, "BEAR": 6000, "Diffusion-QL": 10_000}


def train(policy, data, steps, critic=None, lr=3e-3, batch_size=256, watch=10):
    """Trains a policy of cloning.py, or with a critic one of guided.py, and the critic with it.

    All networks learn with Adam; the learning rate falls from lr to 0 along a cosine. Returns a
    list of `watch` dicts, in the course of the training: the step, and the measures of 2,000
    samples.
    """
    optimizer = torch.optim.Adam(policy.parameters(), lr, fused=True)
    if critic is not None:
        optimizer.add_param_group({"params": critic.parameters()})
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def descend(loss, network):
        optimizer.zero_grad()
        loss.backward(inputs=list(network.parameters()))  # the other network stays as it is
        optimizer.step()

    history = []
    for step in range(1, steps + 1):
        batch = data.sample(batch_size)
        if critic is None:
            descend(policy.loss(batch.action, batch.state), policy)
        else:
            q1, q2 = critic(batch.state, batch.action)  # a bandit has no next state: r is all
            descend(F.mse_loss(q1, batch.reward) + F.mse_loss(q2, batch.reward), critic)
            descend(policy.guided_loss(batch, critic), policy)
        schedule.step()
        if step % max(1, steps // watch) == 0:
            history.append({"step": step, **measure(sample(policy), data)})
    return history


def clone(method, seed=2022, steps=6000, n_timesteps=50, **settings):
    """Clones the data by a method of cloning.METHODS. Returns (policy, samples, numbers).

    n_timesteps: N of the diffusion policy; settings: arguments of the other policies. samples
    (2000, 2); numbers: their measures, the number of steps, and the history of `train`.
    """
    torch.manual_seed(seed)
    data = make_data(seed=seed)
    if method == "diffusion":
        policy = DiffusionPolicy(2, 2, n_timesteps, hidden_dim=128)
    else:
        policy = cloning.METHODS[method](**settings)
    history = train(policy, data, steps)
    samples = sample(policy)
    numbers = {**measure(samples, data), "steps": steps, "history": history}
    return policy, samples, numbers


def learn(method, seed=2022, steps=None, n_timesteps=5):
    """Learns with reward by a method of guided.METHODS. Returns (policy, critic, samples, numbers).

    steps: those of STEPS if it is None or 0; the rest is as in `clone`. numbers also holds the
    reward and the best_corner of 2,000 actions of `act`, as acting_reward, acting_best_corner.
    """
    if not steps:
        steps = STEPS[method]
    torch.manual_seed(seed)
    data = make_data(seed=seed)
    critic = DoubleCritic(2, 2, hidden_dim=128)
    if method == "Diffusion-QL":
        policy = guided.GuidedDiffusion(2, 2, n_timesteps, hidden_dim=128)
    else:
        policy = guided.METHODS[method]()
    history = train(policy, data, steps, critic)
    samples = sample(policy)
    acting = measure(guided.act(policy, critic), data)
    numbers = {
        **measure(samples, data),
        "acting_reward": acting["reward"],
        "acting_best_corner": acting["best_corner"],
        "steps": steps,
        "history": history,
    }
    return policy, critic, samples, numbers
