"""The 2-D bandit of the paper (Figures 1 and 2): its data, the measures of success, the training loop, the drawing.

One state, and actions around four corners of a square. Cloning them takes a policy with four modes; with a reward for
each corner, the best policy keeps one mode and leaves three. `behavior_cloning.py` and `q_learning.py` compare methods on it.
"""
import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffusion_ql import Batch, UserError, require, write  # noqa: E402

CORNERS = torch.tensor([[-0.8, 0.8], [0.8, 0.8], [-0.8, -0.8], [0.8, -0.8]])  # top left, top right, bottom left, bottom right
REWARDS = torch.tensor([3.0, 1.5, 0.0, 5.0])  # mean reward of each corner; std 0.5
STD, RADIUS = 0.05, 0.2  # of the actions around a corner; an action is *on mode* within RADIUS of a corner
COLORS = {  # the same for a method's cloning and Q-learning forms; Okabe and Ito's colour-blind safe palette
    "data": "#555555", "Gaussian": "#D55E00", "TD3+BC": "#D55E00", "CVAE": "#009E73", "BCQ": "#009E73",
    "MMD": "#CC79A7", "BEAR": "#CC79A7", "diffusion": "#0072B2", "Diffusion-QL": "#0072B2"}


def make_data(n=10_000, seed=0):
    """The bandit's dataset (settings of the release): a Batch of n transitions; state (n, 2) is zero, action (n, 2)."""
    draw = np.random.default_rng(seed)
    corner = torch.arange(n) % 4
    action = CORNERS[corner] + STD * torch.as_tensor(draw.standard_normal((n, 2)), dtype=torch.float32)
    reward = REWARDS[corner] + 0.5 * torch.as_tensor(draw.standard_normal(n), dtype=torch.float32)
    return Batch(torch.zeros(n, 2), action.clamp(-1, 1), torch.zeros(n, 2), reward[:, None], torch.zeros(n, 1))


def energy_distance(x, y):
    """Squared energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of samples (n, d) and (m, d); 0 for equal distributions."""
    pairs = lambda a: torch.cdist(a, a).sum() / (len(a) * (len(a) - 1))  # noqa: E731
    return (2 * torch.cdist(x, y).mean() - pairs(x) - pairs(y)).item()


def measure(actions, data):
    """The measures of actions (n, 2), as a dict.

    on_mode: the share within 0.2 of a corner; corners: the share within 0.2 of each; imbalance: how far the largest or
    smallest of these is from a quarter; energy_distance: to 2,000 of the data's actions; reward: the mean of the
    corners' own mean rewards, where an action off mode earns 0; best_corner: the share on the corner that pays most;
    edge: the share at the edge of the square.
    """
    near = torch.cdist(actions, CORNERS) < RADIUS  # (n, 4)
    corners = near.float().mean(0)
    return {"on_mode": corners.sum().item(), "corners": corners.tolist(), "imbalance": (corners - 0.25).abs().max().item(),
            "energy_distance": energy_distance(actions, data.action[:2000]),
            "reward": (near.float() @ REWARDS).mean().item(), "best_corner": corners[REWARDS.argmax()].item(),
            "edge": (actions.abs().amax(-1) > 0.99).float().mean().item()}


