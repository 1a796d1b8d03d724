"""The solution of tutorials/homework.ipynb. Try the homework before you read on.

The functions have the names and arguments of the homework, so that it grades them, too:

    from tutorials.checks.homework import report
    from tutorials.solutions import homework

    print(report(homework.p_sample, homework.denoising_loss))
"""

import torch


def p_sample(policy, x, i, state):
    """Eq. 1, as the release computes it: x_i → x_{i-1}."""
    t = torch.full((1,), i)
    noise = policy.model(x, t, state)
    kept = policy.alphas_cumprod[i]
    x0 = (x - (1 - kept).sqrt() * noise) / kept.sqrt()
    x0 = x0.clamp(-1, 1)  # actions have bounds, and at high noise the guess is far outside
    mean = policy.posterior_mean_coef1[i] * x0 + policy.posterior_mean_coef2[i] * x
    if i == 0:
        return mean
    std = policy.posterior_variance[i].sqrt()
    return mean + std * torch.randn_like(x)


def denoising_loss(policy, action, state):
    """Eq. 2, L_d: the mean squared error of the predicted noise."""
    t = torch.randint(policy.n_timesteps, (len(action),))
    noise = torch.randn_like(action)
    kept = policy.alphas_cumprod[t, None]  # (B, 1): how much of the action's variance is left
    x = kept.sqrt() * action + (1 - kept).sqrt() * noise
    predicted = policy.model(x, t, state)
    return (predicted - noise).square().mean()


def policy_loss(agent, batch):
    """Eq. 3: L_d + eta L_q."""
    bc_loss = agent.actor.loss(batch.action, batch.state)
    action = agent.actor.sample(batch.state)  # with gradients through the chain
    coin = torch.rand(()) > 0.5

    q1, q2 = agent.critic(batch.state, action)
    if coin:
        climbed, other = q1, q2
    else:
        climbed, other = q2, q1
    scale = other.abs().mean().detach()  # a number, not something to make larger or smaller
    ql_loss = -climbed.mean() / scale
    return bc_loss + agent.args.eta * ql_loss


def critic_target(agent, batch):
    """Eq. 4: what both critics regress on."""
    with torch.no_grad():
        next_action = agent.ema_actor.sample(batch.next_state)
        q1, q2 = agent.critic_target(batch.next_state, next_action)
        next_q = torch.minimum(q1, q2)
        return batch.reward + agent.args.discount * batch.not_done * next_q


def max_q_target(agent, batch):
    """Eq. 4 with max-Q backup: each target critic takes its own best of 10 next actions."""
    with torch.no_grad():
        states = batch.next_state.repeat_interleave(10, dim=0)  # (10 B, state_dim)
        actions = agent.ema_actor.sample(states)
        q1, q2 = agent.critic_target(states, actions)  # (10 B, 1) each
        best1 = q1.view(-1, 10).amax(dim=1, keepdim=True)  # (B, 1)
        best2 = q2.view(-1, 10).amax(dim=1, keepdim=True)
        next_q = torch.minimum(best1, best2)
        return batch.reward + agent.args.discount * batch.not_done * next_q
