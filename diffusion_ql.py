# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "torch>=2.4", "numpy>=1.26", "pandas>=2.0", "tyro>=1.0", "tqdm>=4.66", "filelock>=3.12",
#     "gymnasium[mujoco]>=1.2,<2", "gymnasium-robotics>=1.4,<2", "mujoco>=3.1,<3.11",
#     "minari[hdf5,hf]>=0.5.3,<0.6", "tensorboard>=2.16", "moviepy>=2.1",
# ]
# ///
"""Diffusion-QL (Wang, Hunt & Zhou, ICLR 2023, arXiv:2208.06193): offline RL by a diffusion policy.

python diffusion_ql.py                                  # two-roads: minutes, no download
python diffusion_ql.py --env walker2d-medium-expert     # Minari's dataset, in Gymnasium v5
python diffusion_ql.py --env walker2d-medium-expert-v2  # D4RL's dataset, the paper's, in v4
python diffusion_ql.py --resume RUN                     # go on where a run was stopped
python diffusion_ql.py --evaluate RUN --episodes 100    # score a saved agent on new episodes
"""

import copy
import importlib
import inspect
import json
import math
import pkgutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro
from filelock import FileLock
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

gym.logger.min_level = gym.logger.ERROR  # "Walker2d-v4 is out of date": so is D4RL's data


# ---- Settings ------------------------------------------------------------------------------------
@dataclass(kw_only=True)
class Args:
    """Settings. Those with a * have other defaults on some tasks: see TASKS."""

    env: str = ""  # data: a task of TASKS or any Minari dataset; the command line's is two-roads
    seed: int = 0  # random seed; on the CPU it fixes everything
    steps: int = 1_000_000  # gradient steps *
    eval_every: int = 0  # steps between evaluations (0: a tenth of the steps, at most 50000) *
    eval_episodes: int = 10  # episodes per evaluation *
    device: str = "cuda" if torch.cuda.is_available() else "cpu"  # where PyTorch trains
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"  # torch's mode *
    out: str = ""  # run folder (default: runs/<env>/<seed>-<time>)
    resume: str = ""  # run folder to continue; on the CPU, as if it had never stopped

    lr: float = 3e-4  # learning rate of the policy *
    critic_lr: float = 3e-4  # learning rate of the critics *
    lr_decay: bool = False  # lower both rates to 0 along a cosine over the run
    batch_size: int = 256  # transitions per gradient step
    hidden_dim: int = 256  # width of all networks *
    n_timesteps: int = 5  # N, denoising steps of the policy
    eta: float = 1.0  # weight of L_q in the policy's loss *
    discount: float = 0.99  # gamma *
    max_q_backup: bool = False  # back up the best of 10 next actions *
    reward_tune: Literal["no", "normalize", "cql_antmaze"] = "no"  # transform of the rewards *
    grad_norm: float = 5.0  # clip gradients to this norm (0: do not clip) *
    tau: float = 0.005  # share of the critics that their targets take up at every step *
    ema_decay: float = 0.995  # decay of the averaged policy, which acts in the critics' target *
    ema_every: int = 5  # steps between updates of that average
    ema_start: int = 1000  # step of its first update
    candidates: int = 50  # actions proposed when acting; one is drawn by softmax of Q
    act_with: Literal["policy", "average"] = "policy"  # which of the two proposes them
    top_k: int = 1  # offline selection: how many agents have a smaller L_d than the one it takes *

    def __new__(cls, **given):
        args = super().__new__(cls)
        args.given = given  # what was asked for, to tell it from what is a default
        return args

    def __post_init__(self):
        """What is not given comes from the run to resume, or from the task's row in TASKS."""
        defaults, _ = find_task(self.env)
        may_change = list(MAY_CHANGE)
        if self.resume:
            defaults = read_config(self.resume)["settings"]
            if defaults["lr_decay"]:
                may_change.remove("steps")  # its rate has fallen with them
        for name, value in defaults.items():
            if name not in self.given and name in vars(self):
                setattr(self, name, value)
            elif self.resume and name not in may_change and self.given.get(name, value) != value:
                raise ValueError(f"a run keeps its settings: {name} cannot change")
        for field in fields(Args):
            value = getattr(self, field.name)
            choices = get_args(field.type)
            if choices and value not in choices:
                raise ValueError(f"{field.name} {value!r}: give one of {choices}")
            if field.type is int and not isinstance(value, int):
                raise ValueError(f"{field.name} {value}: give a whole number")
            lowest = 0 if field.name in MAY_BE_ZERO else sys.float_info.min
            if field.type in (int, float) and not lowest <= value < math.inf:
                raise ValueError(f"{field.name} {value}: give a positive number")
            if field.name in ("discount", "tau", "ema_decay") and value > 1:
                raise ValueError(f"{field.name} {value}: give a number of at most 1")


MAY_CHANGE = "resume out device compile steps eval_every eval_episodes".split()  # when resumed
MAY_BE_ZERO = "seed eval_every eta discount grad_norm tau ema_decay ema_start top_k".split()


class Batch(NamedTuple):
    """Transitions, float32. Actions lie in [-1, 1]; not_done is 0 at terminal states."""

    state: torch.Tensor  # (B, state_dim)
    action: torch.Tensor  # (B, action_dim)
    next_state: torch.Tensor  # (B, state_dim)
    reward: torch.Tensor  # (B, 1)
    not_done: torch.Tensor  # (B, 1)

    def sample(self, batch_size):
        """Draws a Batch from these transitions, with replacement."""
        index = torch.randint(len(self.state), (batch_size,), device=self.state.device)
        return Batch(*[column[index] for column in self])


