"""Training on the bandit: one loop for all methods, `clone` without reward, `learn` with it."""

import torch
import torch.nn.functional as F

from diffusion_ql import DoubleCritic
from toy_experiments.bandit import REWARDS, make_data, measure, sample
from toy_experiments.guided import act


def train(policy, data, steps, critic=None, rewards=REWARDS, lr=1e-2, batch_size=100, watch=10):
    """Trains a policy of cloning.py, or with a critic one of guided.py, and the critic with it.

    rewards (4,): those of the data. All networks learn with Adam; the learning rate falls from lr
    to 0 along a cosine. Returns a list of `watch` dicts, in the course of the training: the step,
    and the measures of 2,000 samples.
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
            history.append({"step": step, **measure(sample(policy), data, rewards)})
    return history


def clone(make_policy, rewards=REWARDS, seed=2022, steps=5000):
    """Clones the data by make_policy(), one of cloning.py. Returns (policy, samples, numbers).

    rewards (4,): the mean reward of each corner, which the measures use. steps: 0 for a policy that
    has nothing to learn. samples (2000, 2); numbers: their measures, the number of steps, and the
    history of `train`.
    """
    rewards = torch.as_tensor(rewards)
    torch.manual_seed(seed)
    data = make_data(seed=seed, rewards=rewards)
    policy = make_policy()
    history = []
    if steps:
        history = train(policy, data, steps, rewards=rewards)
    samples = sample(policy)
    numbers = {**measure(samples, data, rewards), "steps": steps, "history": history}
    return policy, samples, numbers


def learn(make_policy, rewards=REWARDS, seed=2022, steps=5000):
    """Learns with reward by make_policy(), one of guided.py.

    Returns (policy, critic, samples, numbers), as in `clone`. numbers also holds, for
    each RULE of `act`, the "reward, RULE of 50" and "best_corner, RULE of 50" of 2,000 actions.
    """
    rewards = torch.as_tensor(rewards)
    torch.manual_seed(seed)
    data = make_data(seed=seed, rewards=rewards)
    critic = DoubleCritic(2, 2, hidden_dim=128)
    policy = make_policy()
    history = train(policy, data, steps, critic, rewards)
    samples = sample(policy)
    numbers = {**measure(samples, data, rewards), "steps": steps, "history": history}
    for rule, actions in act(policy, critic).items():
        acting = measure(actions, data, rewards)
        numbers[f"reward, {rule} of 50"] = acting["reward"]
        numbers[f"best_corner, {rule} of 50"] = acting["best_corner"]
    return policy, critic, samples, numbers
