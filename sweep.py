"""Many runs of diffusion_ql.py side by side on Ray, and the paper's table of their scores.

    python sweep.py                                       # two-roads, five seeds
    python sweep.py --envs walker2d-medium-expert hopper-medium --seeds 0 1 2 3 4 --out runs/gym
    python sweep.py --envs paper                          # the paper's Table 1: 20 tasks
    python sweep.py --steps 20000 --eta 0.5               # any option of diffusion_ql.py
    python sweep.py --gpus-per-run 0.2                    # five runs share a GPU
    python sweep.py --address auto                        # a Ray cluster; --out on a shared disk
    python sweep.py --out runs/gym --report               # the table again, without training

After any interruption the same command goes on: finished runs stay in OUT/<env>/<seed>/.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from scipy.stats import trim_mean
from tqdm import tqdm

import diffusion_ql
from diffusion_ql import DiffusionQL, UserError, write

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_worker_niceness="0")
import ray

SELECTIONS = ["final", "online", "offline"]
# fmt: off
PAPER = pd.Series({  # Table 1 of the paper: means over five seeds
    "halfcheetah-medium-v2": 51.1, "hopper-medium-v2": 90.5, "walker2d-medium-v2": 87.0,
    "halfcheetah-medium-replay-v2": 47.8, "hopper-medium-replay-v2": 101.3,
    "walker2d-medium-replay-v2": 95.5, "halfcheetah-medium-expert-v2": 96.8,
    "hopper-medium-expert-v2": 111.1, "walker2d-medium-expert-v2": 110.1,
    "antmaze-umaze": 93.4, "antmaze-umaze-diverse": 66.2, "antmaze-medium-play": 76.6,
    "antmaze-medium-diverse": 78.6, "antmaze-large-play": 46.4, "antmaze-large-diverse": 56.6,
    "pen-human-v1": 72.8, "pen-cloned-v1": 57.3,
    "kitchen-complete": 84.0, "kitchen-partial": 60.5, "kitchen-mixed": 62.6,
})
# fmt: on
DOMAINS = {"Gym": "-v2", "AntMaze": "antmaze", "Adroit": "pen", "Kitchen": "kitchen"}  # in names


@dataclass
class Options:
    """Which runs, and where. All other options are those of diffusion_ql.py."""

    envs: tuple[str, ...] = ("two-roads",)  # what --env of diffusion_ql.py takes; paper: all 20
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    out: str = "runs/sweep"  # folder of the sweep
    gpus_per_run: float = 0  # a fraction lets runs share a GPU
    address: str = ""  # of a running Ray cluster (default: this machine alone)
    report: bool = False  # train nothing: write table and curves of what is there


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Progress:
    """The step that each run has reached."""

    steps = {}

    def report(self, folder, step):
        self.steps[folder] = step

    def total(self):
        return sum(self.steps.values())


@ray.remote(max_retries=20)  # of workers and nodes that died; a run that fails is not repeated
def run(args, agent_class, progress):
    """One run of the sweep, from the beginning or from its checkpoint."""

    class RemoteBar(tqdm):
        def display(self, *_, **__):  # tqdm would draw the bar here
            progress.report.remote(args.out, self.n)

    if Path(args.out, "config.json").exists():
        args = replace(args, resume=args.out)
    diffusion_ql.train(args, agent_class=agent_class, progress_bar=RemoteBar)


def plan(envs, seeds, out, settings=()):
    """The Args of all runs. settings: options of diffusion_ql.py, which a begun run keeps."""
    envs = PAPER.index if list(envs) == ["paper"] else envs
    if {"--env", "--seed", "--resume"} & {setting.split("=")[0] for setting in settings}:
        raise UserError("a sweep takes --envs, --seeds and --out: its runs get theirs from these")
    runs = []
    for env, seed in product(envs, map(str, seeds)):
        folder = Path(out, env, seed).resolve()
        resume = ["--resume", str(folder)] if (folder / "config.json").exists() else []
        chosen = ["--env", env, "--seed", seed, "--out", str(folder), *resume]
        runs.append(diffusion_ql.parse_args([*settings, *chosen]))
    return runs


def sweep(envs, seeds, out="runs/sweep", settings=(), agent_class=DiffusionQL, gpus=0, address=""):
    """Trains what is not finished yet. Returns the errors of runs that failed, a line for each.

    settings: as in `plan`; gpus: of each run; agent_class: a fork's. Raises UserError, and
    KeyboardInterrupt after Ctrl-C, once all runs have saved.
    """
    runs = plan(envs, seeds, out, ["--device", "cuda" if gpus else "cpu", *settings])
    waiting = [args for args in runs if not Path(args.out, "result.json").exists()]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them are done")
    if not waiting:
        return []
    for env in {args.env for args in waiting}:
        with suppress(UserError):  # its runs will say what is wrong
            diffusion_ql.load_dataset(env)  # downloaded or made once, before they start
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # a fork's own module, too
    with ray.init(address or "local", log_to_driver=False, runtime_env=path):
        progress = Progress.remote()
        start = run.options(num_gpus=gpus).remote
        tasks = {start(args, agent_class, progress): args for args in waiting}
        try:
            return follow(tasks, progress)
        except KeyboardInterrupt:
            print("stopping: all runs save; the same command goes on", file=sys.stderr)
            for task in tasks:
                ray.cancel(task)  # as Ctrl-C: a run saves, and stops
            ray.wait(list(tasks), num_returns=len(tasks), timeout=120)
            raise


def follow(tasks, progress):
    """Shows a bar over all steps of tasks {task: args} until they have ended; see `sweep`."""
    failed = []
    pending = list(tasks)
    with tqdm(total=sum(args.steps for args in tasks.values()), unit="step", smoothing=0.02) as bar:
        while pending:
            ended, pending = ray.wait(pending, timeout=1)
            bar.update(ray.get(progress.total.remote()) - bar.n)
            for task in ended:
                try:
                    ray.get(task)
                    bar.write(f"finished: {tasks[task].out}")
                except ray.exceptions.RayError as error:
                    reason = " ".join(str(getattr(error, "cause", error)).splitlines()[:2])
                    failed.append(f"failed: {tasks[task].out}: {reason}")
                    bar.write(failed[-1])
    return failed


def collect(out):
    """A table with a row per finished run: task, seed, and the score that each selection gives."""
    rows = []
    for path in sorted(Path(out).rglob("result.json")):
        *task, seed, _ = path.relative_to(out).parts
        result = json.loads(path.read_text())
        scores = {selection: result[selection]["score"] for selection in SELECTIONS}
        rows.append({"task": "/".join(task), "seed": int(seed), **scores})
    if not rows:
        raise UserError(f"no run is finished in {out}: train first, or give another --out")
    return pd.DataFrame(rows)


def interquartile_mean(runs, selection):
    """The mean of the middle half of all scores, and its 95 % interval by a bootstrap."""
    by_task = runs.groupby("task")[selection]  # each draws its seeds anew (Agarwal et al. 2021)
    draws = (by_task.sample(frac=1, replace=True, random_state=i) for i in range(1000))
    estimates = [trim_mean(scores, 0.25) for scores in draws]
    low, high = np.percentile(estimates, [2.5, 97.5])
    return f"{trim_mean(runs[selection], 0.25):.1f} [{low:.1f}, {high:.1f}]"


def make_table(runs):
    """A row per task: mean ± std over the seeds, and the paper's score; then the averages."""
    tasks = runs.groupby("task")
    means = tasks[SELECTIONS].mean()
    table = tasks[SELECTIONS].agg(lambda scores: f"{scores.mean():.1f} ± {scores.std(ddof=0):.1f}")
    table = table.assign(paper=PAPER, seeds=tasks.size()).astype(object)
    for domain, name in DOMAINS.items():
        paper = PAPER[PAPER.index.str.contains(name)]
        if paper.index.isin(means.index).all():  # complete, as in Table 1
            averages = [*means.loc[paper.index].mean(), paper.mean()]
            table.loc[f"average of {domain}"] = [*np.round(averages, 1), None]
    over_all = [interquartile_mean(runs, selection) for selection in SELECTIONS]
    table.loc["interquartile mean [95 %]"] = [*over_all, None, len(runs)]
    return table.fillna("").reset_index()


