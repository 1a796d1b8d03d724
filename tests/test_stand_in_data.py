"""Both spellings of walker2d-medium-expert on real MuJoCo data, where the folder ../shared/data is there."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from diffusion_ql import Args, load_dataset, train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.exists(),
    reason="needs ../shared/data: real MuJoCo rollouts under the public datasets' names",
)


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(DATA / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(DATA / "d4rl"))


@pytest.mark.parametrize(
    "env, version, size",
    [
        ("walker2d-medium-expert", "v5", 99_573 + 99_285),
        ("walker2d-medium-expert-v2", "v4", 61_062 - 1 - 30),
    ],
)
def test_walker2d_medium_expert(env, version, size):
    data = load_dataset(env)
    assert data.env_id == f"Walker2d-{version}" and (data.state_dim, data.action_dim) == (17, 6)
    assert len(data.transitions.state) == size
    assert data.score(np.array([4592.3])) == pytest.approx(100)
    result = train(Args.for_env(env, out="run", **{**TINY, "steps": 3, "eval_every": 3}))
    assert 0 < result["final"]["return"] < 1000
