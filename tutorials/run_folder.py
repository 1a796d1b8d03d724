"""A run folder as doctor.py and the lessons look at it: its curves, its agent, its data."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from minari.storage import get_dataset_path

from diffusion_ql import find_class, find_task, load_agent, load_dataset, read_config, tune_rewards

# Runs that differ in nothing but these are the same experiment.
FREE = ("seed", "device", "compile", "out", "resume", "eval_every", "eval_episodes")


class Run:
    """Parts of a run, loaded when one asks. Raises ValueError for what is no run, or is not there.

    dataset: the Dataset of a run on data of its own; agent_class: of a method from a notebook.
    """

    def __init__(self, folder, dataset=None, agent_class=None):
        self.folder = Path(folder).resolve()
        self.config = read_config(folder)
        self.agent_class = agent_class or find_class(self.config)
        self.args = self.agent_class.Args(**self.config["settings"])
        self.progress = read_progress(self.folder)
        if dataset is not None:
            self.dataset = dataset

    def curve(self, name):
        """A column of progress.csv."""
        if self.progress.empty:
            raise ValueError("the run has not been evaluated yet")
        if name not in self.progress:
            raise ValueError(f"the run has no {name}")
        return self.progress[name]

    @property
    def last_step(self):
        """Of the last evaluation; 0 before the first one."""
        return 0 if self.progress.empty else self.progress["step"].iloc[-1]

    @cached_property
    def agent(self):
        """As it was at the last evaluation."""
        self.curve("step")
        return load_agent(self.folder, self.last_step, self.agent_class)

    @cached_property
    def dataset(self):
        """The Dataset, if it is on this machine already."""
        env = self.args.env
        if not env:
            raise ValueError("the data is the run's own: examine(RUN, dataset) looks at it, too")
        for name in find_task(env)[1]:
            if not (get_dataset_path(name) / "data").exists():
                hint = f"examine(RUN, load_dataset({env!r})) fetches it"
                raise ValueError(f"there is no {name} in {get_dataset_path()}: {hint}")
        return load_dataset(env)

    @cached_property
    def data(self):
        """Its transitions, a Batch, with the rewards that the critics are trained on."""
        data = self.dataset.transitions
        reward = tune_rewards(data.reward, self.args.reward_tune)
        return data._replace(reward=reward * getattr(self.args, "reward_scale", 1))

    @cached_property
    def episodes(self):
        """The data's: first row, length, and whether each is over (or was cut off): a DataFrame.

        An episode ends at a terminal, or where the next row begins in another state.
        """
        goes_on = (self.data.next_state == self.data.state.roll(-1, 0)).all(dim=1)
        is_over = self.data.not_done[:, 0] == 0
        is_last = is_over | ~goes_on
        is_last[-1] = True
        last = is_last.nonzero()[:, 0]
        first = torch.cat([torch.tensor([0]), last[:-1] + 1])
        columns = {"first": first, "length": last - first + 1, "is_over": is_over[last]}
        return pd.DataFrame({name: column.numpy() for name, column in columns.items()})

    @cached_property
    def q(self):
        """The lower critic at the data's transitions, (n,)."""
        self.curve("q")  # a cloner has critics, too, but does not train them
        values = []
        with torch.no_grad():
            for first in range(0, len(self.data.state), 50_000):  # all at once may need gigabytes
                part = slice(first, first + 50_000)
                q1, q2 = self.agent.critic(self.data.state[part], self.data.action[part])
                values.append(torch.minimum(q1, q2)[:, 0])
        return torch.cat(values)

    def bounds(self):
        """The lowest and the highest possible Q."""
        gamma = self.args.discount * self.data.not_done.max().item()  # a bandit has no future
        if gamma >= 1:
            return -np.inf, np.inf
        low, high = self.data.reward.aminmax()
        return low.clamp(max=0).item() / (1 - gamma), high.clamp(min=0).item() / (1 - gamma)

    def followed(self):
        """Q where the data's episodes begin, and the discounted rewards that followed: two means.

        Where an episode was cut off, Q of its last transition stands for the rest.
        """
        followed = []
        for first, length, is_over in self.episodes.itertuples(index=False):
            rewards = self.data.reward[first : first + length, 0].clone()
            if not is_over:
                rewards[-1] = self.q[first + length - 1]
            discounts = self.args.discount ** torch.arange(length)
            followed.append((discounts * rewards).sum().item())
        return self.q[self.episodes["first"].tolist()].mean().item(), np.mean(followed)

    def seeds(self):
        """This run and those beside it that differ in nothing but the seed."""
        runs = []
        for path in sorted(self.folder.parent.glob("*/config.json")):
            if experiment(json.loads(path.read_text())) == experiment(self.config):
                runs.append(Run(path.parent, agent_class=self.agent_class))
        return runs

    def scores_of_seeds(self):
        """The scores of `seeds` at the step of this run's last evaluation."""
        scores = []
        for run in self.seeds():
            if "score" in run.progress:
                same_step = run.progress["step"] == self.last_step
                scores += run.progress["score"][same_step].tolist()
        return scores


def read_progress(folder):
    """progress.csv, with the standard error of each score; empty if nothing was evaluated."""
    if not (folder / "progress.csv").exists():
        return pd.DataFrame()
    progress = pd.read_csv(folder / "progress.csv")
    if "score" in progress:
        episodes = pd.read_csv(folder / "returns.csv").drop(columns="step").count(axis=1)
        progress["error"] = progress["score_std"] / episodes**0.5
    return progress


def experiment(config):
    """The method, and the settings that make another experiment, of a config.json."""
    settings = config.get("settings", {})
    kept = {name: value for name, value in settings.items() if name not in FREE}
    return config.get("method"), kept


# ---- What actions are compared with --------------------------------------------------------------
def apart(actions, others):
    """The mean distance of actions (n, action_dim) from others, row by row."""
    return (actions - others).norm(dim=1).mean().item()


def spread_of_actions(some):
    """How far the actions of a Batch are apart in the most similar states, and in any two."""
    gaps = torch.cdist(some.state, some.state)
    nearest = gaps.where(gaps > 0, torch.inf).argmin(dim=1)
    near = apart(some.action, some.action[nearest])
    return near, apart(some.action, some.action.roll(1, 0))


def loss_of_one_gaussian(policy, actions):
    """L_d of the best denoiser for a single Gaussian with the actions' mean and covariance.

    A denoiser that has not found out more about the actions (n, action_dim), such as their modes
    or the states they belong to, does no better. Along an axis of variance v, at a timestep
    that keeps the share k of the variance, the noise's variance given x is k v / (k v + 1 - k).
    """
    variances = torch.linalg.svdvals(actions - actions.mean(dim=0)).square() / len(actions)
    kept = policy.alphas_cumprod[:, None] * variances
    return (kept / (kept + 1 - policy.alphas_cumprod[:, None])).mean().item()
