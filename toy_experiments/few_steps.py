"""Why do few denoising steps suffice once there is a reward?

    python toy_experiments/few_steps.py    # hours of one core

Cloning with N = 5 steps blurs: the last step outputs an average. With a reward it hardly does. Two
explanations are put to the test.

- Q trains the chain as one. Then Q's gradient through the last step alone should do worse than
  through the whole chain.
- With one mode left, there is nothing to average. Then N = 5 should blur again on a bandit whose
  two best corners pay the same, if the policy keeps both.

The network is shared by all steps, so a gradient through the last step changes the others, too. As
a control, each step gets a network of its own.
"""

import sys
from pathlib import Path

import torch
import torch.nn as nn
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from diffusion_ql import Denoiser, DiffusionPolicy, DiffusionQL
from toy_experiments import pictures
from toy_experiments.bandit import CORNERS, TASKS, exact_policy, measure

STEPS = (2, 5, 10)  # denoising steps N
BANDITS = {"one best corner": ("bandit", [3]), "two best corners": ("bandit-tie", [0, 3])}
METHODS = {
    "whole chain": "DiffusionQL",
    "last step": "toy_experiments.few_steps.LastStep",
    "whole chain, own networks": "toy_experiments.few_steps.OwnNetworks",
    "last step, own networks": "toy_experiments.few_steps.LastStepOwnNetworks",
}
CONTROL = 5  # the paper's N on D4RL: the panels, and the networks of their own, are of this N
STYLES = {  # how each is drawn
    "exact clone of the best": dict(color="#555555", ls=":"),
    "whole chain": dict(color="#0072B2", marker="o"),
    "last step": dict(color="#E69F00", marker="o"),
    "whole chain, own networks": dict(color="#0072B2", marker="s", mfc="white", ls="--"),
    "last step, own networks": dict(color="#E69F00", marker="s", mfc="white", ls="--"),
}


# ---- The forks -----------------------------------------------------------------------------------
class LastStepPolicy(DiffusionPolicy):
    """Samples so that a gradient reaches only the last denoising step."""

    def sample(self, state):
        with torch.no_grad():
            x = torch.randn(len(state), self.action_dim, device=state.device)
            for i in reversed(range(1, self.n_timesteps)):
                x = self.p_sample(x, i, state)
        return self.p_sample(x, 0, state).clamp(-1, 1)


class LastStep(DiffusionQL):
    """Diffusion-QL, but Q's gradient reaches only the last denoising step."""

    def make_policy(self, state_dim, action_dim):
        return LastStepPolicy(state_dim, action_dim, self.args.n_timesteps, self.args.hidden_dim)


class NetworkPerStep(nn.Module):
    """A denoiser with a network of its own for each timestep: they share nothing."""

    def __init__(self, n_timesteps, *sizes):
        super().__init__()
        self.networks = nn.ModuleList(Denoiser(*sizes) for _ in range(n_timesteps))

    def forward(self, x, t, state):
        """As Denoiser.forward: x (B, action_dim), t (B,) or (1,) → noise (B, action_dim)."""
        if len(t) == 1:
            return self.networks[t.item()](x, t, state)
        noise = torch.stack([network(x, t, state) for network in self.networks])  # (N, B, ...)
        return noise[t, torch.arange(len(x))]


class OwnNetworks(DiffusionQL):
    """Diffusion-QL with a network for each denoising step."""

    def make_policy(self, state_dim, action_dim):
        policy = super().make_policy(state_dim, action_dim)
        sizes = (state_dim, action_dim, self.args.hidden_dim)
        policy.model = NetworkPerStep(self.args.n_timesteps, *sizes)
        return policy


class LastStepOwnNetworks(OwnNetworks, LastStep):
    """Both."""


# ---- The experiment ------------------------------------------------------------------------------
def row_name(bandit, method, n):
    return f"{bandit}, {method}, N = {n}"


ROWS = {}
for bandit, (task, _) in BANDITS.items():
    for name, method in METHODS.items():
        for n in (CONTROL,) if name.endswith("own networks") else STEPS:
            ROWS[row_name(bandit, name, n)] = (method, task, f"--n-timesteps {n}")


def exact_clones():
    """{row: [result]} of clones of nothing but the best corners, with each N."""
    results = {}
    for bandit, (task, best) in BANDITS.items():
        for n in STEPS:
            torch.manual_seed(0)
            actions = exact_policy(n, CORNERS[best]).sample(torch.zeros(2000, 2))
            row = row_name(bandit, "exact clone of the best", n)
            results[row] = [(actions, measure(actions, TASKS[task]))]
    return results


def draw(results):
    figure = Figure(figsize=(2.5 * len(STYLES), 7.5), layout="constrained")
    charts, panels = figure.subfigures(2, 1)
    for axis, bandit in zip(charts.subplots(1, 2, sharey=True), BANDITS, strict=True):
        for method, style in STYLES.items():
            rows = {n: row_name(bandit, method, n) for n in STEPS}
            rows = {n: row for n, row in rows.items() if row in results}
            pictures.draw_line(axis, rows, results, "best_corner", label=method, **style)
        axis.set(title=bandit, xlabel="denoising steps N", xscale="log", ylim=(-0.03, 1.03))
        axis.set_xticks(STEPS, STEPS)
        axis.minorticks_off()
    charts.axes[0].set_ylabel("share on a best corner")
    charts.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for axis, method in zip(panels.subplots(1, len(STYLES)), STYLES, strict=True):
        runs = results[row_name("two best corners", method, CONTROL)]
        caption = f"on a best corner:\n{pictures.summary(runs, 'best_corner', '.0%')}"
        pictures.draw_actions(axis, runs[0][0], method, caption, STYLES[method]["color"])
    panels.suptitle(f"two best corners, N = {CONTROL}: 2,000 samples of the first seed", size=10)
    return figure


def main():
    pictures.experiment("few_steps", __doc__, ROWS, draw, pictures.REWARD, exact_clones())


if __name__ == "__main__":
    main()
