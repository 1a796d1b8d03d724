"""Diffusion-QL (Wang, Hunt & Zhou, ICLR 2023, arXiv:2208.06193) in one file.

The policy is a diffusion model. It imitates the actions of a fixed dataset by learning to denoise
them (loss L_d), and a Q-function learned from the same dataset steers it to better ones (L_q).

    python diffusion_ql.py                                  # two-roads: minutes, no download
    python diffusion_ql.py --env walker2d-medium-expert     # Minari's dataset, in Gymnasium v5
    python diffusion_ql.py --env walker2d-medium-expert-v2  # D4RL's dataset, the paper's, in v4
    python diffusion_ql.py --resume RUN                     # go on where a run was stopped

Read it from top to bottom; the algorithm, DiffusionQL.update, ends before "The paper's tasks".
It follows the authors' code (the release), which made the published numbers, where they differ:

                               paper                        release
    noise of a denoising step  variance beta_i (eq. 1)      variance of the posterior
    predicted clean action     not clipped                  clipped to the action bounds
    L_d (eq. 2)                squared norm of the error    mean over batch and dimensions
    scale of L_q (eq. 3)       E|Q| of the data's actions   E|Q| of the policy's: see policy_loss
    averaged policy (eq. 4)    moved at every step          every 5 steps, from step 1000 on

It differs from the release in two places. Offline selection takes the evaluation with the
(top_k + 1)-th smallest L_d, as the paper says; the release's `np.argsort(loss) == top_k` takes
another. And `--lr_decay`, which lowers the learning rate by 0.1 % over a run, is left out.
"""

import copy
import difflib
import importlib
import json
import math
import re
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro
from tqdm import tqdm


# ---- Settings ------------------------------------------------------------------------------------
class UserError(Exception):
    """Something that the user can mend: main() prints it without a traceback."""


