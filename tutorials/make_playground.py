"""Trains the networks of the playground and writes playground.html, a page that needs nothing else.

    python tutorials/make_playground.py             # about eight minutes on 2 cores
    python tutorials/make_playground.py --no-train  # the same networks in an edited page
    python tutorials/make_playground.py --picture   # its screenshot for the README, by Chromium

The page is playground_template.html: its style, its text and its JavaScript are edited there. This
script puts the networks into it, in half precision. They are those of toy_experiments/, only
narrower: diffusion policies for several eta and N, Gaussians (TD3+BC), a CVAE and MMD that clone,
and the critics, each at several moments of one training.
"""

import base64
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # where diffusion_ql.py and toy_experiments are found

from diffusion_ql import Batch, Denoiser, DiffusionPolicy, DoubleCritic  # noqa: E402
from toy_experiments.bandit import CORNERS, RADIUS, REWARDS, make_data  # noqa: E402
from toy_experiments.cloning import CVAE, MMD  # noqa: E402
from toy_experiments.guided import TD3BC  # noqa: E402

ETAS = (0.0, 0.1, 0.5, 1.0, 2.5, 10.0, 100.0)  # 0: cloning
N_TIMESTEPS = (2, 5, 10, 50)
MOMENTS = (0.05, 0.2, 0.4, 0.6, 1.0)  # of the training: after these shares of its steps
WIDTH = 32  # of the denoisers: at most 2 MB for all
CRITIC_WIDTH = 64
BEGIN = '<script type="application/json" id="networks">'  # the networks in the page
END = "</script>"
PICTURED = "theme=light&eta=1&N=50&heat=1"  # the state of the page in its picture


@dataclass
class Args:
    steps: int = 5000  # gradient steps of every network
    seed: int = 2022  # random seed
    out: Path = HERE / "playground.html"  # the page
    train: bool = True  # --no-train: take the networks from the page that is there
    picture: bool = False  # only take the page's picture, figures/playground.png


# ---- Many policies at once -----------------------------------------------------------------------
class Denoisers(nn.Module):
    """Denoisers side by side: several train in little more time than one.

    The rows of a batch are shared out: the first ones go through the first network, and so on.
    """

    def __init__(self, networks):
        super().__init__()
        self.count = len(networks)
        self.embed = networks[0].time_mlp[0]
        stacked, _ = torch.func.stack_module_state(networks)
        for name, values in stacked.items():  # (count, ...)
            self.register_parameter(name.replace(".", "/"), nn.Parameter(values.detach()))

    def linear(self, name, x):
        """The layers of this name: x (count, n, inputs) → (count, n, outputs)."""
        weight = getattr(self, f"{name}/weight")  # (count, outputs, inputs)
        bias = getattr(self, f"{name}/bias")  # (count, outputs)
        return torch.baddbmm(bias[:, None], x, weight.mT)

    def forward(self, x, t, state):
        """As Denoiser.forward: x (B, 2), t (B,) or (1,), state (B, 2) → noise (B, 2)."""
        if len(t) == 1:
            t = t.expand(self.count)
        embedding = self.embed(t).view(self.count, -1, 16)  # (count, n or 1, 16)
        embedding = F.mish(self.linear("time_mlp/1", embedding))
        embedding = self.linear("time_mlp/3", embedding)

        x = x.view(self.count, -1, 2)
        state = state.view(x.shape)
        hidden = torch.cat([x, embedding.expand(-1, x.shape[1], -1), state], dim=-1)
        for layer in (0, 2, 4):
            hidden = F.mish(self.linear(f"mid_layer/{layer}", hidden))
        return self.linear("final_layer", hidden).reshape(-1, 2)

    def state_dict_of(self, index):
        """The state_dict of one of the networks."""
        weights = {}
        for name, values in self.named_parameters():
            weights[name.replace("/", ".")] = values[index].detach()
        return weights


def guided_loss(policy, batch, critic):
    """The mean over the policies, one for each of ETAS, of L_d + eta L_q: see guided.Guided."""
    action = batch.action.repeat(len(ETAS), 1)
    state = batch.state.repeat(len(ETAS), 1)
    q, other_q = critic(state, policy.sample(state))
    if torch.rand(()) <= 0.5:
        q, other_q = other_q, q
    mean = q.view(len(ETAS), -1).mean(dim=1)
    scale = other_q.view(len(ETAS), -1).abs().mean(dim=1).detach()
    ql_loss = (torch.tensor(ETAS) * -mean / scale).mean()
    return policy.loss(action, state) + ql_loss


