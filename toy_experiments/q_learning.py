"""Figure 2: the bandit with a reward, and Figure 3: the effect of the number of denoising steps N.

    python toy_experiments/q_learning.py                             # Figure 2
    python toy_experiments/q_learning.py --n-timesteps 50            # Figure 2 with the N of the paper
    python toy_experiments/q_learning.py --n-timesteps 2 5 10 50     # Figure 3
    python toy_experiments/q_learning.py --seeds 5                   # mean and spread over five seeds

A policy is the cloning one of behavior_cloning.py and a pull towards a high Q: `loss(batch, critic)` adds the two.
"""
import sys
from pathlib import Path

import torch
import torch.nn as nn
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffusion_ql import DiffusionPolicy, DoubleCritic, mlp, require  # noqa: E402
from toy_experiments import bandit  # noqa: E402
from toy_experiments.behavior_cloning import CVAE, MMD, ExactDenoiser, Gaussian, clone  # noqa: E402


class Guided:
    """Cloning loss + eta L_q, with the L_q of Diffusion-QL and of TD3+BC: -Q over the mean |Q| (paper, eq. 3)."""
    eta, candidates = 2.5, 1

    def loss(self, batch, critic):
        q = critic(batch.state, self.sample(batch.state))
        up, scale = q if torch.rand(()) > 0.5 else q[::-1]
        return super().loss(batch.action, batch.state) - self.eta * up.mean() / scale.abs().mean().detach()


class TD3BC(Guided, Gaussian):
    """TD3+BC (Fujimoto 2021), its squared error replaced by what it is a case of, a Gaussian's log-likelihood."""


class DiffusionQL(Guided, DiffusionPolicy):
    """Diffusion-QL (section 3)."""
    candidates = 50


class BCQ(CVAE):
    """BCQ (Fujimoto 2018): a CVAE, and a perturbation of its actions by at most 0.05 that raises Q1."""
    candidates = 10

    def __init__(self):
        super().__init__()
        self.perturbation = nn.Sequential(*mlp(4, 128, 128), nn.Linear(128, 2), nn.Tanh())

    def sample(self, state):
        action = super().sample(state).detach()
        return (action + 0.05 * self.perturbation(torch.cat([state, action], -1))).clamp(-1, 1)

    def loss(self, batch, critic):
        return super().loss(batch.action, batch.state) - critic(batch.state, self.sample(batch.state))[0].mean()


class BEAR(MMD):
    """BEAR (Kumar 2019): highest Q with the MMD to the cloned behaviour held at `threshold` by a Lagrange multiplier.

    Two settings differ from its paper's: a threshold of 0.05 is below the distance of two sets of ten samples of one
    distribution, and a multiplier that begins at 1 comes too late to free a tanh that Q has saturated.
    """
    candidates, threshold = 10, 0.15

    def __init__(self):
        super().__init__()
        self.log_multiplier = nn.Parameter(torch.tensor(5.0))

    def loss(self, batch, critic):
        q = torch.minimum(*critic(batch.state, self.sample(batch.state))).mean()
        excess, multiplier = self.discrepancy(batch.state) - self.threshold, self.log_multiplier.clamp(-5, 10).exp()
        dual = -multiplier * excess.detach()  # raises the multiplier where the policy strays
        return self.cvae.loss(batch.action, batch.state) - q + multiplier.detach() * excess + dual


COLUMNS = {"reward": ("reward", ".2f"), "best_corner": ("best corner", ".1%"), "on_mode": ("on mode", ".1%"), "edge": ("at the edge", ".1%"),
           "acting_reward": ("acting: reward", ".2f"), "acting_best_corner": ("acting: best corner", ".1%")}
STEPS = {"TD3+BC": 6000, "BCQ": 6000, "BEAR": 6000, "Diffusion-QL": 10_000}  # Diffusion-QL overshoots first, and takes its time to return
METHODS = {"TD3+BC": TD3BC, "BCQ": BCQ, "BEAR": BEAR, "Diffusion-QL": DiffusionQL}


@torch.no_grad()
def act(policy, critic, n=2000):
    """n actions (n, 2) chosen as each method's paper chooses them: of some candidates, BCQ and BEAR take the one with
    the highest Q1, Diffusion-QL draws one by softmax of the lower Q."""
    state = torch.zeros(n * policy.candidates, 2)
    actions = policy.sample(state)
    q1, q2 = (q.view(n, -1) for q in critic(state, actions))
    choice = torch.multinomial(torch.minimum(q1, q2).softmax(-1), 1) if isinstance(policy, DiffusionQL) else q1.argmax(-1, keepdim=True)
    return actions.view(n, -1, 2)[torch.arange(n), choice[:, 0]]


