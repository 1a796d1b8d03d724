"""Figure 1: cloning the bandit's four corners by a Gaussian, a CVAE, MMD and diffusion.

    python toy_experiments/behavior_cloning.py            # the figure, and its numbers
    python toy_experiments/behavior_cloning.py --seeds 5  # mean and spread over five seeds
    python toy_experiments/behavior_cloning.py --methods diffusion --n-timesteps 5

All numbers are measured on 2,000 samples of a policy.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from repository import FIGURES

from toy_experiments import figures
from toy_experiments.cloning import METHODS
from toy_experiments.command_line import Options, check_number, run_script
from toy_experiments.training import clone


@dataclass
class Args(Options):
    steps: int = 5000  # gradient steps of each method
    methods: tuple[str, ...] = tuple(METHODS)  # what to compare
    out: Path = FIGURES  # folder of the figure
    n_timesteps: int = 50  # denoising steps N of the diffusion policy
    kl_weight: float = 0.5  # weight of the KL term of CVAE and MMD
    latent_clip: float = 0.5  # bound of their latent when sampling
    sigma: float = 20.0  # width of MMD's kernel

    def __post_init__(self):
        super().__post_init__()
        check_number("steps", self.steps, lowest=1)


def make_figure(args):
    cvae = dict(kl_weight=args.kl_weight, latent_clip=args.latent_clip)
    settings = {
        "CVAE": cvae,
        "MMD": dict(cvae, sigma=args.sigma),
        "diffusion": dict(n_timesteps=args.n_timesteps),
    }
    rows = {}
    for method in args.methods:
        make_policy = partial(METHODS[method], **settings.get(method, {}))
        rows[method] = (clone, dict(make_policy=make_policy, steps=args.steps))
    results = figures.run_seeds(rows, args)

    figure = figures.draw_methods(
        results,
        args.seed,
        data_caption="four corners,\nstd 0.05 around each",
        caption=figures.cloning_caption,
    )
    settings = f"{args.steps:,} steps; diffusion with N = {args.n_timesteps}"
    figure.suptitle(f"Cloning ({settings}; {figures.seeds_text(args)})", fontsize=10)
    figures.save("behavior_cloning", figure, args, results=results)
    print(figures.table(results, figures.CLONING_COLUMNS))


if __name__ == "__main__":
    run_script(Args, make_figure, description=__doc__)
