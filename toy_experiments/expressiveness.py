"""When does a policy need to be expressive, once there is a reward?

    python toy_experiments/expressiveness.py

The best corner (bottom right) pays 5. The second best one, top left, pays 3 in Figure 2; here it
pays more and more, up to the same 5. Two policies are each improved in two ways:

                  climbs Q's gradient    clones good actions more
    Gaussian      Gaussian with Q        AWR
    diffusion     Diffusion-QL           weighted diffusion

A Gaussian can represent one corner, which is all that it takes to earn 5. But a likelihood with
weights on two corners has its maximum between them.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script finds only its own folder

from toy_experiments import pictures
from toy_experiments.bandit import TASKS

METHODS = {
    "Gaussian with Q": ("GaussianQL", ""),
    "AWR": ("AWR", ""),
    "AWR, temperature 0.05": ("AWR", "--temperature 0.05"),
    "weighted diffusion": ("WeightedDiffusion", "--temperature 0.05"),
    "Diffusion-QL": ("DiffusionQL", ""),
}
STYLES = {  # how each is drawn
    "the data": dict(color=pictures.COLORS["the data"], ls=":"),
    "uniformly random": dict(color=pictures.COLORS["uniformly random"]),
    "Gaussian with Q": dict(color=pictures.COLORS["Gaussian with Q"], marker="o"),
    "AWR": dict(color=pictures.COLORS["AWR"], marker="o"),
    "AWR, temperature 0.05": dict(color=pictures.COLORS["AWR"], marker="s", ls="--"),
    "weighted diffusion": dict(color=pictures.COLORS["weighted diffusion"], marker="s", ls="--"),
    "Diffusion-QL": dict(color=pictures.COLORS["Diffusion-QL"], marker="o"),
}


def row_name(method, task):
    return f"{method}, top left pays {TASKS[task][0]:g}"


ROWS = {}
for name, (method, options) in METHODS.items():
    for task in TASKS:
        ROWS[row_name(name, task)] = (method, task, options)


def references():
    """What the data's own actions earn, and actions drawn from the whole square, on each task."""
    results = {}
    for task in TASKS:
        for name, runs in pictures.references(task).items():
            results[row_name(name, task)] = runs
    return results


def draw(results):
    figure = Figure(figsize=(15, 3.6 * len(METHODS)), layout="constrained")
    chart, panels = figure.subfigures(1, 2, width_ratios=[5, 9])
    axis = chart.subplots()
    for name, style in STYLES.items():
        rows = {TASKS[task][0]: row_name(name, task) for task in TASKS}
        pictures.draw_line(axis, rows, results, "reward", label=name, **style)
    axis.set(xlabel="mean reward of the top left corner", ylabel="mean reward of a sample")
    axis.set(ylim=(-0.2, 5.2), xticks=[TASKS[task][0] for task in TASKS])
    chart.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    for name, line in zip(METHODS, panels.subplots(len(METHODS), len(TASKS)), strict=True):
        for axis, task in zip(line, TASKS, strict=True):
            runs = results[row_name(name, task)]
            reward = pictures.summary(runs, "reward", ".2f")
            caption = f"top left pays {TASKS[task][0]:g}\nreward of a sample {reward}"
            pictures.draw_actions(axis, runs[0][0], name, caption, STYLES[name]["color"])
    panels.suptitle("2,000 samples of the first seed; numbers: mean ± std over the seeds", size=10)
    return figure


def main():
    pictures.experiment("expressiveness", __doc__, ROWS, draw, pictures.REWARD, references())


if __name__ == "__main__":
    main()