# ---- Diffusion: schedule, denoiser, policy -------------------------------------------------------
def vp_schedule(n_timesteps, b_min=0.1, b_max=10.0):
    """The variance-preserving schedule (section 4; names of the release), {name: tensor (N,)}.

    beta_i = 1 - exp(-b_min / N - (b_max - b_min) (2i - 1) / (2 N^2)) for i = 1 ... N. Index 0 is
    i = 1, the least noisy step.
    """
    i = torch.arange(1, n_timesteps + 1, dtype=torch.float64)
    growing = (b_max - b_min) * (2 * i - 1) / (2 * n_timesteps**2)
    betas = (1 - torch.exp(-b_min / n_timesteps - growing)).float()
    alphas = 1 - betas
    alphas_cumprod = alphas.cumprod(0)
    previous = torch.cat([torch.ones(1), alphas_cumprod[:-1]])
    posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
    return {  # some of them only so that the release's checkpoints load
        "betas": betas,
        "alphas_cumprod": alphas_cumprod,
        "sqrt_alphas_cumprod": alphas_cumprod.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - alphas_cumprod).sqrt(),
        "sqrt_recip_alphas_cumprod": (1 / alphas_cumprod).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / alphas_cumprod - 1).sqrt(),
        "posterior_variance": posterior_variance,
        "posterior_log_variance_clipped": posterior_variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * previous.sqrt() / (1 - alphas_cumprod),
        "posterior_mean_coef2": (1 - previous) * alphas.sqrt() / (1 - alphas_cumprod),
    }


class Mish(nn.Module):
    """x tanh(softplus(x)): nn.Mish, but about twice as fast when it is compiled.

    tanh(y) = 1 - 2 / (e^(2y) + 1), and e^(2 softplus(x)) = (1 + e^x)^2 = 1 / sigmoid(-x)^2.
    """

    def forward(self, x):
        p = (-x).sigmoid().square()
        return x - 2 * x * p / (p + 1)


def mlp(*widths):
    """Linear layers of these widths, each followed by Mish."""
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), Mish()]
    return nn.Sequential(*layers)


class SinusoidalEmbedding(nn.Module):
    """Timesteps (B,) → sines and cosines of 8 frequencies (B, 16)."""

    def forward(self, t):
        frequencies = 10_000 ** (-torch.arange(8.0, device=t.device) / 7)
        angles = t[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Denoiser(nn.Module):
    """Predicts the noise in a noisy action (appendix; names of the layers: the release)."""

    def __init__(self, state_dim, action_dim, hidden_dim=256):
        super().__init__()
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(), nn.Linear(16, 32), Mish(), nn.Linear(32, 16)
        )
        self.mid_layer = mlp(action_dim + 16 + state_dim, hidden_dim, hidden_dim, hidden_dim)
        self.final_layer = nn.Linear(hidden_dim, action_dim)

    def forward(self, x, t, state):
        """x (B, action_dim), t (B,) or (1,), state (B, state_dim) → noise (B, action_dim)."""
        embedding = self.time_mlp(t).expand(len(x), -1)
        return self.final_layer(self.mid_layer(torch.cat([x, embedding, state], dim=-1)))


class DiffusionPolicy(nn.Module):
    """pi(a | s): a DDPM over actions in [-1, 1] (section 3)."""

    def __init__(self, state_dim, action_dim, n_timesteps=5, hidden_dim=256):
        super().__init__()
        self.action_dim = action_dim
        self.n_timesteps = n_timesteps
        self.model = Denoiser(state_dim, action_dim, hidden_dim)
        for name, values in vp_schedule(n_timesteps).items():
            self.register_buffer(name, values)

    def q_sample(self, x0, t, noise):
        """Adds noise: clean actions x0 (B, action_dim) → x_t, for timesteps t (B,) in 0..N-1."""
        scaled = self.sqrt_alphas_cumprod[t, None] * x0
        return scaled + self.sqrt_one_minus_alphas_cumprod[t, None] * noise

    def predict_start_from_noise(self, x, t, noise):
        """q_sample, solved for x0."""
        scaled = self.sqrt_recip_alphas_cumprod[t, None] * x
        return scaled - self.sqrt_recipm1_alphas_cumprod[t, None] * noise

    def loss(self, action, state):
        """L_d (eq. 2): how well the noise in noisy actions is predicted, at random timesteps."""
        t = torch.randint(self.n_timesteps, (len(action),), device=action.device)
        noise = torch.randn_like(action)
        x = self.q_sample(action, t, noise)
        return F.mse_loss(self.model(x, t, state), noise)

    def p_sample(self, x, i, state):
        """One denoising step (eq. 1): from x_i+1 to a sample of x_i; i = 0 is the last."""
        t = torch.full((1,), i, device=x.device)
        x0 = self.predict_start_from_noise(x, t, self.model(x, t, state)).clamp(-1, 1)
        mean = self.posterior_mean_coef1[i] * x0 + self.posterior_mean_coef2[i] * x
        if i == 0:
            return mean  # the last step adds no noise
        std = (0.5 * self.posterior_log_variance_clipped[i]).exp()
        return mean + std * torch.randn_like(x)

    def sample(self, state):
        """Actions (B, action_dim) for states (B, state_dim), with gradients through the chain."""
        x = torch.randn(len(state), self.action_dim, device=state.device)
        for i in reversed(range(self.n_timesteps)):
            x = self.p_sample(x, i, state)
        return x.clamp(-1, 1)


# ---- Critics -------------------------------------------------------------------------------------
class DoubleCritic(nn.Module):
    """Two independent Q-functions: state (B, state_dim), action (B, action_dim) → (B, 1) each."""

    def __init__(self, state_dim, action_dim, hidden_dim=256):
        super().__init__()
        widths = [state_dim + action_dim, hidden_dim, hidden_dim, hidden_dim]
        self.q1_model = mlp(*widths).append(nn.Linear(hidden_dim, 1))
        self.q2_model = mlp(*widths).append(nn.Linear(hidden_dim, 1))

    def forward(self, state, action):
        x = torch.cat([state, action], dim=-1)
        return self.q1_model(x), self.q2_model(x)


