"""Many runs side by side on Ray, and the table and the curves of their scores.

    python sweep.py                                       # Diffusion-QL on two-roads, five seeds
    python sweep.py --methods DiffusionQL EDP FQL         # methods of forks.py, or my_file.MyFork
    python sweep.py --envs walker2d-medium-expert hopper-medium --seeds 0 1 2 3 4 --out runs/gym
    python sweep.py --envs paper                          # the paper's Table 1: 20 tasks
    python sweep.py --steps 20000 --eta 0.5               # any option of diffusion_ql.py
    python sweep.py --device cuda --gpus-per-run 0.2      # five runs share a GPU
    python sweep.py --address auto                        # a Ray cluster; --out on a shared disk
    python sweep.py --out runs/gym --report               # the table again, without training

After any interruption the same command goes on; with more --steps, finished runs go on, too. Runs
stay in OUT/<method>/<env>/<seed>/.
"""

import json
import os
import pydoc
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

import diffusion_ql
from diffusion_ql import write

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_worker_niceness="0")
import ray

SELECTIONS = ["final", "online", "offline"]
# fmt: off
PAPER = pd.Series({  # Table 1 of the paper: Diffusion-QL's means over five seeds
    "halfcheetah-medium-v2": 51.1, "hopper-medium-v2": 90.5, "walker2d-medium-v2": 87.0,
    "halfcheetah-medium-replay-v2": 47.8, "hopper-medium-replay-v2": 101.3,
    "walker2d-medium-replay-v2": 95.5, "halfcheetah-medium-expert-v2": 96.8,
    "hopper-medium-expert-v2": 111.1, "walker2d-medium-expert-v2": 110.1,
    "antmaze-umaze": 93.4, "antmaze-umaze-diverse": 66.2, "antmaze-medium-play": 76.6,
    "antmaze-medium-diverse": 78.6, "antmaze-large-play": 46.4, "antmaze-large-diverse": 56.6,
    "pen-human-v1": 72.8, "pen-cloned-v1": 57.3,
    "kitchen-complete-v0": 84.0, "kitchen-partial-v0": 60.5, "kitchen-mixed-v0": 62.6,
})
# fmt: on
DOMAINS = {"Gym": "-v2", "AntMaze": "antmaze", "Adroit": "pen", "Kitchen": "kitchen"}  # in names
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442"]


@dataclass
class Options:
    """Which runs, and where. All other options are those of diffusion_ql.py."""

    methods: tuple[str, ...] = ("DiffusionQL",)  # names in forks.py, or of your own: my_file.MyFork
    envs: tuple[str, ...] = ("two-roads",)  # what --env of diffusion_ql.py takes; paper: all 20
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    out: str = "runs/sweep"  # folder of the sweep
    gpus_per_run: float = 0  # a fraction lets runs share a GPU (with --device cuda: 1)
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


def find_method(name):
    """The class of a method: of forks.py, or "module.Class". Raises ValueError."""
    try:
        found = pydoc.locate(name if "." in name else f"forks.{name}")
    except pydoc.ErrorDuringImport as error:
        raise ValueError(f"--methods {name}: {error.exc.__name__}: {error.value}") from error
    if not hasattr(found, "Args"):
        import forks

        known = ", ".join(["DiffusionQL", *forks.METHODS])
        raise ValueError(f"no method {name!r}: give some of {known}, or my_file.MyFork")
    return found


