"""How fast one update is, against a plain transcription of the release's and against its matrix products alone.

    python tests/benchmark.py               # walker2d's sizes on this machine: Markdown tables, in some minutes
    python tests/benchmark.py --no-compile  # without the rows of compiled losses, which take half a minute to compile

The data is random, of the given sizes: speed does not depend on it. All rows are timed in turn, round after round, so that
another program's load falls on all of them; a row's figure is the median of the rounds.
"""

import argparse
import copy
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffusion_ql import (
    Args,
    Batch,
    Dataset,
    DiffusionQL,
    SinusoidalEmbedding,
    updates,
    vp_schedule,
)  # noqa: E402


class RandomData(Dataset):
    def __init__(self, state_dim, action_dim, device):
        self.transitions = Batch(
            *(
                torch.rand(100_000, width, device=device) * 2 - 1
                for width in (state_dim, action_dim, state_dim, 1, 1)
            )
        )


class Release:
    """One update as the authors' release computes it, kept plain: nn.Mish, a time embedding per row, noise also where it is
    multiplied by 0, gradients for the critics in the policy step, averages parameter by parameter, metrics read each step."""

    def __init__(self, state_dim, action_dim, args, device):
        mlp = lambda inputs, outputs: nn.Sequential(  # noqa: E731
            nn.Linear(inputs, args.hidden_dim),
            nn.Mish(),
            nn.Linear(args.hidden_dim, args.hidden_dim),
            nn.Mish(),
            nn.Linear(args.hidden_dim, args.hidden_dim),
            nn.Mish(),
            nn.Linear(args.hidden_dim, outputs),
        ).to(device)
        self.args, self.action_dim, self.device = args, action_dim, device
        self.embed = nn.Sequential(
            SinusoidalEmbedding(), nn.Linear(16, 32), nn.Mish(), nn.Linear(32, 16)
        ).to(device)
        self.actor = nn.ModuleList([self.embed, mlp(state_dim + action_dim + 16, action_dim)])
        self.critic = nn.ModuleList(
            [mlp(state_dim + action_dim, 1), mlp(state_dim + action_dim, 1)]
        )
        self.ema_actor, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_optimizer, self.critic_optimizer = (
            torch.optim.Adam(m.parameters(), 3e-4) for m in (self.actor, self.critic)
        )
        self.schedule = {
            name: values.to(device) for name, values in vp_schedule(args.n_timesteps).items()
        }

    def coefficient(self, name, timestep):
        return self.schedule[name].gather(-1, timestep)[:, None]  # (B, 1)

    def denoise(self, actor, x, timestep, state):
        return actor[1](torch.cat([x, actor[0](timestep), state], 1))

    def sample(self, actor, state):
        x = torch.randn(len(state), self.action_dim, device=self.device)
        for i in reversed(range(self.args.n_timesteps)):
            timestep = torch.full((len(state),), i, device=self.device)
            epsilon = self.denoise(actor, x, timestep, state)
            clean = (
                self.coefficient("sqrt_recip_alphas_cumprod", timestep) * x
                - self.coefficient("sqrt_recipm1_alphas_cumprod", timestep) * epsilon
            )
            mean = (
                self.coefficient("posterior_mean_coef1", timestep) * clean.clamp(-1, 1)
                + self.coefficient("posterior_mean_coef2", timestep) * x
            )
            spread = (0.5 * self.coefficient("posterior_log_variance_clipped", timestep)).exp()
            x = mean + (timestep != 0).float()[:, None] * spread * torch.randn_like(x)
        return x.clamp(-1, 1)

    def q(self, critic, state, action):
        x = torch.cat([state, action], 1)
        return critic[0](x), critic[1](x)

    def update(self, batch):
        q1, q2 = self.q(self.critic, batch.state, batch.action)
        with torch.no_grad():
            next_q = torch.minimum(
                *self.q(
                    self.critic_target,
                    batch.next_state,
                    self.sample(self.ema_actor, batch.next_state),
                )
            )
            target = batch.reward + batch.not_done * self.args.discount * next_q
        critic_loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        nn.utils.clip_grad_norm_(self.critic.parameters(), 5.0)
        self.critic_optimizer.step()
        timestep, noise = (
            torch.randint(self.args.n_timesteps, (len(batch.state),), device=self.device),
            torch.randn_like(batch.action),
        )
        noisy = (
            self.coefficient("sqrt_alphas_cumprod", timestep) * batch.action
            + self.coefficient("sqrt_one_minus_alphas_cumprod", timestep) * noise
        )
        bc_loss = F.mse_loss(self.denoise(self.actor, noisy, timestep, batch.state), noise)
        q1, q2 = self.q(self.critic, batch.state, self.sample(self.actor, batch.state))
        up, scale = (q1, q2) if np.random.uniform() > 0.5 else (q2, q1)
        ql_loss = -up.mean() / scale.abs().mean().detach()
        loss = bc_loss + ql_loss
        self.actor_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), 5.0)
        self.actor_optimizer.step()
        for target, network in ((self.ema_actor, self.actor), (self.critic_target, self.critic)):
            for average, parameter in zip(target.parameters(), network.parameters()):
                average.data.copy_(0.995 * average.data + 0.005 * parameter.data)
        return [value.item() for value in (critic_loss, bc_loss, ql_loss, loss)]