@dataclass
class Args:
    """Settings (*: the paper's own on its tasks, see Args.for_env)."""

    env: str = "two-roads"  # a task of the paper, a Minari dataset, or our own two-roads
    algo: Literal["ql", "bc"] = "ql"  # ql: Diffusion-QL; bc: behavior cloning alone, no critics
    seed: int = 0  # random seed; on the CPU it fixes everything
    steps: int = 1_000_000  # gradient steps *
    eval_every: int = 0  # steps between evaluations (0: a tenth of the steps, at most 50000)
    eval_episodes: int = 10  # episodes per evaluation *
    device: str = "cuda" if torch.cuda.is_available() else "cpu"  # cpu or cuda
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a GPU or a long run
    out: str = ""  # run folder (default: runs/<env>/<seed>-<time>)
    resume: str = ""  # run folder to go on with; on the CPU, as if it had never stopped

    lr: float = 3e-4  # learning rate of the policy *
    critic_lr: float = 3e-4  # learning rate of the critics
    batch_size: int = 256  # transitions per gradient step
    hidden_dim: int = 256  # width of all networks
    n_timesteps: int = 5  # N, denoising steps of the policy
    eta: float = 1.0  # weight of L_q in the policy's loss *
    discount: float = 0.99  # gamma
    max_q_backup: bool = False  # back up the best of 10 next actions *
    reward_tune: Literal["no", "normalize", "cql_antmaze"] = "no"  # transform of the rewards *
    grad_norm: float = 5.0  # clip gradients to this norm (0: do not clip) *
    tau: float = 0.005  # share of the critics that their targets take up at every step
    ema_decay: float = 0.995  # decay of the averaged policy, which proposes next actions
    ema_every: int = 5  # steps between updates of that average
    ema_start: int = 1000  # step of its first update
    candidates: int = 50  # actions proposed when acting; one is drawn by softmax of Q
    top_k: int = 1  # offline selection takes the (top_k + 1)-th smallest L_d *

    @classmethod
    def for_env(cls, env, **overrides):
        """The settings for a dataset: the paper's where it is one of its tasks, then overrides."""
        settings = {"env": env, **task_settings(env), **overrides}
        settings.pop("ref", None)
        return cls(**settings)

    def __post_init__(self):
        if self.eval_every == 0:
            self.eval_every = min(50_000, max(1, self.steps // 10))
        sizes = "steps eval_every batch_size hidden_dim n_timesteps candidates ema_every"
        for name in (sizes + " eval_episodes lr critic_lr").split():
            if not getattr(self, name) > 0:
                raise UserError(f"--{name}: give a number above 0")


# ---- Diffusion: schedule, denoiser, policy -------------------------------------------------------
def vp_schedule(n_timesteps, b_min=0.1, b_max=10.0):
    """The variance-preserving schedule (section 4; names of the release), {name: tensor (N,)}.

    Index 0 is the least noisy step, i = 1 in the paper.
    """
    u = (torch.arange(n_timesteps, dtype=torch.float64) + 0.5) / n_timesteps  # in (0, 1)
    betas = (1 - torch.exp(-(b_min + (b_max - b_min) * u) / n_timesteps)).float()
    alphas = 1 - betas
    alphas_cumprod = alphas.cumprod(0)
    previous = torch.cat([torch.ones(1), alphas_cumprod[:-1]])
    posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
    return {
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
    """x tanh(softplus(x)), as nn.Mish, but with one exponential, so that it compiles to less."""

    def forward(self, x):
        p = x.sigmoid()
        u = p * (2 - p)
        return x * u / (2 - u)


def mlp(*widths):
    """Linear layers of these widths, each followed by Mish."""
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), Mish()]
    return nn.Sequential(*layers)


class SinusoidalEmbedding(nn.Module):
    """Timesteps (B,) → sines and cosines of 8 frequencies (B, 16)."""

    def forward(self, t):
        frequencies = 10_000 ** (-torch.arange(8.0) / 7)
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
    """pi(a | s): a DDPM over actions in [-1, 1] (section 3). train sets the device of tensors."""

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
        t = torch.randint(self.n_timesteps, (len(action),))
        noise = torch.randn_like(action)
        x = self.q_sample(action, t, noise)
        return F.mse_loss(self.model(x, t, state), noise)

    def p_sample(self, x, i, state):
        """One denoising step (eq. 1): x is drawn anew, with less noise; i = 0 makes it clean."""
        t = torch.full((1,), i)
        x0 = self.predict_start_from_noise(x, t, self.model(x, t, state)).clamp(-1, 1)
        mean = self.posterior_mean_coef1[i] * x0 + self.posterior_mean_coef2[i] * x
        if i == 0:
            return mean  # the last step adds no noise
        std = (0.5 * self.posterior_log_variance_clipped[i]).exp()
        return mean + std * torch.randn_like(x)

    def sample(self, state):
        """Actions (B, action_dim) for states (B, state_dim), with gradients through the chain."""
        x = torch.randn(len(state), self.action_dim)
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
    """Algorithm 1 is `update`. Fork it or a loss; to normalize states, override it and `act`.

    A checkpoint holds all networks, buffers and param_groups of the optimizer, also a fork's own.
    """

    def __init__(self, state_dim, action_dim, args):
        super().__init__()
        self.args = args
        self.step = 0
        self.history = []  # the training loop's: scores and mean metrics of each evaluation
        self.totals = Counter()  # the training loop's: sums of the metrics since the last one
        self.actor = DiffusionPolicy(state_dim, action_dim, args.n_timesteps, args.hidden_dim)
        self.critic = DoubleCritic(state_dim, action_dim, args.hidden_dim)
        self.ema_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), args.lr, fused=True)
        self.optimizer.add_param_group({"params": self.critic.parameters(), "lr": args.critic_lr})

    def update(self, batch):
        """One step of Algorithm 1. Returns metrics, {name: scalar tensor}."""
        metrics = {}

        # --- Critics: regress on r + gamma min Q'(s', a'), a' from the averaged policy (eq. 4) ---
        if self.args.algo == "ql":
            self.critic.requires_grad_(True)
            loss, values = self.critic_loss(batch)
            metrics.update(self.descend(loss, values, self.critic))

        # --- Policy: imitate the data, and climb Q through the denoising chain (eq. 3) ---
        self.critic.requires_grad_(False)  # or this step would move the critics, too
        loss, values = self.policy_loss(batch)
        metrics.update(self.descend(loss, values, self.actor))

        # --- Averages: the target critics, and the policy that proposes next actions ---
        if self.args.algo == "ql":
            move_average(self.critic_target, self.critic, self.args.tau)
        if self.step >= self.args.ema_start and self.step % self.args.ema_every == 0:
            move_average(self.ema_actor, self.actor, 1 - self.args.ema_decay)

        self.step += 1
        return metrics

    def critic_loss(self, batch):
        """Eq. 4: both critics regress on the same target. Returns (loss, metrics)."""
        with torch.no_grad():
            if self.args.max_q_backup:  # each target critic takes its own best of 10 next actions
                states = batch.next_state.repeat_interleave(10, dim=0)
                q = torch.stack(self.critic_target(states, self.ema_actor.sample(states)))
                q1, q2 = q.view(2, -1, 10, 1).amax(dim=2)
            else:
                next_action = self.ema_actor.sample(batch.next_state)
                q1, q2 = self.critic_target(batch.next_state, next_action)
            next_q = torch.minimum(q1, q2)
            target = batch.reward + self.args.discount * batch.not_done * next_q
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        return loss, {"critic_loss": loss, "q": q1.mean()}

    def policy_loss(self, batch):
        """Eq. 3: L_d + eta L_q, L_q = -E[Q] / E|Q|. Returns (loss, metrics with bc_loss)."""
        bc_loss = self.actor.loss(batch.action, batch.state)
        if self.args.algo == "bc":
            return bc_loss, {"bc_loss": bc_loss}

        # A fair coin says which critic is climbed. The other gives the scale, without gradient:
        # it lets eta mean the same for rewards of any size (the paper's alpha is eta / E|Q|).
        action = self.actor.sample(batch.state)
        q1, q2 = self.critic(batch.state, action)
        coin = torch.rand(()) > 0.5
        q = torch.where(coin, q1, q2).mean()
        scale = torch.where(coin, q2, q1).abs().mean().detach()
        ql_loss = -q / scale

        loss = bc_loss + self.args.eta * ql_loss
        return loss, {"bc_loss": bc_loss, "ql_loss": ql_loss, "actor_loss": loss, "q_policy": q}

    def descend(self, loss, metrics, network):
        """A step of Adam: it moves what has a gradient, after clipping that of the network."""
        self.optimizer.zero_grad()
        loss.backward()
        if self.args.grad_norm > 0:
            nn.utils.clip_grad_norm_(network.parameters(), self.args.grad_norm)
        self.optimizer.step()
        return {name: value.detach().double() for name, value in metrics.items()}

    @torch.no_grad()
    def propose(self, states):
        """Candidates (B, n, action_dim) for states (B, state_dim), and the Q of each (B, n)."""
        n = self.args.candidates
        repeated = states.repeat_interleave(n, dim=0)
        actions = self.actor.sample(repeated)
        q = torch.minimum(*self.critic_target(repeated, actions))
        return actions.view(len(states), n, -1), q.view(len(states), n)

    @torch.no_grad()
    def act(self, states):
        """Actions (B, action_dim): one of the candidates, by softmax of Q (section 4)."""
        if self.args.algo == "bc":
            return self.actor.sample(states)
        actions, q = self.propose(states)
        chosen = torch.multinomial(q.softmax(dim=-1), 1)[:, 0]
        return actions[torch.arange(len(states)), chosen]

    def get_extra_state(self):
        """What a checkpoint holds beside the networks; PyTorch adds it to the state_dict."""
        log = [self.step, self.history, self.totals]
        return {"log": log, "adam": self.optimizer.state_dict(), "random": torch.get_rng_state()}

    def set_extra_state(self, state):
        self.step, self.history, self.totals = state["log"]
        self.optimizer.load_state_dict(state["adam"])
        torch.set_rng_state(state["random"])


