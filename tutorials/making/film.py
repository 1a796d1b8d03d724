"""The README's moving picture: noise becomes actions, without a reward and with one.

    python tutorials/making/film.py    # seconds: it trains nothing

The policies are the playground's (tutorials/playground.html, made by playground.py): one
diffusion model that clones the bandit's data, and one that climbs Q besides. Both start from the
same noise. Writes film.gif, and prints what share of 2,000 samples ends where.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a script finds only its own folder

from diffusion_ql import write
from toy_experiments.bandit import CORNERS, RADIUS, REWARDS, measure
from toy_experiments.pictures import COLORS
from tutorials.making.playground import PAGE, networks_of, policy_from_text

FIGURES = Path(__file__).resolve().parents[1] / "figures"
N_TIMESTEPS = 50  # as on the paper's bandit
PANELS = {  # title: (eta, color)
    "cloning by diffusion": (0.0, COLORS["diffusion"]),
    "Diffusion-QL: with a reward": (1.0, COLORS["Diffusion-QL"]),
}
DRAWN = 500  # of the samples
# The denoising steps that are shown, and for how many milliseconds each: little is to be seen in
# the first ones, and the film rests on the noise and on the actions.
SHOWN = {
    0: 1000,
    **dict.fromkeys(range(2, 31, 2), 60),
    **dict.fromkeys(range(31, 50), 130),
    50: 4000,
}


@dataclass
class Args:
    out: Path = FIGURES  # folder of the film
    seed: int = 0  # of the noise


def load_policy(eta):
    """The playground's diffusion policy with this eta, at the end of its training."""
    networks = networks_of(PAGE.read_text())
    at_the_end = networks["diffusion"][str(N_TIMESTEPS)][-1]
    return policy_from_text(at_the_end[networks["etas"].index(eta)], N_TIMESTEPS)


@torch.no_grad()
def denoise(policy, seed, n=2000):
    """Samples on their way from noise to actions: (N + 1, n, 2)."""
    torch.manual_seed(seed)
    state = torch.zeros(n, 0)  # the page leaves the bandit's state out
    x = torch.randn(n, 2)
    way = [x]
    for i in reversed(range(policy.n_timesteps)):
        x = policy.p_sample(x, i, state)
        way.append(x)
    return torch.stack(way)


class Screen:
    """The two panels, drawn once; then only the points and the lines below them change."""

    def __init__(self, ways):
        """ways: {title: (N + 1, n, 2)}."""
        self.ways = ways
        self.figure = Figure(figsize=(8, 4.7), dpi=90)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.subplots(1, len(ways))
        self.figure.subplots_adjust(left=0.01, right=0.99, bottom=0.09, top=0.91, wspace=0.03)
        self.points = []
        for axis, title in zip(self.axes, ways, strict=True):
            eta, color = PANELS[title]
            draw_corners(axis, with_reward=eta > 0)
            self.points.append(axis.scatter([], [], s=9, color=color, linewidths=0))
            axis.set(xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), xticks=[], yticks=[])
            axis.set_aspect("equal")
            axis.set_title(title, size=18)

    def frame(self, step):
        """The picture after this many denoising steps: an Image in 16 colours."""
        below = f"step {step} of {N_TIMESTEPS}"
        if step == 0:
            below = "noise"
        for axis, points, way in zip(self.axes, self.points, self.ways.values(), strict=True):
            points.set_offsets(way[step, :DRAWN].numpy())
            if step == N_TIMESTEPS:
                on_corner, on_best = shares(way)
                below = f"{on_corner}, {on_best}"
            axis.set_xlabel(below, size=14.5)
        self.canvas.draw()
        image = Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3])
        return image.quantize(16, dither=Image.Dither.NONE)


def draw_corners(axis, with_reward):
    """A circle around each corner, and what it pays."""
    for (x, y), reward in zip(CORNERS.tolist(), REWARDS, strict=True):
        axis.add_patch(Circle((x, y), RADIUS, fill=False, color="#999999", lw=1.5))
        if with_reward:
            place = (x, y + np.sign(y) * 0.45)
            text = axis.annotate(f"pays {reward:g}", place, ha="center", va="center", size=16)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})


def make_ways(seed):
    """{title of a panel: its samples on their way (N + 1, n, 2)}."""
    return {title: denoise(load_policy(eta), seed) for title, (eta, _) in PANELS.items()}


def shares(way):
    """How many samples of a way end on a corner, and how many on the best one: two texts."""
    numbers = measure(way[-1])
    return f"{numbers['on_mode']:.0%} on a corner", f"{numbers['best_corner']:.0%} on the best"


def main():
    args = tyro.cli(Args, description=__doc__)
    ways = make_ways(args.seed)
    screen = Screen(ways)
    first, *others = [screen.frame(step) for step in SHOWN]
    durations = list(SHOWN.values())
    film = dict(format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "film.gif", lambda path: first.save(path, **film))
    for title, way in ways.items():
        print(f"{title}: {', '.join(shares(way))}")
    print(f"film: {args.out / 'film.gif'}")


if __name__ == "__main__":
    main()