# ---- Training ------------------------------------------------------------------------------------
def train_critics(steps, seed):
    """Trains the critics, and yields (step, batch, critic) after every step.

    On a bandit they regress on the rewards of the data, whatever the policy does. So every policy
    of one seed meets the same critics: their batches are drawn by a generator of their own.
    """
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    data = make_data(seed=seed)
    critic = DoubleCritic(2, 2, CRITIC_WIDTH)
    optimizer, schedule = make_optimizer(critic, steps)
    for step in range(1, steps + 1):
        index = torch.randint(len(data.action), (100,), generator=draw)
        batch = Batch(*[column[index] for column in data])
        q1, q2 = critic(batch.state, batch.action)
        loss = F.mse_loss(q1, batch.reward) + F.mse_loss(q2, batch.reward)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        critic.requires_grad_(False)  # or the policies' losses would move it
        yield step, batch, critic
        critic.requires_grad_(True)


def make_optimizer(network, steps):
    """Adam, and a learning rate that falls from 1e-2 to 0, as in toy_experiments/training.py."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-2, fused=True)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def train(make_policy, loss, export, steps, seed):
    """Trains make_policy() on loss(policy, batch, critic), a scalar.

    Returns [export(policy, critic) at each of MOMENTS].
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    policy = make_policy()
    optimizer, schedule = make_optimizer(policy, steps)
    moments = moments_of(steps)
    exported = []
    for step, batch, critic in train_critics(steps, seed):
        optimizer.zero_grad()
        loss(policy, batch, critic).backward()
        optimizer.step()
        schedule.step()
        if step in moments:
            exported.append(export(policy, critic))
    return exported


def moments_of(steps):
    return [round(share * steps) for share in MOMENTS]


def train_diffusion(n_timesteps, steps, seed):
    """Diffusion policies, one for each of ETAS: at each moment, [a denoiser's weights as text]."""

    def make_policy():
        policy = DiffusionPolicy(2, 2, n_timesteps, WIDTH)
        policy.model = Denoisers([Denoiser(2, 2, WIDTH) for _ in ETAS])
        return policy

    def export(policy, critic):
        return [denoiser_text(policy.model.state_dict_of(index)) for index in range(len(ETAS))]

    return train(make_policy, guided_loss, export, steps, seed)


def train_others(steps, seed):
    """All that is not diffusion: at each moment, a dict of the Gaussians, CVAE, MMD and critics."""

    def make_policy():
        gaussians = nn.ModuleList(TD3BC() for _ in ETAS)
        for gaussian, eta in zip(gaussians, ETAS, strict=True):
            gaussian.eta = eta
        return nn.ModuleDict({"Gaussian": gaussians, "CVAE": CVAE(hidden_dim=64), "MMD": MMD()})

    def loss(policy, batch, critic):
        total = policy["CVAE"].loss(batch.action, batch.state)
        total = total + policy["MMD"].loss(batch.action, batch.state)
        for gaussian in policy["Gaussian"]:
            total = total + gaussian.guided_loss(batch, critic)
        return total

    def export(policy, critic):
        return {
            "Gaussian": [gaussian_numbers(gaussian) for gaussian in policy["Gaussian"]],
            "MMD": gaussian_numbers(policy["MMD"]),
            "CVAE": text(without_state(linear_layers(policy["CVAE"].decoder), slice(2))),
            "critics": [
                text(without_state(linear_layers(critic.q1_model), slice(2))),
                text(without_state(linear_layers(critic.q2_model), slice(2))),
            ],
        }

    return train(make_policy, loss, export, steps, seed)


# ---- Networks as text ----------------------------------------------------------------------------
# The bandit's state is zero, so the first layer's columns for it are left out of the page.
def linear_layers(network):
    """The weights and biases of a network's linear layers, in their order."""
    return list(network.state_dict().values())


def without_state(weights, columns):
    """The weights and biases, where the first weight lacks the columns (a slice) of the state."""
    kept = torch.ones(weights[0].shape[1], dtype=torch.bool)
    kept[columns] = False
    return [weights[0][:, kept], *weights[1:]]


def denoiser_text(state_dict):
    """A denoiser as text: its time embedding's two layers, then the others."""
    weights = list(state_dict.values())
    return text([*weights[:4], *without_state(weights[4:], slice(18, 20))])


@torch.no_grad()
def gaussian_numbers(policy):
    """[mean, std] of a Gaussian, two numbers each."""
    normal = policy.distribution(torch.zeros(1, 2))
    return [rounded(normal.mean[0]), rounded(normal.stddev[0])]