@torch.no_grad()
def move_average(average, network, share):
    """Moves the parameters of `average` by this share of the way to those of `network`."""
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, share)


# ---- The paper's tasks, and their data -----------------------------------------------------------
# fmt: off
TASKS = {  # the release's hyperparameters, task by task; then those of our own two-roads
    "halfcheetah-medium":        dict(grad_norm=9, top_k=1),
    "hopper-medium":             dict(grad_norm=9, top_k=2),
    "walker2d-medium":           dict(grad_norm=1, top_k=1),
    "halfcheetah-medium-replay": dict(grad_norm=2, top_k=0),
    "hopper-medium-replay":      dict(grad_norm=4, top_k=2),
    "walker2d-medium-replay":    dict(grad_norm=4, top_k=1),
    "halfcheetah-medium-expert": dict(grad_norm=7, top_k=0),
    "hopper-medium-expert":      dict(grad_norm=5, top_k=2),
    "walker2d-medium-expert":    dict(grad_norm=5, top_k=1),
    "antmaze-umaze":             dict(grad_norm=2, top_k=2, eta=0.5, max_q_backup=False),
    "antmaze-umaze-diverse":     dict(grad_norm=3, top_k=2, eta=2.0),
    "antmaze-medium-play":       dict(grad_norm=2, top_k=1, eta=2.0, lr=1e-3),
    "antmaze-medium-diverse":    dict(grad_norm=1, top_k=1, eta=3.0),
    "antmaze-large-play":        dict(grad_norm=10, top_k=2, eta=4.5),
    "antmaze-large-diverse":     dict(grad_norm=7, top_k=1, eta=3.5),
    "pen-human":                 dict(grad_norm=7, top_k=2, eta=0.15),
    "pen-cloned":                dict(grad_norm=8, top_k=2, eta=0.1),
    "kitchen-complete":          dict(grad_norm=9, top_k=2, steps=250_000, eval_every=50_000),
    "kitchen-partial":           dict(grad_norm=10, top_k=2),
    "kitchen-mixed":             dict(grad_norm=10, top_k=0),
    "two-roads":                 dict(lr=1e-3, critic_lr=1e-3, hidden_dim=128, discount=0.97,
               tau=0.02, ema_decay=0.98, steps=9000, eval_every=3000, eval_episodes=100),
}
# fmt: on
DOMAINS = {  # what their tasks share; ref: what a random policy and an expert return (D4RL)
    "halfcheetah": dict(steps=2_000_000, ref=(-280.178953, 12135.0)),
    "hopper": dict(steps=2_000_000, ref=(-20.272305, 3234.3)),
    "walker2d": dict(steps=2_000_000, ref=(1.629008, 4592.3)),
    "antmaze": dict(reward_tune="cql_antmaze", max_q_backup=True, eval_episodes=100, ref=(0, 1)),
    "pen": dict(lr=3e-5, reward_tune="normalize", eval_episodes=100, ref=(96.262799, 3076.833102)),
    "kitchen": dict(eta=0.005, eval_episodes=100, ref=(0, 4)),
}