def draw_curves(out, runs, path):
    """A panel per task: each seed thin, their mean thick, the spread, and the paper's score."""
    tasks = runs.groupby("task")["seed"]
    columns = min(4, len(tasks))
    rows = (len(tasks) + columns - 1) // columns
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for place, (task, seeds) in enumerate(tasks, start=1):
        axis = figure.add_subplot(rows, columns, place)
        files = [Path(out, task, str(seed), "progress.csv") for seed in seeds]
        curves = [pd.read_csv(file, index_col="step")["score"] for file in files]
        scores = pd.concat(curves, axis=1)
        mean = scores.mean(axis=1)
        std = scores.std(axis=1, ddof=0)
        axis.plot(scores, color="#0072B2", lw=0.6, alpha=0.6)
        axis.plot(mean, color="#0072B2", lw=2)
        axis.fill_between(mean.index, mean - std, mean + std, color="#0072B2", alpha=0.2)
        axis.axhline(PAPER.get(task, np.nan), color="black", ls="--")  # the paper's score
        axis.set(title=f"{task}, {len(seeds)} seeds", xlabel="gradient step", ylabel="score")
    figure.savefig(path, dpi=120)


def report(out):
    """Writes table.md, table.csv and curves.png into the sweep's folder; prints the table."""
    runs = collect(out)
    table = make_table(runs)
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    text = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    write(Path(out, "table.md"), lambda path: path.write_text(text))
    write(Path(out, "table.csv"), lambda path: table.to_csv(path, index=False))
    write(Path(out, "curves.png"), lambda path: draw_curves(out, runs, path))
    print(text)


def main():
    options, settings = tyro.cli(Options, description=__doc__, return_unknown_args=True)
    failed = []
    try:
        if not options.report:
            chosen = (options.envs, options.seeds, options.out, settings)
            failed = sweep(*chosen, gpus=options.gpus_per_run, address=options.address)
        report(options.out)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", *failed, sep="\n", file=sys.stderr)
        sys.exit(2)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