def rounded(values):
    return [round(value, 5) for value in values.tolist()]


def text(tensors):
    """Tensors → all their numbers in half precision, in base64."""
    halves = torch.cat([tensor.flatten() for tensor in tensors]).half().numpy()
    return base64.b64encode(halves.astype("<f2").tobytes()).decode()


def numbers(encoded):
    """The inverse of `text`: a flat float32 tensor."""
    halves = np.frombuffer(base64.b64decode(encoded), dtype="<f2")
    return torch.as_tensor(halves.astype(np.float32))


def policy_from_text(weights, n_timesteps):
    """A policy of the page as a DiffusionPolicy: its states have no numbers, shape (B, 0)."""
    policy = DiffusionPolicy(0, 2, n_timesteps, WIDTH)
    nn.utils.vector_to_parameters(numbers(weights), policy.model.parameters())
    return policy


# ---- The page ------------------------------------------------------------------------------------
def train_networks(steps, seed):
    """Trains everything, on all cores. Returns what the page holds, a dict for JSON."""
    jobs = [joblib.delayed(train_others)(steps, seed)]
    for n in N_TIMESTEPS:
        jobs.append(joblib.delayed(train_diffusion)(n, steps, seed))
    slowest_first = jobs[::-1]
    *diffusion, others = joblib.Parallel(min(len(jobs), joblib.cpu_count()))(slowest_first)

    def of_all_moments(name):
        return [moment[name] for moment in others]

    return {
        "etas": ETAS,
        "N": N_TIMESTEPS,
        "steps": moments_of(steps),
        "seed": seed,
        "corners": [rounded(corner) for corner in CORNERS],
        "rewards": REWARDS.tolist(),
        "radius": RADIUS,
        "latent_clip": CVAE().latent_clip,
        "data": text([make_data(seed=seed).action[:1000]]),
        "shapes": {  # [outputs, inputs] of the linear layers
            "denoiser": shapes(Denoiser(0, 2, WIDTH)),
            "critic": shapes(DoubleCritic(0, 2, CRITIC_WIDTH).q1_model),
            "decoder": shapes(CVAE(state_dim=0, hidden_dim=64).decoder),
        },
        "diffusion": dict(zip(N_TIMESTEPS[::-1], diffusion, strict=True)),
        "Gaussian": of_all_moments("Gaussian"),
        "CVAE": of_all_moments("CVAE"),
        "MMD": of_all_moments("MMD"),
        "critics": of_all_moments("critics"),
    }


def shapes(network):
    return [list(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Linear)]


def networks_of(page):
    """The networks that a page (its text) holds."""
    _, _, rest = page.partition(BEGIN)
    networks, _, _ = rest.partition(END)
    return json.loads(networks)


def make_page(args):
    if args.steps < 20:
        raise ValueError("--steps: give at least 20")
    if args.train:
        networks = train_networks(args.steps, args.seed)
    elif args.out.exists():
        networks = networks_of(args.out.read_text())
    else:
        raise ValueError(f"{args.out} does not exist yet: run this without --no-train")
    template = (HERE / "playground_template.html").read_text()
    before, after = template.split(f"{BEGIN}NETWORKS{END}")
    page = before + BEGIN + json.dumps(networks, separators=(",", ":")) + END + after
    args.out.write_text(page)
    print(f"{args.out}: {len(page.encode()) / 1e6:.2f} MB")


def take_picture(args):
    """The page's picture for the README."""
    if not args.out.exists():
        raise ValueError(f"{args.out} does not exist yet: run this without --picture")
    browser = shutil.which("chromium")
    if browser is None:
        raise ValueError("no chromium here; on Debian: apt-get install chromium")
    picture = HERE / "figures" / "playground.png"
    picture.parent.mkdir(exist_ok=True)
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += ["--window-size=1280,720", "--virtual-time-budget=10000"]
    command += ["--force-prefers-reduced-motion", "--force-device-scale-factor=1"]
    command += [f"--screenshot={picture}", f"{args.out.resolve().as_uri()}#{PICTURED}"]
    subprocess.run(command, check=True, capture_output=True)
    print(picture)


def main():
    begin = time.time()
    args = tyro.cli(Args, description=__doc__)
    try:
        if args.picture:
            take_picture(args)
        else:
            make_page(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{time.time() - begin:.0f} seconds")


if __name__ == "__main__":
    main()
