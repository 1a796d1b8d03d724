"""How fast an update is, beside a plain transcription of the release's and its matrix products.

    python toy_experiments/benchmark.py               # walker2d's sizes, in some minutes
    python toy_experiments/benchmark.py --no-compile  # without the row that has to compile first
    python toy_experiments/benchmark.py --n-timesteps 50   # other sizes

The data is random: speed does not depend on it. All rows are timed in turn, round after round, so
that another program's load falls on all of them; a figure is the median of the rounds. Two threads
on two cores that others use, too, can be slower than one.
"""

import copy
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from diffusion_ql import (
    Args,
    Batch,
    DiffusionQL,
    SinusoidalEmbedding,
    compile_losses,
    vp_schedule,
)


@dataclass
class Options:
    """Times an update of diffusion_ql.py."""

    state_dim: int = 17  # walker2d's
    action_dim: int = 6  # walker2d's
    hidden_dim: int = 256
    n_timesteps: int = 5  # N
    batch_size: int = 256
    rounds: int = 9  # rounds of 20 updates
    threads: int = torch.get_num_threads()
    compile: bool = True  # also time compiled losses


def release_mlp(inputs, outputs, width):
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.Mish(),
        nn.Linear(width, width),
        nn.Mish(),
        nn.Linear(width, width),
        nn.Mish(),
        nn.Linear(width, outputs),
    )


class Release:
    """An update as the authors' release computes it, kept plain.

    nn.Mish, a time embedding per row, noise also where it is multiplied by 0, gradients for the
    critics in the policy's step, averages parameter by parameter, metrics read at each step.
    """

    def __init__(self, state_dim, action_dim, args):
        self.args = args
        self.step = 0
        self.action_dim = action_dim
        width = args.hidden_dim
        embed = nn.Sequential(
            SinusoidalEmbedding(), nn.Linear(16, 32), nn.Mish(), nn.Linear(32, 16)
        )
        policy = release_mlp(state_dim + action_dim + 16, action_dim, width)
        self.actor = nn.ModuleList([embed, policy])
        q1 = release_mlp(state_dim + action_dim, 1, width)
        q2 = release_mlp(state_dim + action_dim, 1, width)
        self.critic = nn.ModuleList([q1, q2])
        self.ema_actor = copy.deepcopy(self.actor)
        self.critic_target = copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), args.lr)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), args.critic_lr)
        self.schedule = vp_schedule(args.n_timesteps)

    def coefficient(self, name, t):
        return self.schedule[name].gather(-1, t)[:, None]  # (B, 1)

    def denoise(self, actor, x, t, state):
        return actor[1](torch.cat([x, actor[0](t), state], 1))

    def sample(self, actor, state):
        x = torch.randn(len(state), self.action_dim)
        for i in reversed(range(self.args.n_timesteps)):
            t = torch.full((len(state),), i)
            epsilon = self.denoise(actor, x, t, state)
            x0 = self.coefficient("sqrt_recip_alphas_cumprod", t) * x
            x0 = x0 - self.coefficient("sqrt_recipm1_alphas_cumprod", t) * epsilon
            mean = self.coefficient("posterior_mean_coef1", t) * x0.clamp(-1, 1)
            mean = mean + self.coefficient("posterior_mean_coef2", t) * x
            std = (0.5 * self.coefficient("posterior_log_variance_clipped", t)).exp()
            x = mean + (t != 0).float()[:, None] * std * torch.randn_like(x)
        return x.clamp(-1, 1)

    def q(self, critic, state, action):
        x = torch.cat([state, action], 1)
        return critic[0](x), critic[1](x)

    def descend(self, loss, network, optimizer):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), self.args.grad_norm)
        optimizer.step()

    def update(self, batch):
        q1, q2 = self.q(self.critic, batch.state, batch.action)
        next_action = self.sample(self.ema_actor, batch.next_state)
        next_q = torch.minimum(*self.q(self.critic_target, batch.next_state, next_action))
        target = (batch.reward + batch.not_done * self.args.discount * next_q).detach()
        critic_loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        self.descend(critic_loss, self.critic, self.critic_optimizer)

        t = torch.randint(self.args.n_timesteps, (len(batch.state),))
        noise = torch.randn_like(batch.action)
        x = self.coefficient("sqrt_alphas_cumprod", t) * batch.action
        x = x + self.coefficient("sqrt_one_minus_alphas_cumprod", t) * noise
        bc_loss = F.mse_loss(self.denoise(self.actor, x, t, batch.state), noise)
        q1, q2 = self.q(self.critic, batch.state, self.sample(self.actor, batch.state))
        if np.random.uniform() > 0.5:
            ql_loss = -q1.mean() / q2.abs().mean().detach()
        else:
            ql_loss = -q2.mean() / q1.abs().mean().detach()
        loss = bc_loss + self.args.eta * ql_loss
        self.descend(loss, self.actor, self.actor_optimizer)

        if self.step % self.args.ema_every == 0 and self.step >= self.args.ema_start:
            self.average(self.ema_actor, self.actor, self.args.ema_decay)
        self.average(self.critic_target, self.critic, 1 - self.args.tau)
        self.step += 1
        return [value.item() for value in (critic_loss, bc_loss, ql_loss, loss)]

    def average(self, average, network, decay):
        for old, new in zip(average.parameters(), network.parameters(), strict=True):
            old.data.copy_(decay * old.data + (1 - decay) * new.data)