def task_of(env):
    """The task in TASKS whose settings fit a dataset, whichever of its names `env` is."""
    task = re.sub(r"^(mujoco|D4RL|d4rl|toy)/|-v\d+$", "", env).replace("/", "-")
    return re.sub(r"^(\w+)-expert$", r"\1-medium-expert", task)  # not in the paper


def task_settings(env):
    """What a dataset has of its own: settings of Args, and ref."""
    task = task_of(env)
    return {**DOMAINS.get(task.split("-")[0], {}), **TASKS.get(task, {})}


def minari_ids(env):
    """The Minari datasets that a name stands for; those in -v1 and -v2 are D4RL's own data."""
    domain, _, level = env.partition("-")
    if env == "two-roads":
        return ["toy/two-roads-v0"]
    if domain not in DOMAINS:
        return [env]
    if re.search(r"-v\d+$|replay", level):
        return [f"d4rl/{domain}/{level}"]
    if domain == "antmaze":
        return [f"D4RL/antmaze/{level}-v1"]
    if domain in ("pen", "kitchen"):
        return [f"D4RL/{domain}/{level}-v2"]
    return [f"mujoco/{domain}/{part}-v0" for part in level.split("-")]


@contextmanager
def on_error(hint):
    """Turns any error inside into a UserError: what went wrong, and what to do about it."""
    try:
        yield
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{reason}\n{hint}") from error


