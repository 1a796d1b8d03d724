"""The sweep: it resumes, survives killed workers, goes on beside a failing run, and its table."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_FLAGS, make_minari

import sweep
from sweep import Options, collect, domains, interquartile_mean, main, make_table, plan

SCRIPT = Path(sweep.__file__)
ENVS = ["test/a-v0", "test/b-v0"]


@pytest.fixture
def two_tasks():
    make_minari(ENVS[0], episodes=6, refs=(0, 100))
    make_minari(ENVS[1], episodes=6, seed=7, refs=(0, 100))


def start(*argv):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, SCRIPT, *argv], **pipes)


def numbers(out):
    """What a sweep has worked out: each result, and each curve."""
    paths = [*Path(out).rglob("result.json"), *Path(out).rglob("progress.csv")]
    assert len(paths) == 8
    return {str(path.relative_to(out)): path.read_text() for path in paths}


def test_a_sweep_with_a_killed_worker_equals_an_undisturbed_one(two_tasks):
    """A third task fails beside them: it is named, and the others go on."""
    long = [option for option in TINY_FLAGS if not option.startswith(("--steps", "--eval-every"))]
    long += ["--steps=300", "--eval-every=100"]
    tasks = ["--envs", *ENVS, "test/missing-v0", "--seeds", "0", "1", *long]
    whole = start(*tasks, "--out", "whole")
    out, err = whole.communicate(timeout=400)
    assert whole.returncode == 1 and "6 runs, 0 of them are done" in out, err
    assert "failed" in err and "test/missing-v0/1" in err and "Traceback" not in err
    assert "| test/a-v0 |" in out and "| test/b-v0 |" in out
    assert Path("whole/table.md").exists() and Path("whole/table.csv").exists()
    assert Path("whole/curves.png").read_bytes().startswith(b"\x89PNG")

    part = start(*tasks, "--out", "part")
    killed = kill_a_worker("part")
    _, err = part.communicate(timeout=400)
    assert killed and part.returncode == 1, err
    assert numbers("part") == numbers("whole")
    assert Path("part/table.md").read_text() == Path("whole/table.md").read_text()


def test_what_is_finished_is_not_repeated(two_tasks, monkeypatch, capsys):
    made_up({env: [1.0, 2.0] for env in ENVS})
    monkeypatch.setattr(sweep, "import_ray", None)  # it must not be needed
    runs = plan(Options(envs=tuple(ENVS), seeds=(0, 1), out="out"), TINY_FLAGS)
    assert sweep.sweep(runs) == {}
    assert "4 runs, 4 of them are done" in capsys.readouterr().out


def kill_a_worker(out):
    """kill -9 for one of Ray's workers that trains, once a checkpoint is there."""
    deadline = time.time() + 200
    while time.time() < deadline:
        time.sleep(0.2)
        if not list(Path(out).rglob("checkpoint.pt")):
            continue
        listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            if "ray::run" in line:
                os.kill(int(line.split()[0]), signal.SIGKILL)
                return True
    return False


def made_up(scores):
    """A sweep's folder with these scores, {env: [score of each seed]}."""
    for env, values in scores.items():
        for seed, score in enumerate(values):
            folder = Path("out", env, str(seed))
            folder.mkdir(parents=True)
            row = {"step": 10, "score": score}
            result = {"final": row, "online": {**row, "score": score + 1}, "offline": row}
            (folder / "result.json").write_text(json.dumps(result))


def test_the_table():
    made_up({"hopper-medium-v2": [80.0, 100.0], "kitchen-mixed": [60.0]})
    for task in ("complete", "partial"):
        made_up({f"kitchen-{task}": [30.0]})
    table = make_table(collect("out")).set_index("task")
    assert table.loc["hopper-medium-v2", "final"] == "90.0 ± 10.0"
    assert table.loc["hopper-medium-v2", "online"] == "91.0 ± 10.0"
    assert table.loc["hopper-medium-v2", "paper"] == 90.5
    assert table.loc["average of kitchen", "final"] == "40.0"
    assert table.loc["average of kitchen", "paper"] == 69.0
    assert "average of Gym" not in table.index  # one task of nine is not all of them


def test_the_papers_averages():
    means = {
        domain: np.mean([sweep.PAPER_SCORES[env] for env in envs])
        for domain, envs in domains().items()
    }
    assert means["Gym"] == pytest.approx(88.0, abs=0.1)  # Table 1's is of unrounded scores
    assert means["antmaze"] == pytest.approx(69.6, abs=0.1)
    assert means["kitchen"] == pytest.approx(69.0, abs=0.1)


def test_interquartile_mean_of_known_scores():
    runs = pd.DataFrame({"env": ["a"] * 4 + ["b"] * 4, "final": [0, 10, 20, 30, 40, 50, 60, 1000]})
    assert interquartile_mean(runs, "final").startswith("35.0 [")  # of 20, 30, 40, 50
    same = pd.DataFrame({"env": ["a"] * 5, "final": [7.0] * 5})
    assert interquartile_mean(same, "final") == "7.0 [7.0, 7.0]"


def test_any_option_of_the_main_script_holds_for_all_runs():
    runs = plan(Options(envs=("paper",), seeds=(3,), out="o"), ["--eta", "0.7"])
    assert len(runs) == 20 and {args.eta for args in runs} == {0.7}
    by_env = {args.env: args for args in runs}
    assert by_env["antmaze-medium-play"].lr == 1e-3 and by_env["pen-human-v1"].seed == 3
    assert by_env["hopper-medium-v2"].out.endswith("o/hopper-medium-v2/3")


def test_nothing_to_report(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--report", "--out", "nowhere"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "no run is finished" in capsys.readouterr().err
    assert torch.get_default_dtype() == torch.float32
