"""Both READMEs: their commands are understood, their code runs, their links lead somewhere."""

import importlib
import inspect
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import tyro
from conftest import TINY
from test_guide import assert_link_leads_somewhere

import d4rl_to_minari
import diffusion_ql
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
    assert path.exists(), script
    if script == "diffusion_ql.py":
        return diffusion_ql.parse_args(argv)
    if script == "d4rl_to_minari.py":
        return tyro.cli(d4rl_to_minari.Args, args=argv)
    if script == "sweep.py":
        options, settings = tyro.cli(sweep.Options, args=argv, return_unknown_args=True)
        return sweep.plan(options.envs, options.seeds, options.out, settings)
    module = importlib.import_module(path.stem)
    return tyro.cli(getattr(module, "Options" if path.stem == "benchmark" else "Args"), args=argv)


EVERY_COMMAND = sorted({tuple(words) for text in PAGES.values() for words in commands(text)})


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_a_command_is_understood(words):
    Path("RUN").mkdir()
    Path("RUN/config.json").write_text(json.dumps(asdict(Args())))
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            understand(*words)
        assert stop.value.code == 0
    else:
        understand(*words)


def test_a_command_with_a_mistake_is_not_understood():
    for words in (["sweep.py", "--env", "two-roads"], ["toy_experiments/q_learning.py", "--sed=1"]):
        with pytest.raises((SystemExit, diffusion_ql.UserError)):
            understand(*words)


def test_the_commands_that_install_are_there_once_each():
    for what in ("python diffusion_ql.py", "python -m pytest"):
        assert FRONT.count(INSTALL + what + "\n") == 1


def test_the_fork_trains(pendulum):
    """The README's own code, on a dataset that is here and for a few steps."""
    (fork,) = re.findall(r"```python\n(.*?)```", FRONT, re.DOTALL)
    in_class = fork.split("class Normalized")[1].split("\n\nif __name__")[0]
    assert len([line for line in in_class.splitlines() if line.strip()]) < 15
    tiny = ", ".join(f"{name}={value!r}" for name, value in {**TINY, "steps": 2}.items())
    whole = 'Args.for_env("walker2d-medium-expert")'
    assert whole in fork
    fork = fork.replace(whole, f'Args.for_env("{ENV}", {tiny}, out="run")')
    exec(fork.replace("walker2d-medium-expert", ENV), {"__name__": "__main__"})
    assert Path("run", "result.json").exists()
    saved = torch.load("run/checkpoint.pt", weights_only=True)
    mean = load_dataset(ENV).transitions.state.mean(0)
    torch.testing.assert_close(saved["mean"], mean)


def test_the_calls_in_the_text_are_those_of_the_functions():
    calls = re.findall(r"`((?:sweep\.sweep|train)\(.+?\))`", FRONT)
    assert len(calls) == 3

    def checked(function):
        return lambda *given, **named: inspect.signature(function).bind(*given, **named)

    names = {
        "train": checked(diffusion_ql.train),
        "sweep": SimpleNamespace(sweep=checked(sweep.sweep)),
        "Dataset": checked(diffusion_ql.Dataset),
        "Args": Args,
        "Normalized": DiffusionQL,
        "folder": "runs/mine",
    }
    columns = dict.fromkeys(["states", "actions", "next_states", "rewards", "terminals"])
    for call in calls:
        eval(call, {**names, **columns})


def test_weights_of_a_run_and_of_the_release_load(pendulum):
    """The two lines for it. The release's files hold our names, and some buffers more."""
    of_run, of_release = re.findall(r"`(agent\.[\w.]*load_state_dict\(.*?\))`", FRONT)
    diffusion_ql.train(Args(env=ENV, out="RUN", **TINY))
    theirs = DiffusionQL(4, 1, Args(**TINY))
    actor = {**theirs.actor.state_dict(), "alphas_cumprod_prev": torch.ones(5)}
    torch.save(actor, "actor_50.pth")

    agent = DiffusionQL(4, 1, Args(**TINY))
    exec(of_run, {"agent": agent, "torch": torch})
    saved = torch.load("RUN/checkpoint.pt", weights_only=True)
    for name, parameter in agent.named_parameters():
        assert torch.equal(parameter, saved[name])
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


def test_the_front_page_is_short_and_counts_right():
    assert len(FRONT.splitlines()) <= 220
    source = (ROOT / "diffusion_ql.py").read_text().splitlines()
    number = len([line for line in source if line.strip()])
    assert f"{number} non-blank lines" in FRONT
    (heading,) = re.findall(r'the algorithm ends before "(.*?)"', FRONT)
    assert any(line.startswith(f"# ---- {heading}") for line in source)


def test_the_number_of_updates_that_are_replayed():
    official = json.loads((ROOT / "tests/official_numbers.json").read_text())
    number = sum(run["config"]["updates"] for run in official["updates"])
    assert f"replays {number} of them" in FRONT
