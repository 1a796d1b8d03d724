"""Lesson 5: its cells run in any order, on any run, and what its text claims is so."""

import lessons
import numpy as np
import pandas as pd
import pytest
from lessons import run_twice

from diffusion_ql import Args, train
from tutorials.experiments import lesson_5

pytestmark = pytest.mark.slow


def test_what_the_lesson_computes():
    lesson, printed = run_twice(5)
    assert printed.count("right.") == 2 * 4
    scores = lesson["scores"]
    tasks = {step: (row // 25).value_counts() for step, row in scores.iterrows()}
    assert tasks[100_000][2] == 72 and (tasks[125_000][4], tasks[125_000][0]) == (51, 14)
    errors = {n: scores.std(axis=1, ddof=0) / n**0.5 for n in (10, 100)}
    assert 12.5 < errors[10].max() < 13.4 and 4 < errors[100].max() < 4.2
    promised, kept = lesson["promised"], lesson["kept"]
    assert (round(promised[1]), round(kept[1])) == (93, 87) and promised[-1] - kept[-1] < 0.5
    first, second = (seed.progress.set_index("step")["score"] for seed in lesson["seeds"][:2])
    assert second.loc[[50_000, 75_000, 100_000]].round().tolist() == [39, 6, 64]
    assert (first.idxmax(), second.idxmax()) == (150_000, 125_000)
    table = pd.DataFrame(lesson["rows"][:2])
    assert table["at its step"].tolist() == [200_000] * 2 and not table["L_d ever rises"].any()
    assert table[["final", "online"]].mean().round().tolist() == [47, 86]
    clones = lesson["PAIRS"]["kitchen, clones"]
    assert len(clones) == 40 and (clones[:, 1] > clones[:, 0]).sum() == 34
    assert clones.mean(axis=0).round().tolist() == [55, 73]
    moves = np.abs(np.diff(clones.reshape(4, 10, 2), axis=1)).mean(axis=(0, 1))
    assert moves.round().tolist() == [25, 11]
    assert [row["offline, of every second"].round() for row in lesson["rows"][:2]] == [91, 58]
    gains = np.diff(lesson["KITCHEN"])
    assert gains.min() > 0 and (gains > 20).sum() == 2
    policy, average = np.transpose(lesson["PAIRS"]["two-roads, 5 last agents"])
    assert [round(pair.mean(), 1) for pair in (policy, average)] == [87.3, 88.8]
    assert [round(pair.std(), 1) for pair in (policy, average)] == [3.1, 1.0]
    assert [round(share, 2) for share in lesson["humps"].values()] == [0.34, 0.35]
    assert [round(last.mean(), 1) for last in lesson["last_scores"].values()] == [44.9, 55.5]


def test_it_looks_at_a_run_of_your_own(tmp_path, monkeypatch):
    folder = tmp_path / "3"
    small = dict(steps=4, eval_every=1, eval_episodes=2, hidden_dim=16, candidates=2, ema_start=0)
    train(Args(env="two-roads", seed=3, out=str(folder), compile="off", **small))
    played = []

    def play(agent, dataset, episodes, seed):
        played.append((agent.args.act_with, agent.step, episodes, seed))
        return np.full(episodes, 15.0)

    monkeypatch.setattr(lesson_5, "evaluate", play)
    lesson_5.play(folder)
    lesson_5.play(folder)  # nothing is played twice
    assert played == [("average", step, 2, (3, step)) for step in (1, 2, 3, 4)]

    notebook = lessons.read(5)
    notebook.cells[1].source = notebook.cells[1].source.replace('RUN = ""', f'RUN = "{folder}"')
    monkeypatch.setattr(lessons, "read", lambda number: notebook)
    lesson, _ = run_twice(5)
    assert lesson["seeds"][0].args.seed == 3 and len(lesson["scores"]) == 4
    assert (lesson["PAIRS"]["the run of this lesson"][:, 1] == 50).all()  # 15 of 30
