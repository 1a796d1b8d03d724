"""The runs of lesson 4: who keeps Q honest?

    python tutorials/experiments/lesson_4.py             # five seeds: about an hour of one core
    python tutorials/experiments/lesson_4.py --seeds 0   # one seed

Two roads, with L_d in the policy's loss and without; and with next actions in the critics' target
from that policy, or from a second one that only clones. Afterwards every agent drives long
episodes, so that what its critics promised can be held against what it earned.
"""

import copy
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

# First, because this script's own folder has a forks.py, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_ql import Args, DiffusionQL, load_agent, load_dataset, make_env, move_average, write
from sweep import collect
from toy_experiments import pictures
from toy_experiments.two_roads import draw_paths

STEPS = 300  # of a long episode: what comes later counts 0.97^300, which is 0.0001
EPISODES = 20
COLUMNS = {
    "score": ("score", ".1f"),
    "stuck": ("stuck", ".0%"),
    "promised": ("promised by Q", ".1f"),
    "earned": ("earned", ".1f"),
    "distance": ("distance to the data's action", ".2f"),
}


@dataclass(kw_only=True)
class HonestyArgs(Args):
    clone: bool = True  # False: the policy's loss is L_q alone
    ask_a_clone: bool = False  # True: next actions in the target come from a policy that clones


class Honesty(DiffusionQL):
    """Diffusion-QL; a second policy, which only clones, may answer for it in the target.

    distance: the mean distance between the policy's action and the data's in the same state.
    """

    Args = HonestyArgs

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.cloner = self.make_policy(state_dim, action_dim)
        self.cloner_average = copy.deepcopy(self.cloner).requires_grad_(False)
        self.actor_optimizer.add_param_group({"params": list(self.cloner.parameters())})

    def critic_loss(self, batch):
        if not self.args.ask_a_clone:
            return super().critic_loss(batch)
        with torch.no_grad():
            next_action = self.cloner_average.sample(batch.next_state)
            q = torch.minimum(*self.critic_target(batch.next_state, next_action))
            target = batch.reward + self.args.discount * batch.not_done * q
        return self.regress(batch, target)

    def policy_loss(self, batch):
        action = self.actor.sample(batch.state)
        ql_loss, q = self.q_loss(batch.state, action)
        loss = self.args.eta * ql_loss
        if self.args.clone:
            loss = loss + self.actor.loss(batch.action, batch.state)
        if self.args.ask_a_clone:
            loss = loss + self.cloner.loss(batch.action, batch.state)
        distance = (action - batch.action).norm(dim=1).mean()
        return loss, {"ql_loss": ql_loss, "q_policy": q, "distance": distance}

    def move_averages(self):
        super().move_averages()
        if self.step >= self.args.ema_start and self.step % self.args.ema_every == 0:
            move_average(self.cloner_average, self.cloner, 1 - self.args.ema_decay)


HONESTY = "tutorials.experiments.lesson_4.Honesty"
OFTEN = "--eval-every 1000"
ROWS = {
    "Diffusion-QL": (HONESTY, "two-roads", OFTEN),
    "no L_d": (HONESTY, "two-roads", f"{OFTEN} --no-clone"),
    "a clone answers": (HONESTY, "two-roads", f"{OFTEN} --ask-a-clone"),
    "no L_d, a clone answers": (HONESTY, "two-roads", f"{OFTEN} --no-clone --ask-a-clone"),
}


# ---- What was promised, and what was earned ------------------------------------------------------
def drive_long(agent, dataset, episodes=EPISODES, steps=STEPS, cell=None, seed=7):
    """Long episodes: paths (episodes, steps, 2), rewards and q (episodes, steps).

    q is what the critics promise, by the smaller of the two, for the action that is played.
    cell: where the ball starts, if not on the left: (row, column) of the maze.
    """
    envs = [make_env(dataset.env_spec, max_episode_steps=steps) for _ in range(episodes)]
    options = None if cell is None else {"reset_cell": cell}
    starts = [env.reset(seed=seed + i, options=options) for i, env in enumerate(envs)]
    states = np.stack([state for state, _ in starts])
    torch.manual_seed(seed)
    paths, rewards, promises = [], [], []
    for _ in range(steps):
        state = torch.tensor(states)
        action = agent.act(state)
        with torch.no_grad():
            promises.append(torch.minimum(*agent.critic(state, action))[:, 0].numpy())
        results = [env.step(a) for env, a in zip(envs, action.numpy(), strict=True)]
        paths.append(states[:, :2].copy())
        rewards.append([result[1] for result in results])
        states = np.stack([result[0] for result in results])
    return np.stack(paths, 1), np.stack(rewards, 1).astype(np.float32), np.stack(promises, 1)


