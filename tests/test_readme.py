"""Both READMEs: their commands are understood, their code runs, their links lead somewhere."""

import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import tyro
from conftest import TINY, TINY_FLAGS
from test_guide import assert_link_leads_somewhere

import d4rl_to_minari
import diffusion_ql
import forks
import sweep
from diffusion_ql import Args, DiffusionQL, load_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "toy_experiments/README.md")}
FRONT = PAGES["README.md"]
ENV = "test/pendulum-v0"
INSTALL = "python -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "


def commands(text):
    """All command lines of a page that run a script of ours, as lists of words."""
    places = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    places += re.findall(r"`(python [^`]+)`", text)
    found = []
    for line in "\n".join(places).splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if len(words) > 1 and words[0] == "python" and words[1].endswith(".py"):
                found.append(words[1:])
    return found


def understand(script, *argv):
    """Parses a command line by the script's own parser; SystemExit where it is not understood."""
    path = ROOT / script
    assert path.exists() or script == "normalized.py", script
    if "--evaluate" in argv:
        return tyro.cli(diffusion_ql.Evaluation, args=argv)
    if script in ("diffusion_ql.py", "normalized.py"):
        return diffusion_ql.parse_args(argv)
    if script == "forks.py" and argv[0] in forks.METHODS:
        return diffusion_ql.parse_args(argv[1:], forks.METHODS[argv[0]])
    if script == "forks.py":
        assert argv == ("--help",)
        sys.exit(0)
    if script == "d4rl_to_minari.py":
        return tyro.cli(d4rl_to_minari.Args, args=argv)
    if script == "sweep.py":
        options, settings = tyro.cli(sweep.Options, args=argv, return_unknown_args=True)
        methods = [name for name in options.methods if "." not in name]
        return sweep.plan(options.envs, options.seeds, options.out, settings, methods)
    if script == "toy_experiments/two_roads_pictures.py":
        assert argv == ("RUN",)
        return None
    module = importlib.import_module(path.stem)
    return tyro.cli(getattr(module, "Options" if path.stem == "benchmark" else "Args"), args=argv)


EVERY_COMMAND = sorted({tuple(words) for text in PAGES.values() for words in commands(text)})


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_a_command_is_understood(words):
    Path("RUN").mkdir()
    config = {"method": "diffusion_ql.DiffusionQL", "settings": asdict(Args(env="two-roads"))}
    Path("RUN/config.json").write_text(json.dumps(config))
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            understand(*words)
        assert stop.value.code == 0
    else:
        understand(*words)


def test_a_command_with_a_mistake_is_not_understood():
    for words in (["sweep.py", "--env", "two-roads"], ["toy_experiments/q_learning.py", "--sed=1"]):
        with pytest.raises((SystemExit, ValueError)):
            understand(*words)


def test_the_commands_that_install_are_there_once_each():
    for what in ("python diffusion_ql.py", "python -m pytest"):
        assert FRONT.count(INSTALL + what + "\n") == 1


def test_the_fork_trains_and_is_brought_back(pendulum, cli):
    """The README's own code, in a file of its own, on a dataset that is here."""
    (fork,) = re.findall(r"```python\n(.*?)```", FRONT, re.DOTALL)
    in_class = fork.split("class Normalized")[1].split("\n\nif __name__")[0]
    assert len([line for line in in_class.splitlines() if line.strip()]) < 20
    Path("normalized.py").write_text(fork)
    command = [sys.executable, "normalized.py", "--env", ENV, "--out", "run", *TINY_FLAGS]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=path)
    config = json.loads(Path("run/config.json").read_text())
    assert config["method"] == "normalized.Normalized"
    saved = torch.load("run/agents/20.pt", weights_only=True)
    mean = load_dataset(ENV).transitions.state.mean(0)
    torch.testing.assert_close(saved["mean"], mean)
    sys.path.insert(0, ".")
    code, out, err = cli("--evaluate", "run", "--episodes", 2)
    sys.path.remove(".")
    assert code == 0 and "over 2 episodes" in out, err


def test_the_calls_in_the_text_are_those_of_the_functions():
    calls = re.findall(r"`((?:train|evaluate|load_agent)\(.+?\))`", FRONT)
    assert len(calls) >= 4
    names = {"Dataset": checked(diffusion_ql.Dataset), "Args": Args, "agent": DiffusionQL}
    for name in ("train", "evaluate", "load_agent"):
        names[name] = checked(getattr(diffusion_ql, name))
    names["load_dataset"] = str
    names["agent"] = SimpleNamespace(args=Args())
    columns = dict.fromkeys(["states", "actions", "next_states", "rewards", "terminals"])
    for call in calls:
        eval(call, {**names, **columns})


def checked(function):
    return lambda *given, **named: inspect.signature(function).bind(*given, **named)


def test_weights_of_the_release_load():
    """The release's files hold our names, and some buffers more."""
    (of_release,) = re.findall(r"`(agent\.actor\.load_state_dict\(.*?\))`", FRONT)
    theirs = DiffusionQL(4, 1, Args(**TINY))
    actor = {**theirs.actor.state_dict(), "alphas_cumprod_prev": torch.ones(5)}
    torch.save(actor, "actor_50.pth")
    agent = DiffusionQL(4, 1, Args(**TINY))
    exec(of_release, {"agent": agent, "torch": torch})
    for name, parameter in agent.actor.named_parameters():
        assert torch.equal(parameter, actor[name])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if not target.startswith("https://"):
            assert_link_leads_somewhere(ROOT / page, target)


def test_files_that_are_named_exist():
    for text in PAGES.values():
        for name in re.findall(r"`(tests/\w+\.py)`", text):
            assert (ROOT / name).exists(), name


def test_the_front_page_is_short_and_its_place_in_the_file_is_there():
    assert len(FRONT.splitlines()) <= 230
    (heading,) = re.findall(r'who stops before "(.*?)" has the paper', FRONT)
    source = (ROOT / "diffusion_ql.py").read_text()
    assert f"# ---- {heading} ---" in source


def test_the_number_of_updates_that_are_replayed():
    official = json.loads((ROOT / "tests/official_numbers.json").read_text())
    number = sum(run["config"]["updates"] for run in official["updates"])
    assert f"replays {number} of them" in FRONT


def test_the_table_of_two_roads_is_that_of_its_runs():
    folder = ROOT / "results/two-roads"
    runs = sweep.collect(folder)
    assert set(runs.groupby("method").size()) == {5}
    heads, _, scores, intervals = re.findall(r"^\|.*\|$", FRONT.split("### Two roads")[1], re.M)[:4]
    cells = [
        [cell.strip(" `") for cell in line.split("|")[2:-1]] for line in (heads, scores, intervals)
    ]
    table = sweep.make_table(runs).set_index("method")
    for method, score, interval in zip(*cells, strict=True):
        assert table.loc[method, "final"] == score
        assert table.loc[method, "95 % of final"] == f"[{interval.replace(' to', ',')}]"
    for line in sweep.make_table(runs).to_numpy():
        assert f"| {' | '.join(map(str, line))} |" in (folder / "table.md").read_text()
    finals = runs[runs["method"] == "DiffusionQL"]["final"]
    assert f"five seeds scored {finals.min():.1f} to {finals.max():.1f}" in FRONT
    first = json.loads((folder / "DiffusionQL/two-roads/0/result.json").read_text())["final"]
    assert f"score {first['score']:.1f} ± {first['score_std']:.1f}" in FRONT
