"""Lesson 1 runs, its checks say right, and what its text claims is so."""

import json
import math
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from toy_experiments.bandit import measure
from tutorials.checks import lesson_1
from tutorials.grading import Check, with_mistakes
from tutorials.helpers import committed

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
LOOK = """
import json
names = "divergence on_paper measured thread_width largest_factor gap shares earned"
found = {name: globals()[name] for name in names.split()}
found["end"], found["thread ends"] = trained[-1], thread[[0, -1]]
found["walks"] = list(walks.values())
print(json.dumps(found, default=lambda value: value.tolist()))
"""
CHECKS = {name: value for name, value in vars(lesson_1).items() if isinstance(value, Check)}
MISTAKES = [(name, hint) for name, one in CHECKS.items() for hint in one.mistakes]


@pytest.mark.parametrize("name, hint", MISTAKES)
def test_every_mistake_is_told_from_the_others(name, hint):
    mistaken = with_mistakes(CHECKS[name].solution, [CHECKS[name].mistakes[hint]])
    assert CHECKS[name].verdict(mistaken) == f"✗ {name}: {hint}"


@pytest.mark.slow
def test_the_lesson_runs_and_its_claims_hold(monkeypatch):
    monkeypatch.setenv("FAST", "1")
    notebook = nbformat.read(TUTORIALS / "1_why_an_expressive_policy.ipynb", 4)
    notebook.cells.append(new_code_cell(LOOK))
    where = {"metadata": {"path": TUTORIALS}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    printed = "".join(out.text for out in outputs if out.output_type == "stream")
    assert printed.count("right.") == len(CHECKS) == 5
    found = json.loads(printed.splitlines()[-1])

    assert np.allclose(found["end"], [[0, 0], [0.8, 0.8]], atol=0.06)
    assert abs(found["on_paper"]["on the border"] - found["measured"]["on the border"]) < 0.01
    assert abs(found["on_paper"]["on mode"] - found["measured"]["on mode"]) < 0.005
    (wide, narrow), (wide_back, narrow_back) = found["divergence"].values()
    assert wide < narrow and wide_back > narrow_back
    assert abs(narrow_back - math.log(4)) < 0.01

    jumps = [np.abs(np.diff(walk, axis=0)).max() for walk in found["walks"]]
    assert jumps[0] < 0.05 and jumps[1] > 1  # CVAE and diffusion
    assert found["thread_width"] < 1e-5
    assert np.linalg.norm(np.subtract(*found["thread ends"])) > 1
    assert found["gap"][40] < 3 * found["gap"][0] < found["gap"][-1] / 1e4
    assert found["largest_factor"] < 25

    tie = np.array(found["earned"]["5"])
    assert tie[:, 0].max() < 0.6 and tie[:, 1].min() > 2
    assert max(reward for reward, _ in found["earned"]["4.5"]) > 4.9


@pytest.mark.slow
def test_what_the_text_says_about_committed_runs():
    methods = ["CVAE", "CVAE, repaired", "MMD", "mixture of 8", "diffusion"]
    runs = committed("behavior_cloning", methods)
    shares = {row: np.sort([numbers["on_mode"] for _, numbers in runs[row]]) for row in runs}
    assert shares["mixture of 8"][0] < 0.055 and (shares["mixture of 8"] > 0.99).sum() == 2
    assert shares["CVAE, repaired"].min() > 0.775 and shares["CVAE, repaired"].max() < 0.805
    assert shares["diffusion"].min() > 0.985 > shares["CVAE"].max()
    noise = torch.randn(100_000, 2)
    best = max(measure((std * noise).tanh()[:20_000])["on_mode"] for std in (1.3, 1.5, 1.7))
    assert shares["MMD"].max() < best + 0.01 < 0.26