def learn(method, seed=2022, steps=None, n_timesteps=5, position=None):
    """Learns the bandit with reward by one method; returns its policy, critic, 2,000 samples (2000, 2) and their measures."""
    steps = steps or STEPS[method]
    torch.manual_seed(seed)
    data = bandit.make_data(seed=seed)
    critic = DoubleCritic(2, 2, 128)
    policy = DiffusionQL(2, 2, n_timesteps, 128) if method == "Diffusion-QL" else METHODS[method]()
    history = bandit.train(policy, data, steps, critic, name=f"{method}, seed {seed}", position=position)
    samples, acting = bandit.sample(policy), bandit.measure(act(policy, critic), data)
    numbers = {**bandit.measure(samples, data), **{f"acting_{name}": acting[name] for name in ("reward", "best_corner")}}
    return policy, critic, samples, {**numbers, "history": history}


def figure_2(args):
    """The reward, and the samples of each method."""
    (n_timesteps,) = args.n_timesteps
    results = bandit.run_seeds(learn, args, n_timesteps=n_timesteps)
    figure = Figure(figsize=(2.5 * (1 + len(results)), 3.7), layout="constrained")
    truth, *axes = figure.subplots(1, 1 + len(results))
    bandit.draw(truth, bandit.make_data(seed=args.seed).action[:2000], "data", "mean reward of each corner")
    for (x, y), reward in zip(bandit.CORNERS.tolist(), bandit.REWARDS.tolist()):
        truth.annotate(f"{reward:g}", (x * 0.5, y * 0.5), ha="center", va="center", fontsize=12)
    for axis, (method, runs) in zip(axes, results.items()):
        samples, numbers = runs[0]
        bandit.draw(axis, samples, method, f"reward {numbers['reward']:.2f}\nbest corner {100 * numbers['best_corner']:.0f} %\n"
                    f"when acting: {numbers['acting_reward']:.2f}, {100 * numbers['acting_best_corner']:.0f} %")
    title = f"With reward: 2,000 samples of each policy (Diffusion-QL with N = {n_timesteps}; seed {args.seed})"
    if "Diffusion-QL" in results:
        history = results["Diffusion-QL"][0][1]["history"]
        title += "\nDiffusion-QL's share on the best corner (and at the edge of the square), as training goes on: " + ", ".join(
            f"{100 * row['best_corner']:.0f} % ({100 * row['edge']:.0f} %)" for row in history[:5])
        title += f" after each {history[0]['step']:,} steps"
    figure.suptitle(title, fontsize=9)
    name = "q_learning" if n_timesteps == 5 else f"q_learning_N{n_timesteps}"
    bandit.save(name, figure, results, args)
    print(bandit.table(results, COLUMNS))


def figure_3(args):
    """Cloning and Diffusion-QL with several N, and what the exact denoiser would clone."""
    require(args.seeds == 1 and args.methods == list(METHODS), "several --n-timesteps draw Figure 3: leave --seeds and --methods away")
    jobs = {}
    for n in sorted(args.n_timesteps, reverse=True):  # the longest first
        jobs["Diffusion-QL", n] = learn, dict(method="Diffusion-QL", seed=args.seed, steps=args.steps or 7000, n_timesteps=n)
        jobs["diffusion", n] = clone, dict(method="diffusion", seed=args.seed, steps=args.steps or 6000, n_timesteps=n)
    results = bandit.run(jobs)
    figure = Figure(figsize=(2.5 * len(args.n_timesteps), 7), layout="constrained")
    for n, (above, below) in zip(args.n_timesteps, figure.subplots(2, len(args.n_timesteps), squeeze=False).T):
        exact = DiffusionPolicy(2, 2, n)
        exact.model = ExactDenoiser(n)
        torch.manual_seed(args.seed)
        best = bandit.measure(bandit.sample(exact), bandit.make_data(seed=args.seed))
        results["exact denoiser", n] = None, best
        samples, numbers = results["diffusion", n]
        bandit.draw(above, samples, f"cloning, N = {n}", f"on mode {100 * numbers['on_mode']:.0f} %\n"
                    f"with the exact denoiser {100 * best['on_mode']:.0f} %", bandit.COLORS["diffusion"])
        samples, numbers = results["Diffusion-QL", n]
        bandit.draw(below, samples, f"with reward, N = {n}", f"reward {numbers['reward']:.2f}\n"
                    f"best corner {100 * numbers['best_corner']:.0f} %", bandit.COLORS["Diffusion-QL"])
    figure.suptitle(f"The number of denoising steps N (seed {args.seed})", fontsize=10)
    results = {f"{method}, N = {n}": [results[method, n]] for method in ("exact denoiser", "diffusion", "Diffusion-QL") for n in args.n_timesteps}
    bandit.save("n_timesteps", figure, results, args)
    print(bandit.table(results, COLUMNS))


if __name__ == "__main__":
    bandit.script(__doc__, METHODS, "6000, Diffusion-QL 10000", lambda args: (figure_2 if len(args.n_timesteps) == 1 else figure_3)(args),
                  n_timesteps=([5], "denoising steps N of Diffusion-QL; several draw Figure 3"))