class Batch(NamedTuple):
    """Transitions, float32. Actions lie in [-1, 1]; not_done is 0 at terminal states."""

    state: torch.Tensor  # (B, state_dim)
    action: torch.Tensor  # (B, action_dim)
    next_state: torch.Tensor  # (B, state_dim)
    reward: torch.Tensor  # (B, 1)
    not_done: torch.Tensor  # (B, 1)

    def sample(self, batch_size):
        """Draws a Batch from these transitions, with replacement."""
        index = torch.randint(len(self.state), (batch_size,))
        return Batch(*[column[index] for column in self])


class Dataset:
    """The transitions of an offline dataset, and simulators to score policies in.

    states, next_states (n, state_dim), actions (n, action_dim) as the environment takes them,
    rewards, terminals (n,) without timeouts; env: the id or EnvSpec of a Gymnasium environment;
    reference: the returns that score 0 and 100. Raises UserError where they do not fit together.
    """

    def __init__(self, states, actions, next_states, rewards, terminals, env, reference=(0, 100)):
        simulator = make_env(env)
        self.env_spec = env
        self.envs = [simulator]
        self.env_id = simulator.spec.id
        self.is_antmaze = self.env_id.startswith("AntMaze")
        self.state_dim = simulator.observation_space.shape[0]
        self.action_dim = simulator.action_space.shape[0]
        self.reference = reference

        widths = [*states.shape[1:], *actions.shape[1:]]
        needed = [self.state_dim, self.action_dim]
        lengths = {len(column) for column in (states, actions, next_states, rewards, terminals)}
        if widths != needed or len(lengths) > 1 or len(states) == 0:
            raise UserError(f"widths {widths}, lengths {lengths}: {self.env_id} needs {needed}")
        if not (np.isfinite(states).all() and np.isfinite(rewards).all()):
            raise UserError("the dataset holds NaN or infinity: clean it, or use another one")
        bounds = simulator.unwrapped.action_space
        actions = 2 * (actions - bounds.low) / (bounds.high - bounds.low) - 1
        if not np.abs(actions).max() < 1.001:  # 0.1 % of rounding is forgiven
            raise UserError(f"actions are out of the bounds of {self.env_id}: clip or scale them")
        if self.is_antmaze:  # D4RL's episodes end at the goal, Minari's go on
            terminals = np.logical_or(terminals, rewards > 0)

        not_done = 1.0 - terminals.reshape(-1, 1)
        columns = states, actions.clip(-1, 1), next_states, rewards.reshape(-1, 1), not_done
        self.transitions = Batch(*[torch.as_tensor(c, dtype=torch.float32) for c in columns])

    def score(self, returns):
        """D4RL's score: 0 for a random policy's return, 100 for an expert's."""
        low, high = self.reference
        return 100 * (returns - low) / (high - low)


def tune_rewards(reward, how):
    """The release's transforms of the rewards."""
    if how == "normalize":
        return (reward - reward.mean()) / reward.std()
    if how == "cql_antmaze":
        return (reward - 0.5) * 4
    return reward