# ---- Agent: Algorithm 1 --------------------------------------------------------------------------
class DiffusionQL(nn.Module):
    """The networks, their optimizers, and `update`, which is a step of Algorithm 1.

    It follows the authors' code where that differs from the paper; tutorials/README.md lists where.
    A fork is a subclass that overrides what it changes: a network (make_policy, make_critic), a
    loss, `update` or `act`. Its options are fields of a dataclass that inherits from Args. More
    than two critics concern regress, q_loss and propose; other states, update and act. Statistics
    of the data belong in buffers made by __init__: `prepare` fills them, and a saved agent holds
    them.
    """

    Args = Args  # the class of its settings; a fork names its own here

    def __init__(self, state_dim, action_dim, args):
        super().__init__()
        self.args = args
        self.step = 0  # updates made so far
        self.actor = self.make_policy(state_dim, action_dim)
        self.critic = self.make_critic(state_dim, action_dim)
        self.ema_actor = copy.deepcopy(self.actor).requires_grad_(False)  # the averaged policy
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), args.lr, fused=True)
        critic_parameters = self.critic.parameters()
        self.critic_optimizer = torch.optim.Adam(critic_parameters, args.critic_lr, fused=True)

    def make_policy(self, state_dim, action_dim):
        """A module with loss(action, state) → L_d and sample(state) → action."""
        return DiffusionPolicy(state_dim, action_dim, self.args.n_timesteps, self.args.hidden_dim)

    def make_critic(self, state_dim, action_dim):
        return DoubleCritic(state_dim, action_dim, self.args.hidden_dim)

    def prepare(self, data):
        """Called before training with all transitions, for a fork that needs their statistics.

        It is not called for an agent that was loaded.
        """

    def update(self, batch):
        """One step of Algorithm 1. Returns metrics, {name: scalar tensor}."""
        # --- Critics: regress on r + gamma min Q'(s', a'), a' from the averaged policy (eq. 4) ---
        loss, critic_metrics = self.critic_loss(batch)
        self.descend(loss, self.critic_optimizer)

        # --- Policy: imitate the data, and climb Q through the denoising chain (eq. 3) ---
        self.critic.requires_grad_(False)  # this step needs no gradients of the critics' weights
        loss, policy_metrics = self.policy_loss(batch)
        self.descend(loss, self.actor_optimizer)
        self.critic.requires_grad_(True)

        # --- Averages: the target critics, and the policy that proposes next actions ---
        self.move_averages()
        self.step += 1
        return {**critic_metrics, **policy_metrics}

    def critic_loss(self, batch):
        """Eq. 4: both critics regress on the same target. Returns (loss, metrics)."""
        n = 10 if self.args.max_q_backup else 1  # each critic takes its own best of n actions
        with torch.no_grad():
            states = batch.next_state.repeat_interleave(n, dim=0)
            q = torch.stack(self.critic_target(states, self.ema_actor.sample(states)))
            next_q = q.view(len(q), -1, n).amax(dim=2).amin(dim=0)[:, None]
            target = batch.reward + self.args.discount * batch.not_done * next_q
        return self.regress(batch, target)

    def regress(self, batch, target):
        """The loss of both critics on a target (B, 1). Returns (loss, metrics)."""
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        return loss, {"critic_loss": loss, "q": q1.mean()}

    def policy_loss(self, batch):
        """Eq. 3: L_d + eta L_q. Returns (loss, metrics with bc_loss = L_d)."""
        bc_loss = self.actor.loss(batch.action, batch.state)
        ql_loss, q = self.q_loss(batch.state, self.actor.sample(batch.state))
        loss = bc_loss + self.args.eta * ql_loss
        return loss, {"bc_loss": bc_loss, "ql_loss": ql_loss, "actor_loss": loss, "q_policy": q}

    def q_loss(self, state, action):
        """L_q = -E[Q] / E|Q| of the policy's actions, and E[Q].

        A fair coin says which critic is climbed. The other gives the scale, without gradient: it
        lets eta mean the same for rewards of any size (the paper's alpha is eta / E|Q|).
        """
        q1, q2 = self.critic(state, action)
        coin = torch.rand((), device=state.device) > 0.5
        q = torch.where(coin, q1, q2).mean()
        scale = torch.where(coin, q2, q1).abs().mean().detach()
        return -q / scale, q

    def descend(self, loss, optimizer):
        """A step of Adam, after clipping the gradient; with lr_decay, at a rate that falls."""
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            if self.args.grad_norm > 0:
                nn.utils.clip_grad_norm_(group["params"], self.args.grad_norm)
            if self.args.lr_decay:
                first = group.setdefault("initial_lr", group["lr"])
                group["lr"] = first * (1 + math.cos(math.pi * self.step / self.args.steps)) / 2
        optimizer.step()

    def move_averages(self):
        """Until ema_start, next actions come from the untrained policy, as in the release."""
        move_average(self.critic_target, self.critic, self.args.tau)
        if self.step >= self.args.ema_start and self.step % self.args.ema_every == 0:
            move_average(self.ema_actor, self.actor, 1 - self.args.ema_decay)

    def acting_policy(self):
        return self.actor if self.args.act_with == "policy" else self.ema_actor

    @torch.no_grad()
    def propose(self, states):
        """Candidates (B, n, action_dim) for states (B, state_dim), and the Q of each (B, n)."""
        n = self.args.candidates
        repeated = states.repeat_interleave(n, dim=0)
        actions = self.acting_policy().sample(repeated)
        q = torch.minimum(*self.critic_target(repeated, actions))
        return actions.view(len(states), n, -1), q.view(len(states), n)

    @torch.no_grad()
    def act(self, states):
        """Actions (B, action_dim): one of the candidates, by softmax of Q (section 4)."""
        actions, q = self.propose(states)
        chosen = torch.multinomial(q.softmax(dim=-1), 1)[:, 0]
        return actions[torch.arange(len(states), device=states.device), chosen]

    @property
    def device(self):
        return next(self.parameters()).device


@torch.no_grad()
def move_average(average, network, share):
    """Moves the parameters of `average` by this share of the way to those of `network`."""
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, share)


# ---- Training loop -------------------------------------------------------------------------------
SAVE_SECONDS = 60  # between two checkpoints