def train(policy, data, steps, critic=None, lr=3e-3, batch_size=256, name="", position=None, watch=10):
    """The loop that all methods share. Minimises policy.loss(action, state), or policy.loss(batch, critic) with a critic.

    The critic regresses on the reward: a bandit has no next state. Both learning rates fall to 0 along a cosine.
    Returns the measures of 2,000 of the policy's samples at `watch` moments of the training, each with its step.
    """
    optimizers, schedules = {}, {}
    for module in [policy] if critic is None else [policy, critic]:
        optimizers[module] = torch.optim.Adam(module.parameters(), lr, fused=True)
        schedules[module] = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[module], steps)

    def descend(module, loss):
        optimizers[module].zero_grad()
        loss.backward(inputs=list(module.parameters()))
        optimizers[module].step()
        schedules[module].step()

    history = []
    bar = tqdm(range(1, steps + 1), name, unit="step", position=position, leave=not position, mininterval=0.5, disable=position is None)
    for step in bar:
        index = torch.randint(len(data.action), (batch_size,))
        batch = Batch(*(column[index] for column in data))
        if critic is not None:
            q1, q2 = critic(batch.state, batch.action)
            descend(critic, F.mse_loss(q1, batch.reward) + F.mse_loss(q2, batch.reward))
        descend(policy, policy.loss(batch.action, batch.state) if critic is None else policy.loss(batch, critic))
        if step % max(1, steps // watch) == 0:
            history.append({"step": step, **measure(sample(policy), data)})
    return history


@torch.no_grad()
def sample(policy, n=2000):
    """n actions (n, 2) of a policy."""
    return policy.sample(torch.zeros(n, 2))


# ---- Many runs side by side, and what they say -----------------------------------------------------------------------
def run(jobs):
    """Runs {key: (function, settings)} on all cores, each with one thread and a progress bar of its own.

    A function returns (..., samples, numbers). Returns {key: (samples, numbers)}, samples as an array (2000, 2).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count()), context, start_worker, (context.RLock(),)) as pool:
        tasks = {key: pool.submit(work, *job, position=i) for i, (key, job) in enumerate(jobs.items())}
        try:
            return {key: task.result() for key, task in tasks.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_seeds(function, args, **settings):
    """{method: [(samples, numbers) of each seed]} of function(method, seed, steps, ...), for the methods and seeds of args."""
    seeds = range(args.seed, args.seed + args.seeds)
    settings["steps"] = args.steps
    results = run({(method, seed): (function, {**settings, "method": method, "seed": seed}) for method in args.methods for seed in seeds})
    return {method: [results[method, seed] for seed in seeds] for method in args.methods}


def start_worker(lock):
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()  # ends with its parent
    tqdm.set_lock(lock)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def work(function, settings, position):
    *_, samples, numbers = function(**settings, position=position)
    return samples.numpy(), numbers


def table(results, columns):
    """A Markdown table with a row per method: mean ± std over its seeds. columns: {measure: (heading, format)}."""
    lines = ["| | " + " | ".join(heading for heading, _ in columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, runs in results.items():
        cells = []
        for name, (_, form) in columns.items():
            values = np.array([numbers.get(name, np.nan) for _, numbers in runs])
            spread = f" ± {values.std():{form}}" if len(runs) > 1 else ""
            cells.append("" if np.isnan(values).any() else f"{values.mean():{form}}{spread}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(axis, actions, title, caption="", color=None):
    """One panel: actions (n, 2), with a circle of radius 0.2 around each corner."""
    from matplotlib.patches import Circle
    for corner in CORNERS.tolist():
        axis.add_patch(Circle(corner, RADIUS, fill=False, color="#999999", lw=0.8))
    axis.scatter(*np.asarray(actions).T, s=2, alpha=0.4, color=color or COLORS[title], linewidths=0, rasterized=True)
    axis.set(title=title, xlabel=caption, xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")


def cloning_caption(numbers):
    """The lines under a panel of cloning: top left, top right, bottom left, bottom right."""
    shares = ", ".join(f"{100 * share:.0f}" for share in numbers["corners"])
    return f"on mode {100 * numbers['on_mode']:.0f} %\ncorners {shares} %\nenergy distance {numbers['energy_distance']:.3f}"


def save(name, figure, results, args):
    """Writes name.png, name.pdf and name.json into args.out, each whole or not at all. results: as of run_seeds."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    numbers = {**settings, "results": {method: [numbers for _, numbers in runs] for method, runs in results.items()}}
    for kind in ("png", "pdf"):
        write(out / f"{name}.{kind}", lambda partial: figure.savefig(partial, format=kind, dpi=150))
    write(out / f"{name}.json", json.dumps(numbers, indent=1))
    print(f"figure and numbers: {out / name}.png, .pdf, .json")


def script(description, methods, steps, work, **extra):
    """The command line that both scripts share; calls work(args). extra: further options, by name: (default, help)."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seed", type=int, default=2022, help="random seed, the first of --seeds (default: 2022, the paper's)")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="run K seeds and print the mean and spread (default: 1)")
    parser.add_argument("--steps", type=int, help=f"gradient steps of each method (default: {steps})", default=steps if isinstance(steps, int) else None)
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=list(methods), help="default: all", metavar="METHOD")
    parser.add_argument("--out", default=str(Path(__file__).parent / "figures"), help="folder of the figure (default: toy_experiments/figures)")
    for name, (default, text) in extra.items():
        kind = {"nargs": "+", "type": int} if isinstance(default, list) else {"type": type(default)}
        parser.add_argument("--" + name.replace("_", "-"), default=default, help=f"{text} (default: {default})", **kind)
    args, begin = parser.parse_args(), time.time()
    try:
        require((args.steps is None or args.steps > 0) and args.seeds > 0 and args.seed >= 0, "--steps and --seeds need numbers above 0, --seed 0 or more")
        work(args)
        print(f"{time.time() - begin:.0f} seconds")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("stopped; no figure was written")