def plan(envs, seeds, out, settings=(), methods=("DiffusionQL",)):
    """[(Args, class of the agent)] of all runs. settings: options, which a begun run keeps."""
    envs = PAPER.index if list(envs) == ["paper"] else envs
    if {"--env", "--seed", "--resume"} & {setting.split("=")[0] for setting in settings}:
        raise ValueError("a sweep takes --envs, --seeds and --out: its runs get theirs from these")
    found = [find_method(method) for method in methods]
    names = [method.__name__ for method in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two methods have one name, which their folders would share: {names}")
    runs = []
    for method, env, seed in product(found, envs, map(str, seeds)):
        folder = Path(out, method.__name__, env, seed).resolve()
        begun = (folder / "config.json").exists()
        if begun and diffusion_ql.find_class(diffusion_ql.read_config(folder)) is not method:
            raise ValueError(f"{folder} holds a run of another {method.__name__}: another --out")
        chosen = ["--resume", str(folder)] if begun else ["--env", env, "--seed", seed]
        try:
            _, args = diffusion_ql.parse_args([*settings, *chosen], method)
        except SystemExit:  # what is wrong is printed
            print(f"these options were read for {method.__name__}", file=sys.stderr)
            raise
        runs.append((replace(args, out=str(folder)), method))
    return runs


def is_finished(args):
    """Whether a run has made its steps, which may be more than in an earlier sweep."""
    path = Path(args.out, "result.json")
    return path.exists() and json.loads(path.read_text())["final"]["step"] >= args.steps


def sweep(runs, gpus=0, address=""):
    """Trains what is not finished of the runs, as `plan` lists them; gpus: of each run.

    Returns the errors of runs that failed, a line for each. Raises ValueError, and
    KeyboardInterrupt after Ctrl-C: all runs go on from their checkpoints.
    """
    waiting = [(args, method) for args, method in runs if not is_finished(args)]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them are done")
    if not waiting:
        return []
    if not gpus and any(args.device.startswith("cuda") for args, _ in waiting):
        gpus = 1  # Ray hides GPUs from runs that ask for none
    for env in {args.env for args, _ in waiting}:
        with suppress(ValueError, OSError):  # its runs will say what is wrong
            diffusion_ql.load_dataset(env)  # downloaded or made once, before they start
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # a fork's own module, too
    with ray.init(address or "local", log_to_driver=False, runtime_env=path):
        progress = Progress.remote()
        start = run.options(num_gpus=gpus).remote
        tasks = {start(args, method, progress): args for args, method in waiting}
        return follow(tasks, progress)


def follow(tasks, progress):
    """Shows a bar over all steps of tasks {task: args} until they have ended; see `sweep`."""
    failed = []
    pending = list(tasks)
    with tqdm(total=sum(args.steps for args in tasks.values()), unit="step", smoothing=0.02) as bar:
        while pending:
            ended, pending = ray.wait(pending, timeout=1)
            bar.update(ray.get(progress.total.remote()) - bar.n)
            for task in ended:
                folder = Path(tasks[task].out)
                try:
                    ray.get(task)
                    bar.write(f"finished: {folder}")
                    (folder / "error.txt").unlink(missing_ok=True)
                except ray.exceptions.RayError as error:
                    reason = " ".join(str(getattr(error, "cause", error)).splitlines()[:2])
                    failed.append(f"failed: {folder}: {reason}")
                    bar.write(failed[-1])
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / "error.txt").write_text(reason)
    return failed


def collect(out):
    """A table with a row per finished run: method, task, seed, and the score of each selection."""
    rows = []
    for path in sorted(Path(out).rglob("result.json")):
        method, *task, seed, _ = path.relative_to(out).parts
        row = {"method": method, "task": "/".join(task), "seed": int(seed), "folder": path.parent}
        result = json.loads(path.read_text())
        for selection in SELECTIONS:
            row[selection] = (result.get(selection) or {}).get("score", np.nan)
        rows.append(row)
    if not rows:
        raise ValueError(f"no run is finished in {out}: train first, or give another --out")
    return pd.DataFrame(rows)


BEGUN = ("config.json", "error.txt")  # files by which a run's folder is known


def unfinished(out):
    """A line for each run in a sweep's folder that failed or is not finished."""
    lines = []
    for folder in sorted({path.parent for path in Path(out).rglob("*") if path.name in BEGUN}):
        error = folder / "error.txt"
        if error.exists():
            lines.append(f"failed: {folder}: {error.read_text()}")
        elif not (folder / "result.json").exists():
            lines.append(f"unfinished: {folder}")
    return lines