def matrix_products(state_dim, action_dim, args, device):
    """A function that does an update's matrix products, forward and backward, and nothing else."""
    n, b, h = args.n_timesteps, args.batch_size, args.hidden_dim
    work = []
    for inputs, outputs, forward, with_weights, input_only in (
        (
            state_dim + action_dim + 16,
            action_dim,
            2 * n + 1,
            n + 1,
            0,
        ),  # denoiser: averaged policy, chain, L_d
        (state_dim + action_dim, 1, 6, 2, 1),
    ):  # critics: two targets, two regressions, L_q's numerator and denominator
        for k, m in ((inputs, h), (h, h), (h, h), (h, outputs)):
            x, w, g = (torch.randn(shape, device=device) for shape in ((b, k), (k, m), (b, m)))
            work.append((x, w, g, forward, with_weights, input_only))

    def run():
        for x, w, g, forward, with_weights, input_only in work:
            for _ in range(forward):
                x @ w
            for _ in range(with_weights):
                x.T @ g
            for _ in range(with_weights + input_only):
                g @ w.T

    return run


def in_turns(rows, rounds, wait):
    """Rates of the functions in {name: (function, count)}, each doing `count` things: {name: [things per second, of each round]}."""
    rates = {name: [] for name in rows}
    for round_number in range(rounds + 1):  # the first warms up
        for name, (function, count) in rows.items():
            wait()
            begin = time.perf_counter()
            for _ in range(max(1, 20 // count)):
                function()
            wait()
            if round_number:
                rates[name].append(count * max(1, 20 // count) / (time.perf_counter() - begin))
    return rates


def table(title, rates, last_column=None):
    first = statistics.median(next(iter(rates.values())))
    print(
        f"\n| {title} | per second | slowest to fastest round |{f' {last_column} |' if last_column else ''}\n|---|---|---|{'---|' if last_column else ''}"
    )
    for name, values in rates.items():
        median = statistics.median(values)
        print(
            f"| {name} | {median:.1f} | {min(values):.1f} to {max(values):.1f} |"
            + (f" {median / first:.2f} |" if last_column else "")
        )


def evaluation_rows(agent, episodes=10):
    """One step of an evaluation in Walker2d: the policy's part, and the simulator's, in this process and in ten others."""
    import gymnasium as gym

    gym.logger.min_level = gym.logger.ERROR
    make = [lambda: gym.make("Walker2d-v5")] * episodes
    vectors = {
        "10 simulators, in turn": gym.vector.SyncVectorEnv(make),
        "10 simulators, a process each": gym.vector.AsyncVectorEnv(make),
    }
    states, actions = (
        torch.rand(episodes, 17, device=agent.device),
        np.zeros((episodes, 6), np.float32),
    )
    rows = {"acting in 10 episodes, 50 candidates each": (lambda: agent.act(states).cpu(), 1)}
    for name, vector in vectors.items():
        vector.reset(seed=0)
        rows[name] = (lambda vector=vector: vector.step(actions), 1)
    return rows, vectors.values()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state-dim", type=int, default=17, help="default: 17, walker2d's")
    parser.add_argument("--action-dim", type=int, default=6, help="default: 6, walker2d's")
    parser.add_argument("--hidden-dim", type=int, default=256, help="default: 256")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of 20 updates (default: 9)")
    parser.add_argument(
        "--seeds", type=int, default=5, help="seeds in the rows of several (default: 5)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="CPU threads (default: PyTorch's)",
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also time compiled losses (default)",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    sizes, args = (options.state_dim, options.action_dim), Args(hidden_dim=options.hidden_dim)
    data, release = RandomData(*sizes, device), Release(*sizes, args, device)

    def learning(seeds, **how):
        agents = [DiffusionQL(*sizes, args, device) for _ in range(seeds)]
        for seed, agent in enumerate(agents):
            agent.random = torch.Generator(device).manual_seed(seed)
        begin, steps = time.perf_counter(), updates(agents, data, **how)
        for _ in range(4):  # compiles and records
            next(steps)
        wait()
        print(
            f"{seeds} seed{'s' * (seeds > 1)}, {' and '.join(how) or 'plain'}: ready after {time.perf_counter() - begin:.0f} s",
            file=sys.stderr,
        )
        return lambda: next(steps), seeds

    ways = {"": {}}
    if options.compile:
        ways[", compiled"] = {"compiled": True}
    if device == "cuda":
        ways |= {f"{name}, a CUDA graph": {**how, "recorded": True} for name, how in ways.items()}
    rows = {
        "the release's update, transcribed": (
            lambda: release.update(data.sample(args.batch_size)),
            1,
        )
    }
    for seeds in (1, options.seeds):
        rows |= {
            f"diffusion_ql.py, {seeds} seed{'s' * (seeds > 1)}{name}": learning(seeds, **how)
            for name, how in ways.items()
        }
    rows["an update's matrix products alone"] = matrix_products(*sizes, args, device), 1
    rates = in_turns(rows, options.rounds, wait)
    name = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()} CPU, {options.threads} threads"
    )
    memory = (
        torch.cuda.max_memory_allocated() / 2**20
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    print(
        f"{name}, PyTorch {torch.__version__}; state {sizes[0]}, action {sizes[1]}, width {args.hidden_dim}, batch {args.batch_size}, "
        f"N = {args.n_timesteps}; peak memory {memory:.0f} MiB"
    )
    table("updates (of one seed)", rates, "times the release")
    if sizes == (17, 6):
        rows, vectors = evaluation_rows(DiffusionQL(*sizes, args, device))
        table("steps of an evaluation", in_turns(rows, options.rounds, wait))
        for vector in vectors:
            vector.close()


if __name__ == "__main__":
    main()
