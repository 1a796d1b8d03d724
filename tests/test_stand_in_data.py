"""Both spellings of walker2d-medium-expert on real MuJoCo data, where ../shared/data is there."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from diffusion_ql import Args, load_dataset, train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
reason = "needs ../shared/data: real MuJoCo rollouts under the public datasets' names"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=reason)


def check(env, env_id, size):
    data = load_dataset(env)
    assert data.env_spec.id == env_id and (data.state_dim, data.action_dim) == (17, 6)
    assert len(data.transitions.state) == size
    assert data.score(np.array([4592.3])) == pytest.approx(100)
    result = train(Args(env=env, out="run", compile="off", **{**TINY, "steps": 3, "eval_every": 3}))
    assert 0 < result["final"]["return"] < 1000


def test_minaris(monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(DATA / "minari"))
    check("walker2d-medium-expert", "Walker2d-v5", 99_573 + 99_285)


def test_d4rls(monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(DATA / "d4rl"))
    check("walker2d-medium-expert-v2", "Walker2d-v4", 61_062 - 1 - 30)