def drive_of(folder, dataset=None):
    """What `drive_long` gave for a run, as arrays; kept as drive.npz in its folder."""
    path = Path(folder, "drive.npz")
    if not path.exists():
        paths, rewards, q = drive_long(load_agent(folder), dataset)
        arrays = {"paths": paths.astype(np.float16), "rewards": rewards.astype(bool), "q": q}
        write(path, partial(pictures.save_arrays, arrays))
    with np.load(path) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays}


def earned(rewards, discount=0.97):
    """Rewards (episodes, steps) → the discounted sum of what follows each step, of that shape."""
    sums = np.zeros_like(rewards)
    later = np.zeros(len(rewards))
    for step in reversed(range(rewards.shape[1])):
        later = rewards[:, step] + discount * later
        sums[:, step] = later
    return sums


def results_of(out, row, seeds, dataset=None):
    """[(what it drove, numbers) of each seed of a row]; with progress.csv, as history.

    stuck: the share of episodes that are not at the goal in their first 60 steps. promised, earned:
    at the start of an episode.
    """
    runs = collect(pictures.row_folder(out, row))
    results = []
    for run in runs[runs["seed"].isin(seeds)].sort_values("seed").itertuples():
        drive = drive_of(run.folder, dataset)
        history = pd.read_csv(run.folder / "progress.csv", index_col="step")
        arrives = drive["rewards"][:, :60].any(axis=1)
        numbers = {"score": run.final, "stuck": float(1 - arrives.mean())}
        numbers["promised"] = float(drive["q"][:, 0].mean())
        numbers["earned"] = float(earned(drive["rewards"])[:, 0].mean())
        numbers["distance"] = float(history["distance"].iloc[-1])
        results.append(({**drive, "history": history}, numbers))
    return results


def draw(results):
    """Above: four paths of each seed, and its numbers. Below: the mean Q of the data's actions."""
    figure = Figure(figsize=(2.75 * len(results), 6), layout="constrained")
    axes = figure.subplots(2, len(results), sharey="row")
    for (above, below), (row, runs) in zip(axes.T, results.items(), strict=True):
        paths = np.concatenate([drive["paths"][:4, :60] for drive, _ in runs])
        lines = []
        for name in ("score", "promised", "earned"):
            values = [f"{numbers[name]:,.0f}" for _, numbers in runs]
            lines.append(f"{name}: {'  '.join(values)}")
        draw_paths(above, paths, row.replace(", ", ",\n"), "\n".join(lines))
        for drive, _ in runs:
            below.plot(drive["history"]["q"], color=pictures.COLORS["diffusion"], alpha=0.7)
        below.axhspan(0, 1 / (1 - 0.97), color="#009E73", alpha=0.15, lw=0)
        below.set(yscale="symlog", ylim=(-200, 1500), xlabel="gradient step")
        below.set(xticks=[0, 4000, 8000], yticks=[-100, -10, 0, 10, 100, 1000])
        below.set(yticklabels=["-100", "-10", "0", "10", "100", "1,000"])
        below.minorticks_off()
    axes[1, 0].set_ylabel("mean Q of the data")
    return figure


def make_figure(options):
    pictures.train(ROWS, options)
    dataset = load_dataset("two-roads")
    results = {row: results_of(options.out, row, options.seeds, dataset) for row in ROWS}
    pictures.save(options.out, draw(results), pictures.table(results, COLUMNS))


def main():
    defaults = pictures.Options(out=Path("runs", "lesson_4"), steps=9000)
    pictures.run_command(defaults, make_figure, __doc__)


if __name__ == "__main__":
    main()
