"""The converter: D4RL's q-learning view, transition for transition, and files that do not fit."""

import numpy as np
import pytest
from conftest import TINY_FLAGS, make_d4rl

import d4rl_to_minari
from d4rl_to_minari import convert
from diffusion_ql import load_dataset

ENV = ["--env-id", "InvertedPendulum-v5", "--name", "my/file-v0"]


def q_learning_view(columns):
    """The rows i that d4rl.qlearning_dataset keeps: row i + 1 exists, and row i is no timeout."""
    n = len(columns["rewards"])
    return [i for i in range(n - 1) if not columns["timeouts"][i]]


def random_ends(seed, n=60):
    r = np.random.RandomState(seed)
    return {"terminals": r.uniform(size=n) < 0.2, "timeouts": r.uniform(size=n) < 0.2}


@pytest.mark.parametrize(
    "ends",
    [
        {},
        {"terminals": np.zeros(60, bool), "timeouts": np.zeros(60, bool)},
        {"terminals": np.arange(60) % 7 == 6, "timeouts": np.arange(60) % 14 == 6},  # both at once
        {"terminals": np.arange(60) == 59, "timeouts": np.arange(60) < 3},
        random_ends(1),
        random_ends(2),
        random_ends(3),
    ],
)
def test_both_views_are_equal(ends, tmp_path):
    columns = make_d4rl(tmp_path / "file.hdf5", **ends)
    convert(tmp_path / "file.hdf5", "InvertedPendulum-v5", "my/file-v0")
    data = load_dataset("my/file-v0").transitions
    keep = np.array(q_learning_view(columns))
    np.testing.assert_array_equal(data.state, columns["observations"][keep])
    np.testing.assert_array_equal(data.next_state, columns["observations"][keep + 1])
    np.testing.assert_allclose(data.action, columns["actions"][keep] / 3, atol=1e-6)  # Box(-3, 3)
    np.testing.assert_array_equal(data.reward[:, 0], columns["rewards"][keep])
    np.testing.assert_array_equal(data.not_done[:, 0], 1.0 - columns["terminals"][keep])


def test_d4rls_names_look_in_its_cache(tmp_path):
    folder = tmp_path / "d4rl"
    make_d4rl(folder / "hopper_medium_replay-v2.hdf5", width=11, action_width=3)
    make_d4rl(folder / "pen-human-v1.hdf5", width=45, action_width=24)
    data = load_dataset("hopper-medium-replay-v2")
    assert data.env_id == "Hopper-v4" and data.score(np.array([3234.3])) == pytest.approx(100)
    assert load_dataset("pen-human-v1").env_id == "AdroitHandPen-v1"


def test_download_is_kept_only_when_whole(tmp_path, monkeypatch, fails):
    whole = tmp_path / "web" / "gym_mujoco_v2" / "hopper_medium-v2.hdf5"
    make_d4rl(whole, width=11, action_width=3)
    monkeypatch.setattr(d4rl_to_minari, "URL", (tmp_path / "web").as_uri() + "/")
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    assert "cannot download" in fails("--env", "hopper-medium-v2")
    assert not (tmp_path / "d4rl" / "hopper_medium-v2.hdf5").exists()
    assert not (tmp_path / "minari" / "d4rl").exists()
    whole.write_bytes(content)
    assert len(load_dataset("hopper-medium-v2").transitions.state) == 56
    assert (tmp_path / "d4rl" / "hopper_medium-v2.hdf5").read_bytes() == content


def test_the_command(tmp_path, run_main, cli, fails):
    make_d4rl(tmp_path / "file.hdf5")
    code, out, err = run_main(d4rl_to_minari, "file.hdf5", *ENV)
    assert code == 0 and "--env my/file-v0" in out, err
    assert cli("--env", "my/file-v0", *TINY_FLAGS, "--out", "run")[0] == 0
    assert "is there already" in fails("file.hdf5", *ENV, module=d4rl_to_minari)
    assert "--env-id" in fails("file.hdf5", module=d4rl_to_minari)
    assert "no file" in fails("other.hdf5", *ENV[:3], "my/other-v0", module=d4rl_to_minari)
    assert "antmaze-umaze" in fails("antmaze-umaze-v0", module=d4rl_to_minari)
    assert "hopper-medium-v2" in fails("hopper-medum-v2", module=d4rl_to_minari)
    unknown = ["file.hdf5", "--env-id", "NoSuchThing-v0", "--name", "my/other-v0"]
    assert "NoSuchThing" in fails(*unknown, module=d4rl_to_minari)


EMPTY = {
    "observations": np.zeros((0, 4), "f4"),
    "actions": np.zeros((0, 1), "f4"),
    "rewards": np.zeros(0, "f4"),
    "terminals": np.zeros(0, bool),
    "timeouts": np.zeros(0, bool),
}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"rewards": None}, "has no rewards"),
        ({"rewards": np.zeros(59, "f4")}, "lengths"),
        ({"observations": np.zeros((60, 5), "f4")}, "wide"),
        ({"observations": np.zeros(60, "f4")}, "wide"),
        ({"actions": np.zeros((60, 2), "f4")}, "wide"),
        ({"observations": np.full((60, 4), np.nan, "f4")}, "NaN"),
        ({"rewards": np.full(60, np.inf, "f4")}, "NaN or infinity"),
        ({"actions": np.full((60, 1), 3.1, "f4")}, "out of the bounds"),
        (EMPTY, "no transitions"),
    ],
)
def test_files_that_do_not_fit(change, says, fails, tmp_path):
    make_d4rl(tmp_path / "bad.hdf5", **change)
    assert says in fails("bad.hdf5", *ENV, module=d4rl_to_minari)
    assert not (tmp_path / "minari" / "my").exists()


def test_files_that_cannot_be_read(fails, tmp_path):
    (tmp_path / "text.hdf5").write_text("not HDF5")
    assert "cannot read" in fails("text.hdf5", *ENV, module=d4rl_to_minari)
    make_d4rl(tmp_path / "half.hdf5")
    content = (tmp_path / "half.hdf5").read_bytes()
    (tmp_path / "half.hdf5").write_bytes(content[: len(content) // 2])
    assert "cut off" in fails("half.hdf5", *ENV, module=d4rl_to_minari)


def test_a_killed_conversion_leaves_nothing(tmp_path, monkeypatch):
    make_d4rl(tmp_path / "file.hdf5")

    def power_cut(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(d4rl_to_minari.minari, "create_dataset_from_buffers", power_cut)
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "file.hdf5", "InvertedPendulum-v5", "my/file-v0")
    assert not (tmp_path / "minari/my/file-v0").exists()
    convert(tmp_path / "file.hdf5", "InvertedPendulum-v5", "my/file-v0")
