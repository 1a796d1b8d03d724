"""The sweep: it resumes, survives what is killed, goes on beside a failing run; and its table."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, flags, make_minari
from ray.cluster_utils import Cluster

import sweep
from diffusion_ql import UserError
from sweep import PAPER, collect, interquartile_mean, main, make_table, plan

SCRIPT = Path(sweep.__file__)
ENVS = ["test/a-v0", "test/b-v0"]
SETTINGS = flags(**{**TINY, "steps": 300, "eval_every": 100})
TASKS = ["--envs", *ENVS, "test/missing-v0", "--seeds", "0", "1", *SETTINGS]


def start(*argv):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, SCRIPT, *argv], **pipes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder with two datasets, and a sweep of them: (folder, exit code, output, errors)."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("RAY_worker_niceness", "0")  # other tests run beside this one
        make_minari(ENVS[0], episodes=6, refs=(0, 100))
        make_minari(ENVS[1], episodes=6, seed=7, refs=(0, 100))
        process = start(*TASKS, "--out", "whole")
        out, err = process.communicate(timeout=400)
    return folder, process.returncode, out, err


@pytest.fixture
def here(undisturbed, monkeypatch):
    """The test runs in that folder, with its datasets."""
    monkeypatch.chdir(undisturbed[0])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(undisturbed[0] / "minari"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parent))  # for Ray's workers


def numbers(out):
    """What a sweep has worked out: each result, and each curve."""
    paths = [*Path(out).rglob("result.json"), *Path(out).rglob("progress.csv")]
    assert len(paths) == 8
    return {str(path.relative_to(out)): path.read_text() for path in paths}


def wait_for(out, name, count):
    """Waits until `count` runs of a sweep have a file of this name."""
    deadline = time.time() + 200
    while len(list(Path(out).rglob(name))) < count:
        assert time.time() < deadline, f"no {name}"
        time.sleep(0.1)


def test_a_failing_run_does_not_stop_the_others(undisturbed):
    folder, code, out, err = undisturbed
    assert code == 1 and "6 runs, 0 of them are done" in out, err
    assert "failed" in err and "test/missing-v0/1" in err and "Traceback" not in err
    assert "| test/a-v0 |" in out and "| test/b-v0 |" in out
    assert (folder / "whole/table.md").exists() and (folder / "whole/table.csv").exists()
    assert (folder / "whole/curves.png").read_bytes().startswith(b"\x89PNG")


def test_stopped_by_ctrl_c_and_with_a_killed_worker_it_ends_the_same(here):
    stopped = start(*TASKS, "--out", "part")
    wait_for("part", "progress.csv", 1)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=200)
    assert stopped.returncode == 130 and "the same command goes on" in err
    begun = list(Path("part").rglob("config.json"))
    assert begun and all(path.with_name("checkpoint.pt").exists() for path in begun)
    assert len(list(Path("part").rglob("result.json"))) < 4  # else it was too late

    again = start(*TASKS, "--out", "part")
    kill_a_worker(again.pid)
    _, err = again.communicate(timeout=400)
    assert again.returncode == 1, err
    assert numbers("part") == numbers("whole")
    assert Path("part/table.md").read_text() == Path("whole/table.md").read_text()


def kill_a_worker(sweep_pid):
    """kill -9 for the first of this sweep's own workers that trains: others may run beside it."""
    deadline = time.time() + 200
    while time.time() < deadline:
        time.sleep(0.1)
        command = ["ps", "-eo", "pid,ppid,args"]
        listing = subprocess.run(command, capture_output=True, text=True).stdout
        processes = [line.split(maxsplit=2) for line in listing.splitlines()[1:]]
        parents = {pid: parent for pid, parent, _ in processes}
        for pid, _, arguments in processes:
            if "ray::run" in arguments and str(sweep_pid) in ancestors(pid, parents):
                os.kill(int(pid), signal.SIGKILL)
                return
    raise AssertionError("no worker trained")


def ancestors(pid, parents):
    """The processes that started a process. parents: {pid: that of its parent}."""
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found


def test_a_cluster_that_loses_a_node_ends_the_same(here):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def lose_a_node():
        wait_for("cluster", "progress.csv", 2)
        cluster.remove_node(nodes[0], allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    try:
        assert sweep.sweep(ENVS, (0, 1), "cluster", SETTINGS, address=cluster.address) == []
    finally:
        thread.join()
        cluster.shutdown()
    assert nodes[0] not in cluster.list_all_nodes()
    assert numbers("cluster") == numbers("whole")


def test_what_is_finished_is_not_repeated(here, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "ray", None)  # it must not be needed
    assert sweep.sweep(ENVS, (0, 1), "whole", SETTINGS) == []
    assert "4 runs, 4 of them are done" in capsys.readouterr().out
    with pytest.raises(UserError, match="keeps its settings"):
        sweep.sweep(ENVS, (0, 1), "whole", [*SETTINGS, "--eta=0.3"])


def test_what_a_sweep_does_not_take():
    for setting in ("--env=hopper-medium", "--seed"):
        with pytest.raises(UserError, match="--envs, --seeds"):
            plan(["two-roads"], [0], "o", [setting])


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
    assert table.loc["average of Kitchen", "final"] == 40.0
    assert table.loc["average of Kitchen", "paper"] == 69.0
    assert "average of Gym" not in table.index  # one task of nine is not all of them


def test_the_papers_averages():
    made_up({task: [score] for task, score in PAPER.items()})
    table = make_table(collect("out")).set_index("task")
    # Table 1's own are of unrounded scores.
    for domain, average in {"Gym": 88.0, "AntMaze": 69.6, "Adroit": 65.1, "Kitchen": 69.0}.items():
        row = table.loc[f"average of {domain}"]
        assert row["paper"] == pytest.approx(average, abs=0.11)
        assert row["final"] == row["paper"]


def test_interquartile_mean_of_known_scores():
    runs = pd.DataFrame({"task": ["a"] * 4 + ["b"] * 4, "final": [0, 10, 20, 30, 40, 50, 60, 1000]})
    assert interquartile_mean(runs, "final").startswith("35.0 [")  # of 20, 30, 40, 50
    same = pd.DataFrame({"task": ["a"] * 5, "final": [7.0] * 5})
    assert interquartile_mean(same, "final") == "7.0 [7.0, 7.0]"


def test_any_option_of_the_main_script_holds_for_all_runs():
    runs = plan(["paper"], [3], "o", ["--eta", "0.7"])
    assert len(runs) == 20 and {args.eta for args in runs} == {0.7}
    by_env = {args.env: args for args in runs}
    assert by_env["antmaze-medium-play"].lr == 1e-3 and by_env["pen-human-v1"].seed == 3
    assert by_env["hopper-medium-v2"].out.endswith("o/hopper-medium-v2/3")


def test_nothing_to_report(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--report", "--out", "nowhere"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "no run is finished" in capsys.readouterr().err
