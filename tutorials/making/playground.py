"""Makes playground.html, a page that needs nothing else, of runs on the bandit.

    python tutorials/making/playground.py             # trains what is missing: an hour of one core
    python tutorials/making/playground.py --picture   # its screenshot for the README, by Chromium

The page is playground_template.html: its style, its text and its JavaScript are edited there. This
script puts networks into it, in half precision: narrow diffusion policies for several eta and N,
Gaussians for several eta, a CVAE and MMD that clone, and the critics, each at several moments of
one run.
"""

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a script finds only its own folder

from diffusion_ql import Denoiser, DiffusionPolicy, DoubleCritic, load_agent, write
from forks import CVAEArgs, CVAEPolicy
from toy_experiments import pictures
from toy_experiments.bandit import CORNERS, RADIUS, REWARDS, make_data

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "playground.html"
ETAS = (0.0, 0.1, 0.5, 1.0, 2.5, 10.0, 100.0)  # 0: cloning
N_TIMESTEPS = (2, 5, 10, 50)
EVAL_EVERY = 250  # steps between the agents that a run keeps
MOMENTS = (250, 1000, 2000, 3000, 5000)  # steps of the agents that the page shows
WIDTH = 32  # of the denoisers: at most 2 MB for all
OTHER_WIDTH = 64  # of all other networks
BEGIN = '<script type="application/json" id="networks">'  # the networks in the page
END = "</script>"
PICTURED = "theme=light&eta=1&N=50&heat=1"  # the state of the page in its picture


@dataclass
class Options(pictures.Options):
    """Trains what is missing, and writes the page."""

    out: Path = Path("runs/playground")  # folder of the runs
    seeds: tuple[int, ...] = (0,)  # one seed
    steps: int = 5000  # the last of MOMENTS
    page: Path = PAGE  # to write
    picture: bool = False  # only take the page's picture, figures/playground.png


# ---- Runs ----------------------------------------------------------------------------------------
def diffusion_row(eta, n_timesteps):
    return f"diffusion, eta = {eta}, N = {n_timesteps}"


def gaussian_row(eta):
    return f"Gaussian, eta = {eta}"


def make_rows():
    """{row: (method, task, options)}, as in toy_experiments."""
    rows = {}
    for n in N_TIMESTEPS:
        for eta in ETAS:
            options = f"--eta {eta} --n-timesteps {n} --hidden-dim {WIDTH}"
            rows[diffusion_row(eta, n)] = ("DiffusionQL", "bandit", options)
    others = f"--hidden-dim {OTHER_WIDTH}"
    for eta in ETAS:
        rows[gaussian_row(eta)] = ("GaussianQL", "bandit", f"--eta {eta} {others}")
    rows["CVAE"] = ("BCCVAE", "bandit", others)
    rows["MMD"] = ("BCMMD", "bandit", others)
    period = f" --eval-every {EVAL_EVERY}"
    return {row: (method, task, options + period) for row, (method, task, options) in rows.items()}


def agents_of(rows, row, options):
    """The agent of a row's run at each of MOMENTS."""
    method, task, _ = rows[row]
    folder = pictures.row_folder(options.out, row) / method / task / str(options.seeds[0])
    return [load_agent(folder, step) for step in MOMENTS]


def networks_of_runs(rows, options):
    """What the page holds, a dict for JSON."""
    diffusion = {}
    for n in N_TIMESTEPS:
        by_eta = [agents_of(rows, diffusion_row(eta, n), options) for eta in ETAS]
        at_moments = zip(*by_eta, strict=True)
        diffusion[n] = [[denoiser_text(agent) for agent in agents] for agents in at_moments]
    gaussians = [agents_of(rows, gaussian_row(eta), options) for eta in ETAS]
    by_moment = zip(*gaussians, strict=True)
    critics = [agent.critic for agent in gaussians[ETAS.index(1.0)]]
    return {
        "etas": ETAS,
        "N": N_TIMESTEPS,
        "steps": MOMENTS,
        "seed": options.seeds[0],
        "corners": [rounded(corner) for corner in CORNERS],
        "rewards": REWARDS,
        "radius": RADIUS,
        "latent_clip": CVAEArgs().latent_clip,
        "data": text([make_data().action[:1000]]),
        "shapes": {  # [outputs, inputs] of the linear layers
            "denoiser": shapes(Denoiser(0, 2, WIDTH)),
            "critic": shapes(DoubleCritic(0, 2, OTHER_WIDTH).q1_model),
            "decoder": shapes(CVAEPolicy(0, 2, OTHER_WIDTH, CVAEArgs()).decoder),
        },
        "diffusion": diffusion,
        "Gaussian": [[gaussian_numbers(agent) for agent in agents] for agents in by_moment],
        "CVAE": [decoder_text(agent) for agent in agents_of(rows, "CVAE", options)],
        "MMD": [gaussian_numbers(agent) for agent in agents_of(rows, "MMD", options)],
        "critics": [critic_texts(critic) for critic in critics],
    }


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


def denoiser_text(agent):
    """A denoiser as text: its time embedding's two layers, then the others."""
    weights = linear_layers(agent.actor.model)
    return text([*weights[:4], *without_state(weights[4:], slice(18, 20))])


def decoder_text(agent):
    return text(without_state(linear_layers(agent.actor.decoder), slice(2)))


def critic_texts(critic):
    """Both critics."""
    models = (critic.q1_model, critic.q2_model)
    return [text(without_state(linear_layers(model), slice(2))) for model in models]


@torch.no_grad()
def gaussian_numbers(agent):
    """[mean, std] of a Gaussian, two numbers each."""
    normal = agent.actor.distribution(torch.zeros(1, 2))
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
def shapes(network):
    return [list(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Linear)]


def networks_of(page):
    """The networks that a page (its text) holds."""
    _, _, rest = page.partition(BEGIN)
    networks, _, _ = rest.partition(END)
    return json.loads(networks)


def make_page(options):
    if options.picture:
        return take_picture(options.page)
    rows = make_rows()
    pictures.train(rows, options)
    networks = json.dumps(networks_of_runs(rows, options), separators=(",", ":"))
    template = (HERE / "playground_template.html").read_text()
    page = template.replace(f"{BEGIN}NETWORKS{END}", BEGIN + networks + END)
    write(options.page, lambda path: path.write_text(page))
    print(f"{options.page}: {len(page.encode()) / 1e6:.2f} MB")


def take_picture(page):
    """The page's picture for the README."""
    browser = shutil.which("chromium")
    if browser is None:
        raise ValueError("no chromium here; on Debian: apt-get install chromium")
    picture = HERE.parent / "figures" / "playground.png"
    picture.parent.mkdir(exist_ok=True)
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += ["--window-size=1280,720", "--virtual-time-budget=10000"]
    command += ["--force-prefers-reduced-motion", "--force-device-scale-factor=1"]
    command += [f"--screenshot={picture}", f"{page.resolve().as_uri()}#{PICTURED}"]
    subprocess.run(command, check=True, capture_output=True)
    print(picture)


def main():
    pictures.run_command(Options(), make_page, __doc__)


if __name__ == "__main__":
    main()
