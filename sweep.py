"""Many runs of diffusion_ql.py side by side on Ray, and the paper's table of their scores.

    python sweep.py                                       # two-roads, five seeds
    python sweep.py --envs walker2d-medium-expert hopper-medium --seeds 0 1 2 3 4 --out runs/gym
    python sweep.py --envs paper                          # the paper's Table 1: 20 tasks
    python sweep.py --steps 20000 --eta 0.5               # any option of diffusion_ql.py
    python sweep.py --gpus-per-run 0.2                    # five runs share a GPU
    python sweep.py --address auto                        # a Ray cluster; --out on a shared disk
    python sweep.py --out runs/gym --report               # the table again, without training

Each run has a CPU thread and the folder OUT/<env>/<seed>/. What is finished there is not repeated,
and what was stopped goes on, so the same command goes on after any interruption.
Needs Ray: pip install "ray>=2.40".
"""

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.figure import Figure
from scipy.stats import trim_mean
from tqdm import tqdm

import diffusion_ql
from diffusion_ql import DiffusionQL, UserError, write

KINDS = ("final", "online", "offline")
PAPER_SCORES = {  # Table 1 of the paper, mean over five seeds
    "halfcheetah-medium-v2": 51.1,
    "hopper-medium-v2": 90.5,
    "walker2d-medium-v2": 87.0,
    "halfcheetah-medium-replay-v2": 47.8,
    "hopper-medium-replay-v2": 101.3,
    "walker2d-medium-replay-v2": 95.5,
    "halfcheetah-medium-expert-v2": 96.8,
    "hopper-medium-expert-v2": 111.1,
    "walker2d-medium-expert-v2": 110.1,
    "antmaze-umaze": 93.4,
    "antmaze-umaze-diverse": 66.2,
    "antmaze-medium-play": 76.6,
    "antmaze-medium-diverse": 78.6,
    "antmaze-large-play": 46.4,
    "antmaze-large-diverse": 56.6,
    "pen-human-v1": 72.8,
    "pen-cloned-v1": 57.3,
    "kitchen-complete": 84.0,
    "kitchen-partial": 60.5,
    "kitchen-mixed": 62.6,
}


@dataclass
class Options:
    """Which runs, and where. All other options are those of diffusion_ql.py."""

    envs: tuple[str, ...] = ("two-roads",)  # what --env of diffusion_ql.py takes; paper: all 20
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    out: str = "runs/sweep"  # folder of the sweep
    gpus_per_run: float = 0  # a fraction lets runs share a GPU
    address: str = ""  # of a running Ray cluster (default: this machine alone)
    report: bool = False  # train nothing: write table and curves of what is there


class Progress:
    """A Ray actor: the step that each run has reached."""

    def __init__(self):
        self.steps = {}

    def report(self, folder, step):
        self.steps[folder] = step

    def total(self):
        return sum(self.steps.values())


class RemoteBar:
    """What train takes for a progress bar: it reports to the actor, twice a second at most."""

    def __init__(self, progress, folder, initial):
        self.progress = progress
        self.folder = folder
        self.step = initial
        self.reported = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.progress.report.remote(self.folder, self.step)

    def update(self):
        self.step += 1
        if time.monotonic() - self.reported > 0.5:
            self.reported = time.monotonic()
            self.progress.report.remote(self.folder, self.step)


def prepare(env):
    """Downloads or makes a dataset, once, before the runs that need it."""
    diffusion_ql.load_dataset(env)


def run(args, agent_class, progress, prepared):
    """One run of the sweep, from the beginning or from its checkpoint. Executed by Ray."""
    torch.set_num_threads(1)

    def bar(total, initial):
        return RemoteBar(progress, args.out, initial)

    if Path(args.out, "config.json").exists():
        args = replace(args, resume=args.out)
    diffusion_ql.train(args, agent_class=agent_class, progress_bar=bar)


