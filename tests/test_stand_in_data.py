"""Public names lead to public data: walker2d-medium-expert as Minari has it, and as D4RL has it.

MINARI_DATASETS_PATH and D4RL_DATASET_DIR name the folders of these datasets, as for every command.
"""

import numpy as np
import pytest
from conftest import D4RL, MINARI, TINY

from diffusion_ql import Args, load_dataset, train

pytestmark = pytest.mark.slow


def check(env, env_id, path):
    if not path.exists():
        pytest.skip(f"there is no {path}")
    data = load_dataset(env)
    assert data.env_spec.id == env_id and (data.state_dim, data.action_dim) == (17, 6)
    assert len(data.transitions.state) > 50_000
    assert data.score(np.array([4592.3])) == pytest.approx(100)
    result = train(Args(env=env, out="run", compile="off", **{**TINY, "steps": 3, "eval_every": 3}))
    assert 0 < result["final"]["return"] < 1000


def test_minaris(monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(MINARI))
    check("walker2d-medium-expert", "Walker2d-v5", MINARI / "mujoco/walker2d/expert-v0")


def test_d4rls(monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(D4RL))
    check("walker2d-medium-expert-v2", "Walker2d-v4", D4RL / "walker2d_medium_expert-v2.hdf5")