def interval(scores, draws=2000):
    """The mean of scores and its 95 % interval by a bootstrap over the seeds."""
    random = np.random.default_rng(0)
    means = random.choice(scores, (draws, len(scores))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"[{low:.1f}, {high:.1f}]"


def make_table(runs):
    """A row per method and task: mean ± std over the seeds of each selection, the bootstrapped 95 %
    interval of the final mean, and the paper's score. Then the averages of complete domains."""
    groups = runs.groupby(["task", "method"], sort=False)
    table = groups[SELECTIONS].agg(lambda s: f"{s.mean():.1f} ± {s.std(ddof=0):.1f}")
    table["95 % of final"] = groups["final"].agg(interval)
    table["paper"] = [PAPER.get(t, "") if m == "DiffusionQL" else "" for t, m in table.index]
    table["seeds"] = groups.size()
    table = table.astype(object)
    means = runs.groupby(["method", "task"])[SELECTIONS].mean()
    for method, domain in product(runs["method"].unique(), DOMAINS.items()):
        paper = PAPER[PAPER.index.str.contains(domain[1])]
        scores = means.loc[method]
        if paper.index.isin(scores.index).all():  # complete, as in Table 1
            row = scores.loc[paper.index].mean().round(1).astype(str).tolist()
            table.loc[(f"average of {domain[0]}", method), :] = [
                *row,
                "",
                paper.mean().round(1),
                "",
            ]
    return table.reset_index()


def draw_curves(out, runs, path):
    """A panel per task: each method's seeds thin, their mean thick, and the paper's score."""
    tasks = runs["task"].unique()
    columns = min(4, len(tasks))
    rows = (len(tasks) + columns - 1) // columns
    figure = Figure(figsize=(5 * columns, 3.5 * rows), layout="constrained")
    colors = dict(zip(runs["method"].unique(), COLORS * 9, strict=False))
    for place, task in enumerate(tasks, start=1):
        axis = figure.add_subplot(rows, columns, place)
        for method, seeds in runs[runs["task"] == task].groupby("method", sort=False)["seed"]:
            files = [Path(out, method, task, str(seed), "progress.csv") for seed in seeds]
            curves = [pd.read_csv(file, index_col="step")["score"] for file in files]
            scores = pd.concat(curves, axis=1)
            axis.plot(scores, color=colors[method], lw=0.6, alpha=0.5)
            label = f"{method}, {len(seeds)} seeds"
            axis.plot(scores.mean(axis=1), color=colors[method], lw=2, label=label)
        if task in PAPER:
            axis.axhline(PAPER[task], color="black", ls="--", label="the paper's score")
        axis.set(title=task, xlabel="gradient step", ylabel="score")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def report(out):
    """Writes table.md, table.csv and curves.png into the sweep's folder; prints the table."""
    print("".join(f"{line}\n" for line in unfinished(out)), end="")
    runs = collect(out)
    table = make_table(runs)
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    text = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    write(Path(out, "table.md"), lambda path: path.write_text(text))
    write(Path(out, "table.csv"), partial(table.to_csv, index=False))
    write(Path(out, "curves.png"), partial(draw_curves, out, runs))
    print(text)


def main():
    options, settings = tyro.cli(Options, description=__doc__, return_unknown_args=True)
    failed = []
    try:
        if not options.report:
            gpus = options.gpus_per_run
            settings = ["--device", "cuda" if gpus else "cpu", *settings]  # a given one comes later
            runs = plan(options.envs, options.seeds, options.out, settings, options.methods)
            failed = sweep(runs, gpus, options.address)
        report(options.out)
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"error: {error}", *failed, sep="\n", file=sys.stderr)
        sys.exit(2)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