def load_dataset(env):
    """The Dataset that --env names, downloaded or made on first use. Raises UserError."""
    if task_of(env) not in TASKS and not re.search(r"-v\d+$", env):
        nearest = ", ".join(difflib.get_close_matches(env, TASKS, cutoff=0))
        raise UserError(f"no task {env!r}; nearest: {nearest}. Files: python d4rl_to_minari.py -h")
    episodes = []
    for minari_id in minari_ids(env):
        dataset = open_minari(minari_id)
        with on_error(f"cannot read {dataset.spec.data_path}: if it is damaged, delete it"):
            episodes += [read_episode(episode) for episode in dataset.iterate_episodes()]
            env_spec = dataset.recover_environment(eval_env=True).spec
    columns = [np.concatenate(column) for column in zip(*episodes, strict=True)]
    own = dataset.storage.metadata
    own_ref = (own.get("ref_min_score", 0), own.get("ref_max_score", 100))
    reference = task_settings(env).get("ref", own_ref)
    return Dataset(*columns, env=env_spec, reference=reference)


def read_episode(episode):
    """The columns of a Dataset. An episode of T steps has T + 1 observations."""
    states = flat_state(episode.observations)
    return states[:-1], episode.actions, states[1:], episode.rewards, episode.terminations


def open_minari(minari_id):
    """A Minari dataset; if it is missing, a file beside this one makes it, or it is downloaded."""
    sys.modules.setdefault("farama_notifications", None)  # or gymnasium-robotics prints news
    import gymnasium
    import gymnasium_robotics
    import minari
    from minari.storage import get_dataset_path

    gymnasium.register_envs(gymnasium_robotics)
    folder = get_dataset_path(minari_id)
    makers = {"toy": "toy_experiments.two_roads", "d4rl": "d4rl_to_minari"}
    source = minari_id.split("/")[0]
    with on_error(f"so {folder} is missing: mend that, or train on --env two-roads"):
        if source in makers and not folder.exists():
            importlib.import_module(makers[source]).make(minari_id)
        elif not folder.exists():
            minari.download_dataset(minari_id)
    with on_error(f"{folder} is damaged or half a download: delete it and run again"):
        return minari.load_dataset(minari_id)


# ---- Environments and evaluation -----------------------------------------------------------------
def make_env(spec):
    """An environment with flat states, actions in [-1, 1], and always a time limit."""
    import gymnasium as gym

    gym.logger.min_level = gym.logger.ERROR  # "Walker2d-v4 is out of date": so is D4RL's data
    with on_error("Diffusion-QL needs states that are vectors, and bounded, continuous actions"):
        env = gym.make(spec)
        env = gym.wrappers.TimeLimit(env, 1000)  # if it has no lower limit of its own
        (width,) = flat_state(env.observation_space.sample()).shape
        space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        env = gym.wrappers.TransformObservation(env, flat_state, space)
        return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))


def flat_state(observation):
    """An observation, or a stack of them, as vectors (state_dim,) or (T, state_dim).

    Goal tasks: achieved goal, observation, desired goal; kitchen's goals never change, and go.
    """
    if isinstance(observation, dict):
        names = ("achieved_goal", "observation", "desired_goal")
        parts = [observation[name] for name in names if not isinstance(observation[name], dict)]
        observation = np.concatenate(parts, axis=-1)
    return np.asarray(observation, np.float32)