def train(args, dataset=None, agent_class=DiffusionQL, progress_bar=tqdm):
    """Trains, evaluates, and keeps a run folder. Returns what its result.json holds.

    dataset: a Dataset of your own, instead of args.env's. progress_bar: tqdm or a class like it.
    Raises ValueError for what does not fit, FloatingPointError if a loss is not finite.
    """
    # --- The data, the agent, and the run folder ---
    env = "" if dataset else args.env  # data of your own has no name by which it could be loaded
    dataset = dataset or load_dataset(args.env)
    try:
        data = Batch(*[column.to(args.device) for column in dataset.transitions])
    except Exception as error:  # every kind of device fails in its own way
        raise ValueError(f"PyTorch cannot use --device {args.device}: {error}") from error
    data = data._replace(reward=tune_rewards(data.reward, args.reward_tune))
    torch.manual_seed(args.seed)
    agent = agent_class(dataset.state_dim, dataset.action_dim, args).to(args.device)
    agent.prepare(data)
    check_optimizers(agent)
    log = {"rows": [], "returns": [], "sums": {}}  # sums: of metrics since the last evaluation
    folder, config = open_folder(agent, dataset, env)
    if (folder / "checkpoint.pt").exists():
        load_checkpoint(folder, agent, log)
    write_json(folder / "config.json", config)
    compile_losses(agent)

    # --- Algorithm 1, with a checkpoint every minute and before each evaluation. A run that was
    #     stopped while it was evaluated begins with that evaluation ---
    eval_every = args.eval_every or min(50_000, max(1, args.steps // 10))
    saved_at = time.monotonic()
    bar = progress_bar(total=args.steps, initial=agent.step)
    with bar, SummaryWriter(folder, purge_step=agent.step + 1) as board:
        for step in range(agent.step, args.steps + 1):
            is_due = step == args.steps or (step > 0 and step % eval_every == 0)
            if is_due and step not in [row["step"] for row in log["rows"]]:
                save_checkpoint(folder, agent, log)
                evaluate_and_record(agent, dataset, folder, log, board)
            elif time.monotonic() - saved_at > SAVE_SECONDS:
                save_checkpoint(folder, agent, log)
                saved_at = time.monotonic()
            if step < args.steps:
                metrics = agent.update(data.sample(args.batch_size))
                agent.step = step + 1  # for a fork whose `update` does not count
                add_metrics(metrics, log["sums"], board, agent.step)
                bar.update()
    save_checkpoint(folder, agent, log)
    result = select(log["rows"], args.top_k)
    write_json(folder / "result.json", result)
    return result


def check_optimizers(agent):
    """Raises ValueError for a network that was replaced after the optimizers had been made."""
    trained = set()
    for value in vars(agent).values():
        for group in getattr(value, "param_groups", []):
            trained.update(group["params"])
    for name, parameter in agent.named_parameters():
        if parameter.requires_grad and parameter not in trained:
            raise ValueError(f"no optimizer trains {name}: replace networks in make_policy")


def compile_losses(agent):
    """Compiles both losses in the mode args.compile, where this machine can compile."""
    mode = agent.args.compile
    if mode == "off":
        return
    try:
        torch.compile(torch.neg, mode=mode)(torch.zeros(1, device=agent.device))
    except Exception as error:  # no compiler, or a broken one
        print("not compiled, because torch.compile fails here:", str(error).splitlines()[0])
        return
    for name in ("critic_loss", "policy_loss"):
        compiled = torch.compile(getattr(type(agent), name), mode=mode)
        setattr(agent, name, partial(compiled, agent))  # in a deepcopy, it calls the copy


@torch.no_grad()
def add_metrics(metrics, sums, board, step):
    """Adds an update's metrics to the sums; every 100 steps they go to TensorBoard, too."""
    for name, value in metrics.items():
        if name in ("step", "score", "score_std", "return"):
            raise ValueError(f"metric {name}: progress.csv has a column {name} already")
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + value, count + 1)
        if step % 100 == 0:
            board.add_scalar(f"losses/{name}", value, step)


def means(sums):
    """{name: mean} of metrics. Raises FloatingPointError if one is not finite."""
    result = {}
    for name, (total, count) in sums.items():
        result[name] = float(total / count)
        if not math.isfinite(result[name]):
            raise FloatingPointError(f"{name} is {result[name]}: try a lower --lr or --eta")
    return result


def evaluate_and_record(agent, dataset, folder, log, board):
    """Saves and scores the agent as it is now: a row in progress.csv and in returns.csv."""
    args = agent.args
    metrics = means(log["sums"])
    row = {"step": agent.step}
    if dataset.env_spec is None:
        tqdm.write(f"step {agent.step:,}: not scored, as the data names no environment")
    else:
        returns = evaluate(agent, dataset, args.eval_episodes, (args.seed, agent.step))
        scores = dataset.score(returns)
        row["score"] = float(scores.mean())
        row["score_std"] = float(scores.std())
        row["return"] = float(returns.mean())
        tqdm.write(f"step {agent.step:,}: score {row['score']:.1f} ± {row['score_std']:.1f}")
        board.add_scalar("charts/score", row["score"], agent.step)
        log["returns"].append({"step": agent.step, **dict(enumerate(returns.tolist()))})
        table = pd.DataFrame(log["returns"])
        write(folder / "returns.csv", partial(table.to_csv, index=False))
    log["rows"].append({**metrics, **row})
    log["sums"].clear()
    table = pd.DataFrame(log["rows"]).set_index("step")
    write(folder / "progress.csv", table.to_csv)
    write(folder / "agents" / f"{agent.step}.pt", partial(torch.save, agent.state_dict()))


def select(rows, top_k):
    """The last evaluation, the best one (online), and the one that L_d alone selects (offline)."""
    result = {"final": rows[-1]}
    if "score" in rows[-1]:
        result["online"] = max(rows, key=lambda row: row["score"])
    by_loss = [row for row in rows if "bc_loss" in row]
    if by_loss:
        by_loss.sort(key=lambda row: row["bc_loss"])
        result["offline"] = by_loss[: top_k + 1][-1]
    return result


# ---- Run folders ---------------------------------------------------------------------------------
def open_folder(agent, dataset, env):
    """Makes or opens the run folder: (folder, its config.json). Raises ValueError, OSError."""
    args = agent.args
    name = f"{args.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(args.resume or args.out or Path("runs", env or "own-data", name))
    packages = ("torch", "numpy", "gymnasium", "gymnasium-robotics", "mujoco", "minari")
    describe = f"git -C '{Path(__file__).parent}' describe --always --dirty"
    is_missing, commit = subprocess.getstatusoutput(describe)
    config = {
        "method": f"{type(agent).__module__}.{type(agent).__qualname__}",
        "settings": {**asdict(args), "env": env, "out": "", "resume": ""},
        "dims": [dataset.state_dim, dataset.action_dim],
        "versions": {package: version(package) for package in packages},
        "commit": "" if is_missing else commit,
    }
    if args.resume and read_config(folder)["method"] != config["method"]:
        raise ValueError(f"{folder} was made by {read_config(folder)['method']}: give that class")
    if (folder / "config.json").exists() and not args.resume:
        raise ValueError(f"{folder} holds a run already: --resume it, or give another --out")
    (folder / "agents").mkdir(parents=True, exist_ok=bool(args.resume or args.out))
    print("run folder:", folder)
    return folder, config


def read_config(folder):
    """The config.json of a run folder. Raises ValueError."""
    try:
        config = json.loads(Path(folder, "config.json").read_text())
        return {**config, "method": config["method"], "settings": dict(config["settings"])}
    except (OSError, KeyError, TypeError, ValueError) as error:
        why = "its config.json is not readable" if Path(folder).exists() else "it does not exist"
        raise ValueError(f"{folder} is no run folder: {why}") from error


def find_class(config):
    """The class of the agent of a run. Raises ValueError."""
    method = config["method"]
    try:
        return pkgutil.resolve_name(method)
    except (ImportError, AttributeError, ValueError) as error:
        hint = f"the file of {method} must be beside diffusion_ql.py, or on PYTHONPATH"
        raise ValueError(f"{hint}, to bring this run back: {error}") from error


def save_checkpoint(folder, agent, log):
    """Saves all that `train` needs to go on as if it had never stopped, but no broken agent.

    Of the agent, that is its networks, and those of its attributes, also a fork's, that are
    optimizers, schedules, numbers or tensors.
    """
    means(log["sums"])  # raises FloatingPointError
    state = {"networks": agent.state_dict(), "attributes": {}, "log": log}
    for name, value in vars(agent).items():
        if hasattr(value, "state_dict"):
            state["attributes"][name] = value.state_dict()
        elif isinstance(value, (int, float, torch.Tensor)):
            state["attributes"][name] = value
    state["random"] = torch.get_rng_state()
    if agent.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(agent.device)
    write(folder / "checkpoint.pt", partial(torch.save, state))


def load_checkpoint(folder, agent, log):
    state = load_file(folder / "checkpoint.pt", agent.device)
    agent.load_state_dict(state["networks"])
    for name, value in state["attributes"].items():
        if isinstance(value, dict):
            getattr(agent, name).load_state_dict(value)
        else:
            setattr(agent, name, value)
    if agent.step > agent.args.steps:
        raise ValueError(f"{folder} has made {agent.step} steps: give --steps of at least that")
    log.update(state["log"])
    torch.set_rng_state(state["random"].cpu())
    if agent.device.type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"].cpu(), agent.device)


def load_file(path, device):
    """What torch.save wrote. Raises ValueError for a file that is damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # of PyTorch, in many forms
        raise ValueError(f"{path} is damaged: {error}") from error


def load_agent(folder, which="final", agent_class=None):
    """The agent of a run folder as it was at an evaluation.

    which: "final", "online", "offline" (see `select`), or a step. agent_class: for a method that is
    defined in a notebook. Raises ValueError for what is not there.
    """
    config = read_config(folder)
    agent_class = agent_class or find_class(config)
    agent = agent_class(*config["dims"], agent_class.Args(**config["settings"]))
    progress = Path(folder, "progress.csv")
    if which in ("final", "online", "offline") and progress.exists():
        rows = pd.read_csv(progress).to_dict("records")
        which = select(rows, agent.args.top_k).get(which, {"step": which})["step"]
    path = Path(folder, "agents", f"{which}.pt")
    if not path.exists():
        steps = sorted(int(saved.stem) for saved in path.parent.glob("[0-9]*.pt"))
        hint = f"give a step of {steps}" if steps else "its agents/ is empty"
        raise ValueError(f"no agent of {which} in {folder}: {hint}")
    agent.load_state_dict(load_file(path, "cpu"))
    agent.step = int(which)
    return agent


def write(path, save_to):
    """Writes a file whole or not at all; save_to(path) is what writes it."""
    unfinished = path.with_name(f"part-{path.name}")
    save_to(unfinished)
    unfinished.replace(path)


def write_json(path, content):
    text = json.dumps(content, indent=2)
    write(path, lambda unfinished: unfinished.write_text(text))


# ---- Evaluation ----------------------------------------------------------------------------------
def evaluate(agent, dataset, episodes=10, seed=0):
    """Returns (episodes,) of an agent, or of anything that can `act`, ten episodes side by side.

    The seed, an int or several, fixes all starts and the agent's noise. PyTorch's own random state
    stays as it was, so that evaluating more often changes no training.
    """
    if dataset.env_spec is None:
        raise ValueError("no scores: the dataset names no environment to play episodes in")
    device = getattr(agent, "device", torch.device("cpu"))
    noise_seed, *seeds = np.random.SeedSequence(seed).generate_state(1 + episodes).tolist()
    while len(dataset.envs) < min(10, episodes):  # more take too much memory: some have 80 MB each
        dataset.envs.append(make_env(dataset.env_spec))
    returns = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(noise_seed)
        for first in range(0, episodes, 10):
            returns += play(agent, dataset, seeds[first : first + 10], device)
    return np.array(returns)


def play(agent, dataset, seeds, device):
    """The return of an episode for each seed. As in D4RL, kitchen counts finished tasks."""
    envs = dataset.envs[: len(seeds)]
    states = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    returns = np.zeros(len(envs))
    is_running = np.ones(len(envs), bool)
    while is_running.any():
        actions = agent.act(torch.as_tensor(states[is_running], device=device)).cpu().numpy()
        for i, action in zip(np.flatnonzero(is_running), actions, strict=True):
            states[i], reward, terminated, truncated, info = envs[i].step(action)
            returns[i] += reward
            if "episode_task_completions" in info:
                returns[i] = len(info["episode_task_completions"])
            is_running[i] = not (terminated or truncated or (dataset.ends_at_goal and reward > 0))
    return returns.tolist()


@np.errstate(over="ignore")  # the bounds of some spaces do not fit float32
def make_env(spec, **options):
    """An environment with flat states, actions in [-1, 1], and its time limit (or 1000 steps).

    spec: an id or an EnvSpec. Raises ValueError if it does not fit, gymnasium.error.Error or
    ImportError if it cannot be made.
    """
    env = gym.make(spec, **options)
    check_action_space(env.action_space)
    if env.spec.max_episode_steps is None:
        env = gym.wrappers.TimeLimit(env, 1000)
    state = flat_state(env.observation_space.sample())
    if state.ndim != 1:
        raise ValueError(f"states must be vectors, not of {env.observation_space}")
    space = gym.spaces.Box(-np.inf, np.inf, state.shape, np.float32)
    env = gym.wrappers.TransformObservation(env, flat_state, space)
    return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))


def check_action_space(space):
    if not isinstance(space, gym.spaces.Box) or space.shape[1:] or not space.is_bounded():
        raise ValueError(f"actions must be bounded, continuous vectors, not of {space}")


def flat_state(observation):
    """An observation, or a stack of them, as vectors (state_dim,) or (T, state_dim).

    Goal tasks: achieved goal, observation, desired goal; kitchen's goals never change, and are left
    out. Raises ValueError for other structures.
    """
    names = ("achieved_goal", "observation", "desired_goal")
    if isinstance(observation, dict) and set(observation) <= set(names):
        parts = [observation.get(name) for name in names]
        observation = np.concatenate([part for part in parts if isinstance(part, np.ndarray)], -1)
    if isinstance(observation, (dict, tuple)):
        raise ValueError(f"states must be vectors, not {type(observation).__name__}s: flatten them")
    return np.asarray(observation, np.float32)


# ---- The paper's tasks, and their data -----------------------------------------------------------
# folder, minari: ids of Minari's datasets, such as mujoco/hopper/medium-v0; d4rl: version of D4RL's
# own data; returns: those that score 0 and 100; all others: settings, those of the release
GYM = dict(d4rl="v2", compile="default", steps=2_000_000)
CHEETAH = dict(GYM, folder="mujoco/halfcheetah", returns=(-280.178953, 12135.0))
HOPPER = dict(GYM, folder="mujoco/hopper", returns=(-20.272305, 3234.3))
WALKER2D = dict(GYM, folder="mujoco/walker2d", returns=(1.629008, 4592.3))
GOALS = dict(compile="default", eval_episodes=100)
MAZE = dict(GOALS, d4rl="v0", folder="D4RL/antmaze", returns=(0, 1), max_q_backup=True)
MAZE.update(reward_tune="cql_antmaze")
KITCHEN = dict(GOALS, d4rl="v0", folder="D4RL/kitchen", returns=(0, 4), eta=0.005)
KITCHEN.update(eval_every=50_000)
PEN = dict(GOALS, d4rl="v1", folder="D4RL/pen", returns=(96.262799, 3076.833102))
PEN.update(lr=3e-5, reward_tune="normalize")
BANDIT = dict(folder="toy", steps=5000, batch_size=100, hidden_dim=128, eta=2.5)
BANDIT.update(lr=1e-2, critic_lr=1e-2, lr_decay=True, grad_norm=0.0)
BANDIT.update(eval_every=1000, eval_episodes=200)
# fmt: off
TASKS = {  # those of the paper; the experts and two-roads are ours
    "halfcheetah-medium":        dict(CHEETAH,  minari="medium-v0", grad_norm=9, top_k=1),
    "hopper-medium":             dict(HOPPER,   minari="medium-v0", grad_norm=9, top_k=2),
    "walker2d-medium":           dict(WALKER2D, minari="medium-v0", grad_norm=1, top_k=1),
    "halfcheetah-medium-replay": dict(CHEETAH,  minari="", grad_norm=2, top_k=0),
    "hopper-medium-replay":      dict(HOPPER,   minari="", grad_norm=4, top_k=2),
    "walker2d-medium-replay":    dict(WALKER2D, minari="", grad_norm=4, top_k=1),
    "halfcheetah-medium-expert": dict(CHEETAH,  minari="medium-v0 expert-v0", grad_norm=7, top_k=0),
    "hopper-medium-expert":      dict(HOPPER,   minari="medium-v0 expert-v0", grad_norm=5, top_k=2),
    "walker2d-medium-expert":    dict(WALKER2D, minari="medium-v0 expert-v0", grad_norm=5, top_k=1),
    "halfcheetah-expert":        dict(CHEETAH,  minari="expert-v0", grad_norm=7, top_k=0),
    "hopper-expert":             dict(HOPPER,   minari="expert-v0", grad_norm=5, top_k=2),
    "walker2d-expert":           dict(WALKER2D, minari="expert-v0", grad_norm=5, top_k=1),
    "antmaze-umaze":          dict(MAZE, minari="umaze-v1", eta=0.5, grad_norm=2, top_k=2,
                                   max_q_backup=False),
    "antmaze-umaze-diverse":  dict(MAZE, minari="umaze-diverse-v1", eta=2.0, grad_norm=3, top_k=2),
    "antmaze-medium-play":    dict(MAZE, minari="medium-play-v1", eta=2.0, grad_norm=2, top_k=1,
                                   lr=1e-3),
    "antmaze-medium-diverse": dict(MAZE, minari="medium-diverse-v1", eta=3.0, grad_norm=1, top_k=1),
    "antmaze-large-play":     dict(MAZE, minari="large-play-v1", eta=4.5, grad_norm=10, top_k=2),
    "antmaze-large-diverse":  dict(MAZE, minari="large-diverse-v1", eta=3.5, grad_norm=7, top_k=1),
    "pen-human":        dict(PEN, minari="human-v2", eta=0.15, grad_norm=7, top_k=2),
    "pen-cloned":       dict(PEN, minari="cloned-v2", eta=0.1, grad_norm=8, top_k=2),
    "kitchen-complete": dict(KITCHEN, minari="complete-v2", grad_norm=9, top_k=2, steps=250_000),
    "kitchen-partial":  dict(KITCHEN, minari="partial-v2", grad_norm=10, top_k=2),
    "kitchen-mixed":    dict(KITCHEN, minari="mixed-v2", grad_norm=10, top_k=0),
    "two-roads":        dict(minari="two-roads-v1", folder="toy", compile="default", steps=9000,
                             eval_every=3000, eval_episodes=100, hidden_dim=128, lr=1e-3,
                             critic_lr=1e-3, discount=0.97, tau=0.02, ema_decay=0.98),
    "bandit":           dict(BANDIT, minari="bandit-v0"),
    "bandit-close":     dict(BANDIT, minari="bandit-close-v0"),
    "bandit-tie":       dict(BANDIT, minari="bandit-tie-v0"),
}
# fmt: on


def find_task(env):
    """The row of TASKS (or {}) and the ids of the Minari datasets that --env means."""
    for task, row in TASKS.items():
        minari_ids = [f"{row['folder']}/{name}" for name in row["minari"].split()]
        d4rl_name = f"{task}-{row.get('d4rl', '')}"
        d4rl_id = "d4rl/" + d4rl_name.replace("-", "/", 1)  # where D4RL's data is converted to
        if env == task and minari_ids:
            return row, minari_ids
        if env in minari_ids:
            return row, [env]
        if env in (task, d4rl_name, d4rl_id):
            return row, [d4rl_id]
    return {}, [env]


def load_dataset(env):
    """The Dataset that --env names, downloaded or made on first use. Raises ValueError."""
    if not env:
        raise ValueError("no data: give env=..., such as two-roads, or a Dataset of your own")
    row, minari_ids = find_task(env)
    episodes = []
    for minari_id in minari_ids:
        try:
            dataset = open_minari(minari_id)
            for episode in dataset.iterate_episodes():
                states = flat_state(episode.observations)
                columns = (states[:-1], episode.actions, states[1:], episode.rewards)
                episodes.append((*columns, episode.terminations))
        except Exception as error:  # files, Minari's hosts and makers fail in many ways
            raise ValueError(f"cannot load {minari_id}: {error}") from error
    columns = [np.concatenate(column) for column in zip(*episodes, strict=True)]
    env_spec = evaluation_spec(dataset)
    if env_spec is None:
        columns[1] = rescale(columns[1], dataset.action_space)
    metadata = dataset.storage.metadata
    own_returns = (metadata.get("ref_min_score", 0), metadata.get("ref_max_score", 100))
    return Dataset(*columns, env=env_spec, reference=row.get("returns", own_returns))


MAKERS = {  # what makes the datasets whose ids begin like this: files beside this one
    "toy/two-roads": "toy_experiments.two_roads",
    "toy/bandit": "toy_experiments.bandit",
    "d4rl/": "d4rl_to_minari",
}


def open_minari(name):
    """A Minari dataset, which is made or downloaded if it is not here."""
    sys.modules["farama_notifications"] = None  # or gymnasium-robotics prints news
    import gymnasium_robotics
    import minari
    from minari.storage import get_dataset_path

    gym.register_envs(gymnasium_robotics)
    minari_id = name
    if "://" in name:  # hf://owner/my/data-v0 becomes my/data-v0
        minari_id = name.split("/", 3)[3]
    elif "/" not in name and not get_dataset_path(name).exists():  # a name of D4RL
        minari_id = "d4rl/" + name.replace("-", "/", 1)
    folder = get_dataset_path(minari_id)
    if not (folder / "data" / "metadata.json").exists():
        with FileLock(get_dataset_path() / f".{minari_id.replace('/', '-')}.lock"):
            makers = [maker for start, maker in MAKERS.items() if minari_id.startswith(start)]
            if not folder.exists() and makers:
                importlib.import_module(makers[0]).make(minari_id)
            elif not folder.exists():  # of two first runs, one waits, and finds it here
                minari.download_dataset(name)
    return minari.load_dataset(minari_id)


def evaluation_spec(dataset):
    """The EnvSpec of the environment that scores; None if a Minari dataset names none."""
    spec = dataset._eval_env_spec or dataset.env_spec  # Minari has no public name for the first
    if dataset.id.startswith("D4RL/pen"):
        print("Minari's pen has 200 steps, D4RL's 100: scores are about twice those of pen-*-v1")
    if dataset.id in ("D4RL/antmaze/umaze-v1", "D4RL/antmaze/umaze-diverse-v1"):
        print("scoring in the maze of the data: Minari's own for that is mirrored (Minari#304)")
        spec.kwargs["maze_map"] = [row[::-1] for row in spec.kwargs["maze_map"]]
    return spec


def rescale(actions, space):
    """Actions (n, action_dim) of a bounded Box as numbers in [-1, 1]. Raises ValueError."""
    check_action_space(space)
    scaled = 2 * (actions - space.low) / (space.high - space.low) - 1
    if np.abs(scaled).max() > 1.001:  # 0.1 % of rounding is forgiven
        raise ValueError(f"actions out of the bounds of {space}: clip or scale them")
    return scaled.clip(-1, 1)


class Dataset:
    """The transitions of an offline dataset, and simulators to score policies in.

    states, next_states (n, state_dim), actions (n, action_dim) as the environment takes them,
    rewards, terminals (n,) without timeouts; env: the id or EnvSpec of a Gymnasium environment, or
    None to train without scores, on actions in [-1, 1]; reference: the returns that score 0 and
    100. Raises ValueError where they do not fit together.
    """

    def __init__(
        self, states, actions, next_states, rewards, terminals, env=None, reference=(0, 100)
    ):
        self.reference = reference
        self.env_spec = env
        self.envs = []  # simulators; `evaluate` makes more of them
        if env is None:
            self.state_dim = np.shape(states)[1]
            action_space = gym.spaces.Box(-1, 1, np.shape(actions)[1:])
        else:
            self.envs.append(make_env(env))
            self.state_dim = self.envs[0].observation_space.shape[0]
            action_space = self.envs[0].env.action_space  # before make_env rescales it
        self.action_dim = action_space.shape[0]

        n = len(states)
        states = check_column("states", states, n, self.state_dim)
        actions = check_column("actions", actions, n, self.action_dim)
        next_states = check_column("next_states", next_states, n, self.state_dim)
        rewards = check_column("rewards", rewards, n, 1)
        not_done = check_column("terminals", terminals, n, 1) == 0
        is_antmaze = env is not None and self.envs[0].spec.id.startswith("AntMaze")
        self.ends_at_goal = is_antmaze and np.isin(rewards, (0, 1)).all()
        if self.ends_at_goal:  # as D4RL's episodes do; Minari's go on
            not_done = not_done & (rewards == 0)
        columns = (states, rescale(actions, action_space), next_states, rewards, not_done)
        self.transitions = Batch(*[torch.as_tensor(c, dtype=torch.float32) for c in columns])

    def score(self, returns):
        """D4RL's score: 0 for a random policy's return, 100 for an expert's."""
        low, high = self.reference
        return 100 * (returns - low) / (high - low)


def check_column(name, values, n, width):
    """The values as an array (n, width). Raises ValueError."""
    values = np.asarray(values)
    if len(values) != n or values.size != n * width:
        hint = "an episode of T steps has T + 1 observations"
        raise ValueError(f"{name} is {values.shape}, not {(n, width)} as states want it ({hint})")
    values = values.reshape(n, width)
    is_bad = ~np.isfinite(values).all(axis=1)
    if is_bad.any():
        raise ValueError(f"NaN or infinity in row {is_bad.argmax()} of {name}: clean the data")
    return values


def tune_rewards(reward, how):
    """The release's transforms of the rewards."""
    if how == "normalize" and reward.std() == 0:
        raise ValueError("all rewards are equal: use --reward-tune no")
    if how == "normalize":
        return (reward - reward.mean()) / reward.std()
    if how == "cql_antmaze":
        return (reward - 0.5) * 4
    return reward


# ---- Command line --------------------------------------------------------------------------------
@dataclass
class Evaluation:
    """Scores a saved agent on new episodes."""

    evaluate: str  # a run folder
    episodes: int = 100  # how many
    which: str = "final"  # final, online or offline (see `select`), or the step of an evaluation
    act_with: Literal["as trained", "policy", "average"] = "as trained"  # who proposes actions
    seed: int = 0  # another one draws other episodes
    device: str = "cpu"  # where PyTorch computes
    video: bool = False  # film some of the episodes, where the simulator can render


def evaluate_run(options):
    if options.episodes < 1 or options.seed < 0:
        raise ValueError("give --episodes of at least 1, and a --seed of at least 0")
    agent = load_agent(options.evaluate, options.which)
    try:
        agent.to(options.device)
    except Exception as error:  # every kind of device fails in its own way
        raise ValueError(f"PyTorch cannot use --device {options.device}: {error}") from error
    if options.act_with != "as trained":
        agent.args.act_with = options.act_with
    dataset = load_dataset(agent.args.env)
    if options.video and dataset.env_spec is not None:
        env = make_env(dataset.env_spec, render_mode="rgb_array")
        folder = str(Path(options.evaluate, "video"))
        dataset.envs = [gym.wrappers.RecordVideo(env, folder, name_prefix=str(agent.step))]
    # Training's evaluations draw from (seed, step): other numbers, of which the last is not 0.
    seeds = (agent.args.seed, agent.step, options.seed, 1)
    scores = dataset.score(evaluate(agent, dataset, options.episodes, seeds))
    dataset.envs[0].close()  # which ends the last film
    error = scores.std() / math.sqrt(len(scores))
    print(f"step {agent.step:,}: score {scores.mean():.1f} ± {scores.std():.1f}", end=" ")
    print(f"over {len(scores)} episodes, standard error {error:.1f}")


def parse_args(argv=None, agent_class=DiffusionQL):
    """(class of the agent, settings) of a command line. A run to resume brings both with it."""

    def find_defaults(env: str = "two-roads", resume: str = ""):
        if resume:
            found = find_class(read_config(resume))
            return found, found.Args(resume=resume)
        return agent_class, agent_class.Args(env=env)

    found, _ = tyro.cli(find_defaults, args=argv, return_unknown_args=True, add_help=False)
    agent_class, defaults = found
    text = __doc__ if agent_class is DiffusionQL else inspect.getdoc(agent_class)
    return agent_class, tyro.cli(agent_class.Args, args=argv, default=defaults, description=text)


def main(agent_class=DiffusionQL, argv=None):
    """The command line; also of a fork, whose file calls main(Fork)."""
    argv = sys.argv[1:] if argv is None else argv
    if agent_class.__module__ == "__main__":  # --resume has to find it again: by its file
        agent_class.__module__ = Path(sys.argv[0]).stem
    try:
        if any(option.startswith("--evaluate") for option in argv):
            evaluate_run(tyro.cli(Evaluation, args=argv))
        else:
            agent_class, args = parse_args(argv, agent_class)
            train(args, agent_class=agent_class)
    except KeyboardInterrupt:
        print("stopped; a run goes on by --resume and its folder", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError, gym.error.Error, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
