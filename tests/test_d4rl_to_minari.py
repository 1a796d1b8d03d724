"""The converter: D4RL's q-learning view, transition for transition, its kitchen, and bad files."""

import warnings
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from conftest import D4RL, TINY_FLAGS, make_d4rl
from minari.storage import get_dataset_path

import d4rl_to_minari
from d4rl_to_minari import convert
from diffusion_ql import load_dataset, make_env

PENDULUM = "InvertedPendulum-v5"
OPTIONS = ["file.hdf5", "--env-id", PENDULUM, "--name", "my/file-v0"]
HOPPER = "gym_mujoco_v2/hopper_medium-v2.hdf5"


@pytest.fixture
def refuses(fails):
    """The error that the converter's command line ends with. There is a file.hdf5 to convert."""
    make_d4rl(Path("file.hdf5"))
    return lambda *argv: fails(*argv, module=d4rl_to_minari)


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.9])
def test_both_views_are_equal(share):
    """d4rl.qlearning_dataset keeps row i if row i + 1 exists, and row i is no timeout."""
    terminals, timeouts = np.random.RandomState(0).uniform(size=(2, 60)) < share
    columns = make_d4rl(Path("file.hdf5"), terminals=terminals, timeouts=timeouts)
    convert(Path("file.hdf5"), PENDULUM, "my/file-v0")
    data = load_dataset("my/file-v0").transitions
    keep = np.flatnonzero(~timeouts[:-1])
    np.testing.assert_array_equal(data.state, columns["observations"][keep])
    np.testing.assert_array_equal(data.next_state, columns["observations"][keep + 1])
    np.testing.assert_allclose(data.action, columns["actions"][keep] / 3, atol=1e-6)  # Box(-3, 3)
    np.testing.assert_array_equal(data.reward[:, 0], columns["rewards"][keep])
    np.testing.assert_array_equal(data.not_done[:, 0], 1.0 - terminals[keep])


# ---- D4RL's names --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, file, env_id, widths, steps, best",
    [
        ("hopper-medium-v2", "hopper_medium-v2", "Hopper-v4", (11, 3), 1000, 3234.3),
        ("d4rl/hopper/expert-v2", "hopper_expert-v2", "Hopper-v4", (11, 3), 1000, 3234.3),
        ("hopper-full-replay-v2", "hopper_full_replay-v2", "Hopper-v4", (11, 3), 1000, 3234.3),
        ("pen-expert-v1", "pen-expert-v1", "AdroitHandPen-v1", (45, 24), 100, 3076.833102),
    ],
)
def test_d4rls_names_look_in_its_cache(name, file, env_id, widths, steps, best):
    make_d4rl(Path(f"d4rl/{file}.hdf5"), width=widths[0], action_width=widths[1])
    data = load_dataset(name)
    assert len(data.transitions.state) == 56 and data.score(np.array([best])) == pytest.approx(100)
    spec = data.envs[0].spec
    assert (spec.id, spec.max_episode_steps) == (env_id, steps)


REASONS = {  # of names that fit no simulator
    "antmaze-umaze-v0": "--env antmaze-umaze",
    "door-human-v1": "rewards",
    "hopper-medium-v0": "hopper-medium-v2",
    "hopper-medum-v2": "hopper-medium-v2",
    "maze2d-umaze-v1": "nearest",
    "antmaze-large-navigate-singletask-v0": "OGBench",
    "cube-single-play-v0": "OGBench",
}


@pytest.mark.parametrize("name", REASONS)
def test_names_that_fit_no_simulator_say_why(name, refuses, fails):
    for message in (refuses(name), fails("--env", name)):
        assert name in message and REASONS[name] in message