def matrix_products(state_dim, action_dim, args):
    """A function that does an update's matrix products, forward and backward, and nothing else."""
    n = args.n_timesteps
    b = args.batch_size
    h = args.hidden_dim
    # (input width, output width, passes forward, backward for weights, backward for inputs)
    denoiser = (state_dim + action_dim + 16, action_dim, 2 * n + 1, n + 1, n + 1)
    critics = (state_dim + action_dim, 1, 6, 2, 3)
    work = []
    for inputs, outputs, forward, for_weights, for_inputs in (denoiser, critics):
        for k, m in ((inputs, h), (h, h), (h, h), (h, outputs)):
            matrices = torch.randn(b, k), torch.randn(k, m), torch.randn(b, m)
            work.append((matrices, forward, for_weights, for_inputs))

    def run():
        for (x, w, g), forward, for_weights, for_inputs in work:
            for _ in range(forward):
                x @ w
            for _ in range(for_weights):
                x.T @ g
            for _ in range(for_inputs):
                g @ w.T

    return run


def in_turns(rows, rounds, times=20):
    """Calls each function `times` in turn; {name: [calls per second, of each round]}."""
    rates = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, function in rows.items():
            begin = time.perf_counter()
            for _ in range(times):
                function()
            if number > 0:  # the first round warms up
                rates[name].append(times / (time.perf_counter() - begin))
    return rates


def print_table(title, rates, last_column=""):
    first = statistics.median(next(iter(rates.values())))
    print(f"\n| {title} | per second | slowest to fastest round | {last_column} |")
    print("|---|---|---|---|")
    for name, values in rates.items():
        median = statistics.median(values)
        ratio = f"{median / first:.2f}" if last_column else ""
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {name} | {median:.1f} | {spread} | {ratio} |")


def random_data(options, transitions=100_000):
    widths = (options.state_dim, options.action_dim, options.state_dim, 1, 1)
    return Batch(*[torch.rand(transitions, width) * 2 - 1 for width in widths])


def updates(options):
    args = Args(
        hidden_dim=options.hidden_dim,
        n_timesteps=options.n_timesteps,
        batch_size=options.batch_size,
        ema_start=0,  # or no average would be timed: the rows make fewer than 1000 steps
        compile="default",
        device="cpu",
    )
    sizes = (options.state_dim, options.action_dim)
    data = random_data(options)
    release = Release(*sizes, args)
    plain = DiffusionQL(*sizes, args)
    rows = {
        "the release's update, transcribed": lambda: release.update(data.sample(args.batch_size)),
        "diffusion_ql.py": lambda: plain.update(data.sample(args.batch_size)),
    }
    if options.compile:
        compiled = DiffusionQL(*sizes, args)
        begin = time.time()
        compile_losses(compiled)
        compiled.update(data.sample(args.batch_size))
        print(f"Compiling took {time.time() - begin:.0f} seconds.")
        rows["diffusion_ql.py, compiled"] = lambda: compiled.update(data.sample(args.batch_size))
    rows["an update's matrix products alone"] = matrix_products(*sizes, args)
    print_table("updates", in_turns(rows, options.rounds), "times the release")
    return plain


def evaluations(agent, options, episodes=10):
    """One step of an evaluation in Walker2d: the policy's part, and the simulator's."""
    gym.logger.min_level = gym.logger.ERROR
    simulators = gym.vector.SyncVectorEnv([lambda: gym.make("Walker2d-v5")] * episodes)
    simulators.reset(seed=0)
    states = torch.rand(episodes, 17)
    actions = np.zeros((episodes, 6), np.float32)
    rows = {
        "acting in 10 episodes, 50 candidates each": lambda: agent.act(states),
        "10 simulators, in turn": lambda: simulators.step(actions),
    }
    print_table("steps of an evaluation", in_turns(rows, options.rounds))


def main():
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    machine = f"{platform.machine()} CPU, {options.threads} threads, PyTorch {torch.__version__}"
    sizes = f"state {options.state_dim}, action {options.action_dim}, width {options.hidden_dim}"
    print(f"{machine}; {sizes}, batch {options.batch_size}, N = {options.n_timesteps}")
    agent = updates(options)
    if (options.state_dim, options.action_dim) == (17, 6):
        evaluations(agent, options)


if __name__ == "__main__":
    main()
