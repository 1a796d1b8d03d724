"""Both READMEs: their commands are understood, and their code does what they say."""

import importlib
import inspect
import json
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
from conftest import ENV, TINY, TINY_FLAGS

import d4rl_to_minari
import diffusion_ql
import forks
import sweep
from diffusion_ql import Args, DiffusionQL, load_dataset
from toy_experiments import pictures

ROOT = Path(__file__).resolve().parents[1]
FRONT = (ROOT / "README.md").read_text()
TOYS = (ROOT / "toy_experiments" / "README.md").read_text()


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
    assert (ROOT / script).exists() or script == "normalized.py", script  # which the page makes
    if "--evaluate" in argv:
        return tyro.cli(diffusion_ql.Evaluation, args=argv)
    if script in ("diffusion_ql.py", "normalized.py"):
        return diffusion_ql.parse_args(argv)
    if script == "forks.py" and argv != ("--help",):
        return diffusion_ql.parse_args(argv[1:], forks.METHODS[argv[0]])
    if script == "d4rl_to_minari.py":
        return tyro.cli(d4rl_to_minari.Args, args=argv)
    if script == "sweep.py":
        options, settings = tyro.cli(sweep.Options, args=argv, return_unknown_args=True)
        methods = [name for name in options.methods if "." not in name]
        return sweep.plan(options.envs, options.seeds, options.out, settings, methods)
    if script == "tutorials/doctor.py":
        (run,) = argv
        return run
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    for name in ("Args", "Options"):
        options = getattr(module, name, None)
        if options and options.__module__ == module.__name__:
            return tyro.cli(options, args=argv)
    if script.startswith("toy_experiments/"):
        assert module.main
        return tyro.cli(pictures.Options, args=argv, default=pictures.Options(Path("runs")))
    assert script == "forks.py"  # --help, which lists the methods


EVERY_COMMAND = sorted({tuple(words) for words in commands(FRONT) + commands(TOYS)})


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_a_command_is_understood(words):
    Path("RUN").mkdir()
    config = {"method": "diffusion_ql.DiffusionQL", "settings": asdict(Args(env="two-roads"))}
    Path("RUN/config.json").write_text(json.dumps(config))
    try:
        understand(*words)
    except SystemExit as stop:
        assert words[-1] == "--help" and stop.code == 0


@pytest.mark.slow
def test_the_fork_trains_and_is_brought_back(pendulum, cli, monkeypatch):
    """The README's own code, in a file of its own, on a dataset that is here."""
    (fork,) = re.findall(r"```python\n(.*?)```", FRONT, re.DOTALL)
    Path("normalized.py").write_text(fork)
    command = [sys.executable, "normalized.py", "--env", ENV, "--out", "run", *TINY_FLAGS]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subprocess.run(command, check=True, capture_output=True)
    saved = torch.load("run/agents/20.pt", weights_only=True)
    mean = load_dataset(ENV).transitions.state.mean(0)
    torch.testing.assert_close(saved["mean"], mean)
    monkeypatch.syspath_prepend(".")
    code, out, err = cli("--evaluate", "run", "--episodes", 2)
    assert code == 0 and "over 2 episodes" in out, err


def test_the_calls_in_the_text_are_those_of_the_functions():
    calls = re.findall(r"`((?:train|evaluate|load_agent)\(.+?\))`", FRONT)
    assert calls
    names = {"Args": Args, "load_dataset": str, "agent": SimpleNamespace(args=Args())}
    for name in ("Dataset", "train", "evaluate", "load_agent"):
        names[name] = inspect.signature(getattr(diffusion_ql, name)).bind
    columns = dict.fromkeys(["states", "actions", "next_states", "rewards", "terminals"])
    for call in calls:
        eval(call, {**names, **columns})


def test_weights_of_the_release_load():
    """The release's files hold our names, and some buffers more."""
    (of_release,) = re.findall(r"`(agent\.actor\.load_state_dict\(.*?\))`", FRONT)
    theirs = DiffusionQL(4, 1, Args(**TINY)).actor.state_dict()
    torch.save({**theirs, "alphas_cumprod_prev": torch.ones(5)}, "actor_50.pth")
    agent = DiffusionQL(4, 1, Args(**TINY))
    exec(of_release, {"agent": agent, "torch": torch})
    for name, parameter in agent.actor.named_parameters():
        assert torch.equal(parameter, theirs[name])


def test_what_uv_installs_for_the_file_is_what_the_requirements_say():
    header = (ROOT / "diffusion_ql.py").read_text().split("# ///")[1]
    needed = re.findall(r'"([a-z][^"]*)"', header)
    requirements = (ROOT / "requirements.txt").read_text()
    assert len(needed) == 12
    for requirement in needed:
        assert re.search(rf"^{re.escape(requirement)}\b", requirements, re.MULTILINE), requirement