def test_download_is_kept_only_when_whole(tmp_path, monkeypatch, fails):
    whole = tmp_path / "web" / HOPPER
    make_d4rl(whole, width=11, action_width=3)
    monkeypatch.setattr(d4rl_to_minari, "URL", (tmp_path / "web").as_uri() + "/")
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    assert HOPPER in fails("--env", "hopper-medium-v2")
    assert not Path("d4rl/hopper_medium-v2.hdf5").exists() and not Path("minari/d4rl").exists()
    whole.write_bytes(content)
    assert len(load_dataset("hopper-medium-v2").transitions.state) == 56


@pytest.mark.parametrize("content", [None, b"\x89HDF\r\n\x1a\n half", b"<html>403</html>"])
def test_downloads_that_fail_say_address_file_and_what_to_do(content, refuses, fails, tmp_path):
    path = tmp_path / "d4rl/hopper_medium-v2.hdf5"
    if content:
        path.parent.mkdir()
        path.write_bytes(content)
    for message in (fails("--env", "hopper-medium-v2"), refuses("hopper-medium-v2")):
        assert str(path) in message and f"http://127.0.0.1:9/{HOPPER}" in message
        assert ("delete it and run again" if content else "by hand") in message


# ---- A file of one's own -------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["my/file-v0", "hopper-mine-v0", "lab/deep/data-v12"])
def test_the_printed_command_works(name, run_main, cli):
    make_d4rl(Path("file.hdf5"))
    code, out, err = run_main(d4rl_to_minari, *OPTIONS[:4], name)
    assert code == 0 and out.endswith(f"python diffusion_ql.py --env {name}\n"), err
    code, _, err = cli("--env", name, *TINY_FLAGS, "--out", "run")
    assert code == 0 and Path("run/result.json").exists(), err


BAD_NAMES = ["my/hopper", "hopper", "two words-v0", "my//file-v0", "../a-v0"]  # to Minari


@pytest.mark.parametrize("name", [*BAD_NAMES, "hopper-medium-v2", "pen-human-v1"])
def test_names_that_minari_or_d4rl_would_not_find_again(name, refuses, tmp_path):
    """D4RL's own names are refused, because --env with them leads to D4RL's data."""
    assert name in refuses(*OPTIONS[:4], name)
    assert not list(tmp_path.glob("**/main_data.hdf5"))


UNFIT = "Goal-v0 FrankaKitchen-v1 Pixels-v0 CartPole-v1 Hopper-v2 not_there:Env-v0"


@pytest.mark.parametrize("env_id", UNFIT.split())
def test_environments_that_do_not_fit(env_id, refuses):
    assert env_id in refuses("file.hdf5", "--env-id", env_id, "--name", "my/file-v0")


def test_commands_that_miss_something(refuses):
    assert "--env-id" in refuses("file.hdf5")
    assert "--name" in refuses(*OPTIONS[:3])
    assert "no file" in refuses("other.hdf5", *OPTIONS[1:])
    convert(Path("file.hdf5"), PENDULUM, "my/file-v0")
    assert "is there already" in refuses(*OPTIONS)


@pytest.mark.parametrize(
    "says, change",
    [
        ("has no rewards, timeouts", {"rewards": None, "timeouts": None}),
        ("lengths", {"rewards": np.zeros(59)}),
        ("rewards", {"rewards": np.zeros((60, 2))}),
        ("rewards", {"rewards": 1.0}),
        ("wide", {"observations": np.zeros((60, 5))}),
        ("NaN or infinity in actions", {"actions": np.full((60, 1), np.nan)}),
        ("NaN or infinity in rewards", {"rewards": np.full(60, np.inf)}),
        ("out of the bounds", {"actions": np.full((60, 1), 3.1)}),
        ("no transitions", {"n": 1}),
    ],
)
def test_files_that_do_not_fit(says, change, refuses):
    make_d4rl(Path("file.hdf5"), **change)
    message = refuses(*OPTIONS)
    assert says in message and "file.hdf5" in message and not Path("minari/my").exists()


