"""The sweep: it resumes, survives what is killed, goes on beside a failing run; and its table."""

import json
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import conftest as kit
import numpy as np
import psutil
import pytest
from ray.cluster_utils import Cluster

import sweep
from diffusion_ql import train
from sweep import PAPER, collect, interval, make_table, plan, unfinished

SCRIPT = Path(sweep.__file__)
ENVS = ["test/a-v0", "test/b-v0"]
SETTINGS = kit.flags(**kit.LONG)
TASKS = ["--envs", *ENVS, "test/missing-v0", "--seeds", "0", "1", *SETTINGS]


# ---- Whole sweeps --------------------------------------------------------------------------------
def settle(folder, patch):
    """What follows runs in this folder, on its datasets, without a network."""
    patch.chdir(folder)
    patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("PYTHONPATH", str(SCRIPT.parent))  # for Ray's workers


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder with two datasets and a sweep of them, `whole`: (folder, exit code, output, errors).

    Of the three tasks one does not exist.
    """
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch)
        for seed, env in enumerate(ENVS):
            kit.make_minari(env, episodes=6, seed=seed, refs=(0, 100))
        return folder, *kit.finish(kit.start(*TASKS, "--out", "whole", script=SCRIPT))


@pytest.fixture
def here(undisturbed, monkeypatch):
    settle(undisturbed[0], monkeypatch)


def numbers(out):
    """What a sweep has worked out: each result, and each curve."""
    paths = [*Path(out).rglob("result.json"), *Path(out).rglob("progress.csv")]
    assert len(paths) == 8
    return {str(path.relative_to(out)): path.read_text() for path in paths}


def wait_until(condition):
    """Waits until condition() is true, at most 200 seconds."""
    deadline = time.time() + 200
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_failing_run_does_not_stop_the_others(undisturbed):
    folder, code, out, err = undisturbed
    assert code == 1 and "6 runs, 0 of them are done" in out, err
    assert "failed" in err and "test/missing-v0/1" in err and "Traceback" not in err
    assert "| test/a-v0 |" in out and "| test/b-v0 |" in out
    assert (folder / "whole/table.md").exists() and (folder / "whole/table.csv").exists()
    assert (folder / "whole/curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_stopped_by_ctrl_c_and_with_a_killed_worker_it_ends_the_same(here):
    stopped = kit.start(*TASKS, "--out", "part", script=SCRIPT)
    wait_until(lambda: list(Path("part").rglob("progress.csv")))
    stopped.send_signal(signal.SIGINT)
    code, _, err = kit.finish(stopped)
    assert code == 130 and "the same command goes on" in err
    assert list(Path("part").rglob("checkpoint.pt"))
    assert len(list(Path("part").rglob("result.json"))) < 4  # else it was too late

    again = kit.start(*TASKS, "--out", "part", script=SCRIPT)
    wait_until(lambda: kill_a_worker(again.pid))
    code, _, err = kit.finish(again)
    assert code == 1, err
    assert numbers("part") == numbers("whole")
    assert Path("part/table.md").read_text() == Path("whole/table.md").read_text()


def kill_a_worker(sweep_pid):
    """kill -9 for one of this sweep's workers that trains; whether there was one."""
    for process in psutil.Process(sweep_pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it may have ended by itself
            if "ray::run" in " ".join(process.cmdline()):
                process.kill()
                return True
    return False


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_ends_the_same(here):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def lose_a_node():
        wait_until(lambda: len(list(Path("cluster").rglob("progress.csv"))) > 1)
        cluster.remove_node(nodes[0], allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    try:
        runs = plan(ENVS, (0, 1), "cluster", SETTINGS)
        assert sweep.sweep(runs, address=cluster.address) == []
    finally:
        thread.join()
        cluster.shutdown()
    assert nodes[0] not in cluster.list_all_nodes()
    assert numbers("cluster") == numbers("whole")


# ---- Plans ---------------------------------------------------------------------------------------
def test_any_option_of_the_main_script_holds_for_all_runs():
    runs = [args for args, _ in plan(["paper"], [3], "o", ["--eta", "0.7"])]
    assert len(runs) == 20 and {args.eta for args in runs} == {0.7}
    by_env = {args.env: args for args in runs}
    assert by_env["antmaze-medium-play"].lr == 1e-3 and by_env["pen-human-v1"].seed == 3
    assert by_env["hopper-medium-v2"].out.endswith("o/DiffusionQL/hopper-medium-v2/3")


def test_methods_with_their_own_options():
    runs = plan(["two-roads"], [0], "o", ["--alpha", "3"], ["FQL", "forks.TD3BC"])
    assert [(method.__name__, args.alpha) for args, method in runs] == [("FQL", 3), ("TD3BC", 3)]


def test_it_says_which_method_lacks_an_option(capsys):
    with pytest.raises(SystemExit):
        plan(["two-roads"], [0], "o", ["--alpha", "3"], ["FQL", "EDP"])
    error = capsys.readouterr().err
    assert "--alpha" in error and "these options were read for EDP" in error


def test_what_is_finished_is_not_repeated_but_goes_on_in_a_moved_folder(
    pendulum, monkeypatch, capsys
):
    ((args, _),) = plan([kit.ENV], [0], "whole", kit.TINY_FLAGS)
    train(args)
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "ray", None)  # it must not be needed
        assert sweep.sweep(plan([kit.ENV], [0], "whole", kit.TINY_FLAGS)) == []
    shutil.copytree("whole", "moved")
    ((args, _),) = plan([kit.ENV], [0], "moved", [*kit.TINY_FLAGS, "--steps=40"])
    assert not sweep.is_finished(args)
    assert train(replace(args, resume=args.out))["final"]["step"] == 40  # as a worker does
    assert len(kit.table("moved/DiffusionQL/test/pendulum-v0/0/progress.csv")) == 4
    with pytest.raises(SystemExit, match="2"):
        plan([kit.ENV], [0], "whole", ["--eta=0.3"])
    assert "keeps its settings: eta" in capsys.readouterr().err


def test_what_a_sweep_does_not_take(fails):
    for setting in ("--env=hopper-medium", "--seed"):
        assert "--envs, --seeds" in fails(setting, module=sweep)
    assert "no method 'Nonsense'" in fails("--methods", "Nonsense", module=sweep)
    assert "no run is finished" in fails("--report", "--out", "nowhere", module=sweep)


def test_methods_of_files_of_ones_own(fails, pendulum, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("broken.py").write_text("import nothing_like_this")
    said = fails("--methods", "broken.Mine", module=sweep)
    assert "broken.Mine: ModuleNotFoundError" in said and "nothing_like_this" in said
    Path("mine.py").write_text("import forks\n\n\nclass EDP(forks.EDP):\n    pass\n")
    assert "two methods have one name" in fails("--methods", "EDP", "mine.EDP", module=sweep)
    ((args, method),) = plan([kit.ENV], [0], "out", kit.TINY_FLAGS, ["EDP"])
    train(args, agent_class=method)
    with pytest.raises(ValueError, match="holds a run of another EDP"):
        plan([kit.ENV], [0], "out", kit.TINY_FLAGS, ["mine.EDP"])


# ---- Tables --------------------------------------------------------------------------------------
def made_up(scores, method="DiffusionQL"):
    """A sweep's folder with these scores, {env: [score of each seed]}."""
    for env, values in scores.items():
        for seed, score in enumerate(values):
            folder = Path("out", method, env, str(seed))
            folder.mkdir(parents=True)
            row = {"step": 10, "score": score}
            result = {"final": row, "online": {**row, "score": score + 1}, "offline": None}
            (folder / "config.json").write_text("{}")
            (folder / "result.json").write_text(json.dumps(result))


def test_the_table():
    made_up({"hopper-medium-v2": [80.0, 100.0], "kitchen-mixed-v0": [60.0]})
    made_up({"hopper-medium-v2": [50.0]}, method="EDP")
    for task in ("complete", "partial"):
        made_up({f"kitchen-{task}-v0": [30.0]})
    table = make_table(collect("out")).set_index(["method", "task"])
    row = table.loc["DiffusionQL", "hopper-medium-v2"]
    assert row["final"] == "90.0 ± 10.0" and row["online"] == "91.0 ± 10.0"
    assert row["95 % of final"] == "[80.0, 100.0]" and row["paper"] == 90.5
    row = table.loc["EDP", "hopper-medium-v2"]
    assert row["final"] == "50.0 ± 0.0" and row["paper"] == ""
    row = table.loc["DiffusionQL", "average of Kitchen"]
    assert row["final"] == "40.0" and row["paper"] == 69.0
    assert ("DiffusionQL", "average of Gym") not in table.index  # one task of nine is not all


def test_the_papers_averages():
    made_up({task: [score] for task, score in PAPER.items()})
    table = make_table(collect("out")).set_index("task")
    # Table 1's own are of unrounded scores.
    for domain, average in {"Gym": 88.0, "AntMaze": 69.6, "Adroit": 65.1, "Kitchen": 69.0}.items():
        row = table.loc[f"average of {domain}"]
        assert row["paper"] == pytest.approx(average, abs=0.11)
        assert float(row["final"]) == row["paper"]


def test_the_interval_of_known_scores():
    assert interval(np.array([7.0] * 5)) == "[7.0, 7.0]"
    low, high = json.loads(interval(np.arange(100.0)))
    assert 43.4 < low < 44.4 and 54.6 < high < 55.6  # 49.5 ± 1.96 * 28.9 / sqrt(100)


def test_the_report_lists_what_failed_and_what_is_not_finished():
    made_up({"a": [1.0, 2.0, 3.0]})
    Path("out/DiffusionQL/a/1/result.json").unlink()
    Path("out/DiffusionQL/a/2/error.txt").write_text("no such thing")
    assert unfinished("out") == [
        "unfinished: out/DiffusionQL/a/1",
        "failed: out/DiffusionQL/a/2: no such thing",
    ]
