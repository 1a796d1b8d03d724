"""The runs of lesson 3: how much weight Q gets, and why the policy overshoots and comes back.

    python tutorials/experiments/lesson_3.py             # five seeds: about an hour of one core
    python tutorials/experiments/lesson_3.py --seeds 0   # one seed

All of them are Diffusion-QL on the bandit with N = 5. While they train, they count the actions at
the edge of the square, where no data lies. Early in training they pile up there, and later they
come back. Each row of WHY changes one thing that may be the reason.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

# First, because this script's own folder has a forks.py, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_ql import Args, DiffusionPolicy, DiffusionQL
from toy_experiments import pictures
from toy_experiments.bandit import CORNERS, on_corners

BEST = CORNERS[3]  # it pays 5 on average
ALONG = torch.linspace(0, 1, 21)
EDGE = torch.cat(  # 42 points on the two edges of the square that are nearest to BEST
    [
        torch.stack([ALONG, -torch.ones(21)], dim=1),
        torch.stack([torch.ones(21), -ALONG], dim=1),
    ]
)


# ---- The forks -----------------------------------------------------------------------------------
class PassThrough(torch.autograd.Function):
    """Clips to [-1, 1], but hands gradients back as if nothing had been clipped."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class PassThroughPolicy(DiffusionPolicy):
    """Its samples are those of DiffusionPolicy; a gradient also passes the clip of the last x0.

    The clips before it stay as they are: a clipped coordinate of theirs still passes a gradient by
    posterior_mean_coef2 * x, which is 0 at the last step alone.
    """

    def sample(self, state):
        x = torch.randn(len(state), self.action_dim, device=state.device)
        for i in reversed(range(1, self.n_timesteps)):
            x = self.p_sample(x, i, state)
        t = torch.zeros(1, dtype=torch.long, device=x.device)
        return PassThrough.apply(self.predict_start_from_noise(x, t, self.model(x, t, state)))


@dataclass(kw_only=True)
class WatchedArgs(Args):
    clone: bool = True  # False: the policy's loss is L_q alone
    pass_clip: bool = False  # True: gradients pass the clip of the last x0
    falls: Literal["", "policy", "critics"] = ""  # whose rate falls where lr_decay is off


class Watched(DiffusionQL):
    """Diffusion-QL; progress.csv also says where its actions are and what the critics believe.

    edge: the share of actions at the edge of the square. held: the share of those that the clip
    holds in both coordinates, so that no gradient of Q reaches them. best_corner: the share on the
    best corner. q_edge: the largest Q on the edges near it. q_corner: Q at the corner itself.
    """

    Args = WatchedArgs

    def make_policy(self, state_dim, action_dim):
        kind = PassThroughPolicy if self.args.pass_clip else DiffusionPolicy
        return kind(state_dim, action_dim, self.args.n_timesteps, self.args.hidden_dim)

    def share_of_rate(self, step):
        """What is left of a learning rate that falls to 0 along a cosine."""
        return (1 + math.cos(math.pi * step / self.args.steps)) / 2

    def descend(self, loss, optimizer):
        falling = {"policy": self.actor_optimizer, "critics": self.critic_optimizer}
        if optimizer is falling.get(self.args.falls):
            (group,) = optimizer.param_groups
            first = group.setdefault("initial_lr", group["lr"])
            group["lr"] = first * self.share_of_rate(self.step)
        super().descend(loss, optimizer)

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        action = self.actor.sample(batch.state)
        ql_loss, q = self.q_loss(batch.state, action)
        loss = self.args.eta * ql_loss
        metrics = {"ql_loss": ql_loss, "q_policy": q, **self.watch(action)}
        if self.args.clone:  # without it L_d may grow beyond all bounds, and is no metric
            loss = loss + bc_loss
            metrics["bc_loss"] = bc_loss
        return loss, {**metrics, "actor_loss": loss}

    @torch.no_grad()
    def watch(self, action):
        """The numbers of the docstring above for actions (B, 2) of the policy."""
        largest = action.abs().amax(dim=-1)
        smallest = action.abs().amin(dim=-1)
        points = torch.cat([BEST[None], EDGE])
        q1, q2 = self.critic(torch.zeros(len(points), 2), points)
        q = (q1 + q2)[:, 0] / 2
        return {
            "edge": (largest > 0.99).float().mean(),
            "held": (smallest > 0.99999).float().mean(),
            "best_corner": on_corners(action)[:, 3].float().mean(),
            "q_corner": q[0],
            "q_edge": q[1:].max(),
        }