def plan(options, settings):
    """The Args of all runs. settings: the remaining words of the command line."""
    envs = list(options.envs)
    if envs == ["paper"]:
        envs = list(PAPER_SCORES)
    runs = []
    for env in envs:
        args = diffusion_ql.parse_args([*settings, "--env", env])
        for seed in options.seeds:
            folder = Path(options.out, env, str(seed)).resolve()
            runs.append(replace(args, seed=seed, out=str(folder)))
    return runs


def sweep(runs, agent_class=DiffusionQL, gpus_per_run=0, address=""):
    """Trains what is not finished yet. Returns {folder: error} of the runs that failed.

    Raises KeyboardInterrupt after Ctrl-C, once all runs have saved.
    """
    waiting = [args for args in runs if not Path(args.out, "result.json").exists()]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them are done")
    if not waiting:
        return {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_ray()
    here = str(Path(__file__).resolve().parent)
    environment = {"env_vars": {"PYTHONPATH": here, "OMP_NUM_THREADS": "1"}}
    ray.init(address=address or None, log_to_driver=False, runtime_env=environment)
    progress = ray.remote(num_cpus=0)(Progress).remote()
    prepare_remotely = ray.remote(num_cpus=1)(prepare)
    run_remotely = ray.remote(num_cpus=1, num_gpus=gpus_per_run, max_retries=-1)(run)
    prepared = {env: prepare_remotely.remote(env) for env in {args.env for args in waiting}}
    folders = {}
    for args in waiting:
        task = run_remotely.remote(args, agent_class, progress, prepared[args.env])
        folders[task] = args.out
    try:
        return follow(ray, folders, progress, sum(args.steps for args in waiting))
    except KeyboardInterrupt:
        print("stopping: all runs save first", file=sys.stderr)
        for task in folders:
            ray.cancel(task)
        ray.wait(list(folders), num_returns=len(folders), timeout=120)
        raise
    finally:
        ray.shutdown()


def import_ray():
    try:
        import ray
    except ImportError as error:
        raise UserError('the sweep needs Ray: pip install "ray>=2.40"') from error
    return ray


def follow(ray, folders, progress, total):
    """Shows a bar over all steps until all tasks have ended; returns {folder: error}."""
    failed = {}
    pending = list(folders)
    with tqdm(total=total, unit="step", smoothing=0.02) as bar:
        while pending:
            ended, pending = ray.wait(pending, timeout=1)
            bar.update(ray.get(progress.total.remote()) - bar.n)
            for task in ended:
                name = "/".join(Path(folders[task]).parts[-2:])
                try:
                    ray.get(task)
                    result = json.loads(Path(folders[task], "result.json").read_text())
                    bar.write(f"{name}: score {result['final']['score']:.1f}")
                except ray.exceptions.RayError as error:
                    failed[folders[task]] = str(getattr(error, "cause", error)).split("\n")[0]
                    bar.write(f"{name} failed: {failed[folders[task]]}")
    return failed


# ---- Table and curves ----------------------------------------------------------------------------
def collect(out):
    """A table with a row per finished run: env, seed, and the score that each selection gives."""
    rows = []
    for path in sorted(Path(out).rglob("result.json")):
        result = json.loads(path.read_text())
        env = path.parents[1].relative_to(out).as_posix()
        row = {"env": env, "seed": int(path.parent.name)}
        for kind in KINDS:
            row[kind] = result[kind]["score"]
        rows.append(row)
    if not rows:
        raise UserError(f"no run is finished in {out}: train first, or give another --out")
    return pd.DataFrame(rows)


def interquartile_mean(runs, kind, samples=2000):
    """The mean of the middle half of all scores, and its 95 % interval.

    The interval is a bootstrap that draws seeds anew within each task, as rliable does (Agarwal et
    al. 2021).
    """
    tasks = [scores.to_numpy() for _, scores in runs.groupby("env")[kind]]
    draw = np.random.default_rng(0)
    estimates = []
    for _ in range(samples):
        resampled = [draw.choice(scores, len(scores)) for scores in tasks]
        estimates.append(trim_mean(np.concatenate(resampled), 0.25))
    low, high = np.percentile(estimates, [2.5, 97.5])
    return f"{trim_mean(np.concatenate(tasks), 0.25):.1f} [{low:.1f}, {high:.1f}]"


def make_table(runs):
    """A row per task: mean ± std over the seeds, and the paper's score; then the averages."""
    table = []
    for env, own in runs.groupby("env", sort=False):
        row = {"task": env, "seeds": len(own), "paper": PAPER_SCORES.get(env)}
        for kind in KINDS:
            row[kind] = f"{own[kind].mean():.1f} ± {own[kind].std(ddof=0):.1f}"
        table.append(row)
    for domain, envs in domains().items():
        own = runs[runs["env"].isin(envs)]
        if set(own["env"]) == set(envs):  # complete, as in Table 1
            row = {"task": f"average of {domain}", "seeds": len(own)}
            row["paper"] = round(np.mean([PAPER_SCORES[env] for env in envs]), 1)
            for kind in KINDS:
                row[kind] = f"{own.groupby('env')[kind].mean().mean():.1f}"
            table.append(row)
    row = {"task": "interquartile mean [95 %]", "seeds": len(runs)}
    for kind in KINDS:
        row[kind] = interquartile_mean(runs, kind)
    table.append(row)
    return pd.DataFrame(table)[["task", *KINDS, "paper", "seeds"]]


def domains():
    """{Gym, antmaze, pen, kitchen: the tasks of Table 1}."""
    groups = {}
    for env in PAPER_SCORES:
        domain = env.split("-")[0]
        if env.endswith("-v2"):
            domain = "Gym"
        groups.setdefault(domain, []).append(env)
    return groups


def draw_curves(out, runs, path):
    """A panel per task: each seed thin, their mean thick, the spread, and the paper's score."""
    envs = list(runs["env"].unique())
    columns = min(4, len(envs))
    figure = Figure(figsize=(4 * columns, 3 * -(-len(envs) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(envs) // columns), columns, squeeze=False).flatten()
    for axis in axes[len(envs) :]:
        axis.set_axis_off()
    for axis, env in zip(axes, envs, strict=False):
        seeds = runs[runs["env"] == env]["seed"]
        curves = [pd.read_csv(Path(out, env, str(seed), "progress.csv")) for seed in seeds]
        for curve in curves:
            axis.plot(curve["step"], curve["score"], color="#0072B2", lw=0.6, alpha=0.6)
        at_step = pd.concat(curves).groupby("step")["score"]
        mean, std = at_step.mean(), at_step.std(ddof=0)
        axis.plot(mean.index, mean, color="#0072B2", lw=2)
        axis.fill_between(mean.index, mean - std, mean + std, color="#0072B2", alpha=0.2)
        if env in PAPER_SCORES:
            axis.axhline(PAPER_SCORES[env], color="black", ls="--")
        axis.set(title=f"{env}, {len(seeds)} seeds", xlabel="gradient step", ylabel="score")
    figure.savefig(path, dpi=120)


def report(out):
    """Writes table.md, table.csv and curves.png into the sweep's folder; prints the table."""
    runs = collect(out)
    table = make_table(runs).fillna("")
    lines = [" | ".join(map(str, row)) for row in [table.columns, *table.to_numpy()]]
    lines.insert(1, " | ".join(["---"] * len(table.columns)))
    text = "".join(f"| {line} |\n" for line in lines)
    write(Path(out, "table.md"), lambda path: path.write_text(text))
    write(Path(out, "table.csv"), lambda path: table.to_csv(path, index=False))
    write(Path(out, "curves.png"), lambda path: draw_curves(out, runs, path))
    print(text)


# ---- Command line --------------------------------------------------------------------------------
def main():
    options, settings = tyro.cli(Options, description=__doc__, return_unknown_args=True)
    failed = {}
    try:
        if not options.report:
            runs = plan(options, settings)
            failed = sweep(runs, gpus_per_run=options.gpus_per_run, address=options.address)
        report(options.out)
    except KeyboardInterrupt:
        print("Stopped; all runs are saved. The same command goes on.", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for folder, error in failed.items():
        print(f"failed: {folder}: {error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