def test_files_that_cannot_be_read(refuses):
    Path("file.hdf5").write_bytes(Path("file.hdf5").read_bytes()[:2000])
    assert "cut off" in refuses(*OPTIONS)
    Path("file.hdf5").write_text("not HDF5")
    assert "cannot read" in refuses(*OPTIONS)
    with h5py.File("file.hdf5", "w") as file:
        for key in d4rl_to_minari.KEYS:
            file.create_group(key)
    assert "observations" in refuses(*OPTIONS)


# ---- What is left on the disk --------------------------------------------------------------------
def test_a_killed_conversion_leaves_nothing(monkeypatch):
    make_d4rl(Path("file.hdf5"))

    def power_cut(name, *rest, **about):
        folder = Path(get_dataset_path(name), "data")
        folder.mkdir(parents=True)
        (folder / "main_data.hdf5").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(minari, "create_dataset_from_buffers", power_cut)
        convert(Path("file.hdf5"), PENDULUM, "my/file-v0")
    assert not Path("minari/my/file-v0").exists()
    convert(Path("file.hdf5"), PENDULUM, "my/file-v0")
    assert len(load_dataset("my/file-v0").transitions.state) > 0


def test_another_process_may_make_the_dataset_in_the_meantime(monkeypatch, tmp_path):
    create = minari.create_dataset_from_buffers
    for n in (30, 60):
        make_d4rl(Path(f"{n}.hdf5"), n=n)

    def create_after_another(*args, **about):
        monkeypatch.setattr(minari, "create_dataset_from_buffers", create)
        with monkeypatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
            convert(Path("30.hdf5"), PENDULUM, "my/file-v0")
        return create(*args, **about)

    monkeypatch.setattr(minari, "create_dataset_from_buffers", create_after_another)
    convert(Path("60.hdf5"), PENDULUM, "my/file-v0")
    assert len(load_dataset("my/file-v0").transitions.state) < 30


# ---- D4RL's kitchen ------------------------------------------------------------------------------
KITCHEN = D4RL / "mini_kitchen_microwave_kettle_light_slider-v0.hdf5"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """kitchen-complete-v0 of D4RL's own file, loaded without a warning."""
    if not KITCHEN.exists():
        pytest.skip(f"there is no {KITCHEN}")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        patch.setenv("D4RL_DATASET_DIR", str(D4RL))
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        return load_dataset("kitchen-complete-v0")


def demonstrations():
    """Observations and actions of each, by its rows in the file."""
    with h5py.File(KITCHEN) as file:
        ends = np.flatnonzero(file["terminals"][()])[:-1] + 1
        columns = [np.split(file[name][()], ends) for name in ("observations", "actions")]
    return list(zip(*columns, strict=True))


def test_the_kitchen_starts_like_d4rls(kitchen):
    env = make_env(kitchen.env_spec)
    assert env.spec.max_episode_steps == 280 and kitchen.score(np.array([4])) == [100]
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(20)])
    file = np.stack([observations[0] for observations, _ in demonstrations()])
    away = np.abs(starts - file.mean(axis=0))
    spread = np.ptp(file, axis=0)
    assert away[:, :9].max() < 0.12  # joints
    assert (away[:, 9:30] < 1.2 * spread[9:30]).all()  # objects: within the noise of D4RL's robot
    assert (np.ptp(starts, axis=0)[9:30] > 0.5 * spread[9:30]).all()  # which is there, too
    assert (away[:, 30:] < 1e-6).all()  # the goal


@pytest.mark.parametrize("number", [0, 7, 18])
def test_a_demonstration_finishes_all_tasks_in_the_kitchen(number, kitchen):
    """Steered to its position targets: an action is a velocity, held for 0.16 s."""
    env = make_env(kitchen.env_spec)
    state, _ = env.reset(seed=number)
    for observation, action in zip(*demonstrations()[number], strict=True):
        target = observation[:9] + 0.16 * action
        state, _, finished, _, info = env.step(np.clip((target - state[:9]) / 0.16, -1, 1))
        if finished:
            break
    assert finished and len(info["episode_task_completions"]) == 4
