"""What the scripts of the figures share: their options, and how they start and end."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

# The lowest value of each option that is a number, and of each number in a list.
LOWEST = {
    "seed": 0,
    "seeds": 1,
    "steps": 0,
    "n_timesteps": 1,
    "kl_weight": 0,
    "latent_clip": 0,
    "sigma": 0.001,
}


@dataclass
class Options:
    """The options that all figures have. A script adds its own, and the defaults, in a subclass."""

    seed: int = 2022  # random seed, the first of --seeds (2022 is the paper's)
    seeds: int = 1  # how many seeds; with several, the table gives mean ± std over them
    steps: int = 0
    methods: tuple[str, ...] = ()
    out: Path = Path()

    def __post_init__(self):
        """Raises ValueError where a value makes no sense."""
        known = type(self).methods  # the default: all
        if not self.methods:
            raise ValueError(f"--methods: give some of {', '.join(known)}")
        for method in self.methods:
            if method not in known:
                reason = f"--methods {method}: invalid choice"
                raise ValueError(f"{reason}, give some of {', '.join(known)}")
        for name, lowest in LOWEST.items():
            check_number(name, getattr(self, name, lowest), lowest)


def check_number(name, value, lowest):
    """Raises ValueError if a number, or one in a tuple, is below `lowest`, NaN or huge."""
    numbers = value
    if not isinstance(value, tuple):
        numbers = (value,)
    option = f"--{name.replace('_', '-')}"
    if not numbers:
        raise ValueError(f"{option}: give at least one number")
    for number in numbers:
        if not lowest <= number <= 10**9:
            raise ValueError(f"{option} {number}: give a number from {lowest} to 10^9")


def run_script(options, make_figure, description):
    """Reads the command line into options, a subclass of Options; then make_figure(args)."""
    begin = time.time()
    try:
        args = tyro.cli(options, description=description)
        args.out.mkdir(parents=True, exist_ok=True)
        make_figure(args)
        print(f"{time.time() - begin:.0f} seconds")
    except KeyboardInterrupt:
        print("stopped; no figure was written", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