class FinishedCritic(Watched):
    """Its critics are trained before the policy begins, and stay as they are then."""

    def prepare(self, data):
        steps = self.args.steps
        optimizer = torch.optim.Adam(self.critic.parameters(), self.args.critic_lr)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = self.args.critic_lr * self.share_of_rate(step)
            batch = data.sample(self.args.batch_size)
            q1, q2 = self.critic(batch.state, batch.action)
            loss = F.mse_loss(q1, batch.reward) + F.mse_loss(q2, batch.reward)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.critic_target.load_state_dict(self.critic.state_dict())

    def update(self, batch):
        self.critic.requires_grad_(False)
        loss, metrics = self.policy_loss(batch)
        self.descend(loss, self.actor_optimizer)
        self.critic.requires_grad_(True)
        self.move_averages()
        self.step += 1
        return metrics


# ---- The experiments -----------------------------------------------------------------------------
WATCHED = "tutorials.experiments.lesson_3.Watched"
FINISHED = "tutorials.experiments.lesson_3.FinishedCritic"
OFTEN = "--eval-every 200 --eval-episodes 20"  # so that progress.csv is a curve

ETAS = (0, 0.1, 0.5, 1, 2.5, 10, 100)
ETA = {f"eta = {eta:g}": (WATCHED, "bandit", f"{OFTEN} --eta {eta}") for eta in ETAS}
AS_IT_IS = "eta = 2.5"
WHY = {
    "gradients pass the clip": (WATCHED, "bandit", f"{OFTEN} --pass-clip"),
    "no L_d": (WATCHED, "bandit", f"{OFTEN} --no-clone"),
    "no L_d, gradients pass the clip": (WATCHED, "bandit", f"{OFTEN} --no-clone --pass-clip"),
    "constant rate": (WATCHED, "bandit", f"{OFTEN} --no-lr-decay"),
    "constant rate of the critics": (WATCHED, "bandit", f"{OFTEN} --no-lr-decay --falls policy"),
    "constant rate of the policy": (WATCHED, "bandit", f"{OFTEN} --no-lr-decay --falls critics"),
    "finished critic": (FINISHED, "bandit", OFTEN),
}
ROWS = {**ETA, **WHY}
COLUMNS = {name: pictures.REWARD[name] for name in ("reward", "best_corner", "on_mode", "edge")}


def histories(out, row, seeds=(0, 1, 2, 3, 4)):
    """[progress.csv of each seed of a row, as a DataFrame whose index is the step]."""
    method, task, _ = ROWS[row]
    folder = pictures.row_folder(out, row) / method.split(".")[-1] / task
    paths = [folder / str(seed) / "progress.csv" for seed in seeds]
    return [pd.read_csv(path, index_col="step") for path in paths if path.exists()]


def draw(out, seeds):
    """A panel per row: the share at the edge, a line per seed, and the share on the best corner."""
    figure = Figure(figsize=(15, 6), layout="constrained")
    axes = figure.subplots(2, 7, sharex=True, sharey=True).flat
    for axis, row in zip(axes, ROWS, strict=False):
        for number, color in {"edge": "#D55E00", "best_corner": "#0072B2"}.items():
            curves = [history[number] for history in histories(out, row, seeds)]
            for curve in curves:
                axis.plot(curve, color=color, lw=0.8, alpha=0.6)
            axis.plot(curves[0].index, np.mean(curves, axis=0), color=color, lw=2, label=number)
        axis.set(title=row.replace(", ", ",\n"), ylim=(-0.03, 1.03))
    figure.axes[0].legend()
    for axis in figure.axes[len(ROWS) :]:
        axis.set_axis_off()
    figure.supxlabel("gradient step")
    return figure


def make_figure(options):
    pictures.train(ROWS, options)
    results = {row: pictures.read_row(options.out, row, options.seeds) for row in ROWS}
    figure = draw(options.out, options.seeds)
    pictures.save(options.out, figure, pictures.table(results, COLUMNS))


def main():
    defaults = pictures.Options(out=Path("runs", "lesson_3"))
    pictures.run_command(defaults, make_figure, __doc__)


if __name__ == "__main__":
    main()