def evaluate(agent, dataset, episodes=10, seed=100):
    """Returns (episodes,) of an agent, or of anything that can `act`, in episodes side by side.

    As in D4RL, AntMaze counts reaching the goal, and kitchen the completed tasks.
    PyTorch's random state stays as it was, so that evaluating more often changes no training.
    """
    while len(dataset.envs) < episodes:
        dataset.envs.append(make_env(dataset.env_spec))
    states = np.stack([dataset.envs[i].reset(seed=seed + i)[0] for i in range(episodes)])
    returns = np.zeros(episodes)
    running = np.arange(episodes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        while len(running) > 0:
            actions = agent.act(torch.as_tensor(states[running])).cpu().numpy()
            for i, action in zip(running, actions, strict=True):
                states[i], reward, terminated, truncated, info = dataset.envs[i].step(action)
                returns[i] += reward
                if "episode_task_completions" in info:
                    returns[i] = len(info["episode_task_completions"])
                if terminated or truncated or (dataset.is_antmaze and reward > 0):
                    running = running[running != i]
    return returns


# ---- Training loop -------------------------------------------------------------------------------
def train(args, dataset=None, agent_class=DiffusionQL, progress_bar=tqdm):
    """Trains, evaluates, and keeps a run folder. Returns what its result.json holds.

    dataset: one of your own, instead of args.env's. progress_bar: tqdm or a class like it. Raises
    UserError, FloatingPointError if a loss is not finite, KeyboardInterrupt when it was stopped.
    """
    from torch.utils.tensorboard import SummaryWriter

    with on_error(f"PyTorch cannot use {args.device} here: give --device cpu"):
        torch.zeros(1, device=args.device)
    if args.device != "cpu":
        torch.set_default_device(args.device)  # all tensors are made there from here on
    dataset = dataset or load_dataset(args.env)
    data = Batch(*[column.to(args.device) for column in dataset.transitions])
    data = data._replace(reward=tune_rewards(data.reward, args.reward_tune))
    if len(data.state) < args.batch_size:
        raise UserError("fewer transitions than --batch-size: give a smaller --batch-size")
    torch.manual_seed(args.seed)
    agent = agent_class(dataset.state_dim, dataset.action_dim, args)
    folder = open_folder(args)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        with on_error(f"{checkpoint} is damaged, or of another agent"):
            agent.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    print("run folder:", folder)
    compile_losses(agent, data)
    board = SummaryWriter(folder, purge_step=agent.step + 1)

    caught = catch_signals()
    with progress_bar(total=args.steps, initial=agent.step) as bar:
        while (agent.step < args.steps or not agent.history) and not caught:
            next_evaluation = min(args.steps, (agent.step // args.eval_every + 1) * args.eval_every)
            while agent.step < next_evaluation and not caught:
                metrics = agent.update(data.sample(args.batch_size))
                bar.update()
                agent.totals.update(metrics, steps=1)  # a Counter adds
                if agent.step % 100 == 0:
                    check_finite(agent)
                    for name, value in metrics.items():
                        board.add_scalar(f"losses/{name}", value, agent.step)
                if agent.step % 5000 == 0 and agent.step < next_evaluation:
                    save(agent, checkpoint)
            check_finite(agent)
            if agent.step >= next_evaluation:
                returns = evaluate(agent, dataset, args.eval_episodes)
                record(agent, folder, board, returns, dataset.score(returns))
            save(agent, checkpoint)
    if agent.step < args.steps:
        raise KeyboardInterrupt(f"Saved. To go on: python diffusion_ql.py --resume {folder}")
    simulator = dataset.envs[0].unwrapped
    if hasattr(simulator, "draw_episodes"):  # as two-roads can
        simulator.draw_episodes(folder)
    return finish(agent, folder)


def compile_losses(agent, data):
    """Compiles both losses where that pays, and tries them in an update that is undone."""
    on_gpu = agent.args.device == "cuda"
    choice = agent.args.compile
    if choice == "off" or (choice == "auto" and not on_gpu and agent.args.steps < 5000):
        return
    mode = "reduce-overhead" if on_gpu else None
    before = copy.deepcopy(agent.state_dict())
    try:
        with on_error("torch.compile does not work here: give --compile off"):
            agent.critic_loss = torch.compile(agent.critic_loss, mode=mode)
            agent.policy_loss = torch.compile(agent.policy_loss, mode=mode)
            for _ in range(3):  # a GPU records at the second
                agent.update(data.sample(agent.args.batch_size))
    except UserError as error:
        if choice == "on":
            raise
        print(f"going on uncompiled: {error}")
        vars(agent).pop("critic_loss", None)  # back to the class's own methods
        vars(agent).pop("policy_loss", None)
    agent.load_state_dict(before)


def catch_signals():
    """A list that Ctrl-C and SIGTERM add to, so that training can stop between two steps."""
    caught = []

    def catch(number, frame):
        caught.append(number)
        signal.signal(number, signal.default_int_handler)  # a second one stops at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, catch)
    return caught


def check_finite(agent):
    """Raises FloatingPointError if a metric has not been finite since the last evaluation."""
    if not math.isfinite(sum(agent.totals.values())):
        raise FloatingPointError(f"not finite at step {agent.step}: start with lower --lr or --eta")


def record(agent, folder, board, returns, scores):
    """After an evaluation: a row of progress.csv, curves.png, and the score to TensorBoard."""
    import pandas as pd
    from matplotlib.figure import Figure

    tqdm.write(f"step {agent.step:9,}: score {scores.mean():.1f} ± {scores.std():.1f}")
    row = dict(step=agent.step, score=scores.mean().item(), score_std=scores.std().item())
    row["return"] = returns.mean().item()
    steps = agent.totals.pop("steps")
    row.update({name: total.item() / steps for name, total in agent.totals.items()})
    agent.history.append(row)
    agent.totals.clear()
    board.add_scalar("charts/score", row["score"], agent.step)
    table = pd.DataFrame(agent.history)
    write(folder / "progress.csv", lambda path: table.to_csv(path, index=False))
    figure = Figure(figsize=(8, 16), layout="constrained")
    table = table.drop(columns=["score_std", "return", "ql_loss"], errors="ignore")
    table.plot(x="step", subplots=True, ax=figure.subplots(table.shape[1] - 1))
    write(folder / "curves.png", lambda path: figure.savefig(path))


def finish(agent, folder):
    """Writes and returns the last evaluation, and those that the paper's two ways select."""
    by_loss = sorted(agent.history, key=lambda row: row["bc_loss"])
    result = {
        "final": agent.history[-1],
        "online": max(agent.history, key=lambda row: row["score"]),
        "offline": by_loss[: agent.args.top_k + 1][-1],
    }
    write(folder / "result.json", lambda path: path.write_text(json.dumps(result, indent=2)))
    print("final score:", round(result["final"]["score"], 1))
    return result


def open_folder(args):
    """The run folder, with config.json in it. Raises UserError where it cannot be."""
    default = f"runs/{args.env}/{args.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(args.resume or args.out or default)
    config = folder / "config.json"
    if config.exists() and not args.resume:
        raise UserError(f"{folder} holds a run already: --resume it, or give another --out")
    with on_error("choose another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
        write(config, lambda path: path.write_text(json.dumps(asdict(args), indent=2)))
    return folder


def save(agent, path):
    write(path, lambda partial: torch.save(agent.state_dict(), partial))


def write(path, save_to):
    """Writes a file whole or not at all; save_to(path) is what writes it."""
    partial = path.with_name(f"part-{path.name}")
    save_to(partial)
    partial.replace(path)


# ---- Command line --------------------------------------------------------------------------------
def parse_args(argv=None):
    """The Args of a command line; their defaults are the task's, or those of the run to resume."""
    given, _ = tyro.cli(Args, args=argv, return_unknown_args=True, add_help=False)
    if not given.resume:
        defaults = Args.for_env(given.env)
        defaults.eval_every = task_settings(given.env).get("eval_every", 0)
        return tyro.cli(Args, args=argv, default=defaults, description=__doc__)

    with on_error(f"{given.resume} is no run folder to resume"):
        saved = Args(**json.loads(Path(given.resume, "config.json").read_text()))
    args = tyro.cli(Args, args=argv, default=saved, description=__doc__)
    free = "resume steps device compile eval_episodes".split()
    if args != replace(saved, **{name: getattr(args, name) for name in free}):
        raise UserError(
            "a run keeps its settings: only --steps --device --compile --eval-episodes change"
        )
    return args


def main():
    try:
        train(parse_args())
    except KeyboardInterrupt as stop:
        print("stopped.", stop, file=sys.stderr)
        sys.exit(130)
    except (UserError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
