"""D4RL's datasets in Minari's format: the old data, in the format that the field uses today.

    python d4rl_to_minari.py walker2d-medium-expert-v2
    python d4rl_to_minari.py my_data.hdf5 --env-id Hopper-v4 --name my/hopper-v0

The first downloads D4RL's file, if it is not in D4RL_DATASET_DIR (default: ~/.d4rl/datasets), and
makes the Minari dataset d4rl/walker2d/medium-expert-v2. The second converts a file of your own in
D4RL's format: HDF5 with observations, actions, rewards, terminals and timeouts, a row per step.

The result holds D4RL's q-learning view, transition for transition: the next row is the next state;
the last row of an episode that ends in a timeout has none, and is dropped.
"""

import os
import re
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import gymnasium as gym
import h5py
import minari
import numpy as np
import tyro
from minari.data_collector import EpisodeBuffer
from minari.storage import get_dataset_path
from tqdm import tqdm

URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")
# The environment whose observations fit, and the returns that D4RL scores as 0 and 100.
DOMAINS = {
    "halfcheetah": ("HalfCheetah-v4", -280.178953, 12135.0),
    "hopper": ("Hopper-v4", -20.272305, 3234.3),
    "walker2d": ("Walker2d-v4", 1.629008, 4592.3),
    "pen": ("AdroitHandPen-v1", 96.262799, 3076.833102),
}
NAMES = ["pen-human-v1", "pen-cloned-v1"]
for level in ("medium", "medium-replay", "medium-expert"):
    NAMES += [f"halfcheetah-{level}-v2", f"hopper-{level}-v2", f"walker2d-{level}-v2"]


@dataclass
class Args:
    """Makes a Minari dataset of D4RL's data."""

    source: tyro.conf.Positional[str]  # a D4RL name, such as hopper-medium-v2, or an .hdf5 file
    env_id: str = ""  # environment that a file's data is from, such as Hopper-v4
    name: str = ""  # id of the Minari dataset to make of a file, such as my/hopper-v0


def make(minari_id):
    """Makes the Minari dataset of a D4RL name: d4rl/hopper/medium-v2 of hopper-medium-v2.

    Raises ValueError for names that D4RL does not have, OSError where the download fails.
    """
    name = minari_id.removeprefix("d4rl/").replace("/", "-")
    if name not in NAMES:
        raise ValueError(unknown(name))
    domain, level = name.split("-", 1)
    env_id, low, high = DOMAINS[domain]
    convert(download(name), env_id, f"d4rl/{domain}/{level}", low, high)


def unknown(name):
    """What is wrong with a name that is not D4RL's."""
    task = re.sub(r"-v\d+$", "", name)
    if task.startswith(("antmaze-", "kitchen-")):
        return f"D4RL's {name} fits no simulator of today: use Minari's, --env {task}"
    return f"D4RL has no {name!r}. There are {', '.join(NAMES)}"


def download(name):
    """The path of D4RL's file of this name, in the d4rl package's own cache folder."""
    folder = Path(os.environ.get("D4RL_DATASET_DIR", "~/.d4rl/datasets")).expanduser()
    remote = f"gym_mujoco_v2/{name[:-3].replace('-', '_')}-v2.hdf5"
    if name.startswith("pen"):
        remote = f"hand_dapg_v1/{name}.hdf5"
    path = folder / Path(remote).name
    if path.exists():
        return path
    partial = path.with_name(f"part-{path.name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(desc=path.name, unit="B", unit_scale=True) as bar:

            def show_progress(block, block_size, total):
                bar.total = total
                bar.update(block * block_size - bar.n)

            urllib.request.urlretrieve(URL + remote, partial, show_progress)
        h5py.File(partial).close()  # fails where the end is missing
    except OSError as error:
        raise OSError(f"cannot download {URL}{remote} to {path}: {error}") from error
    partial.replace(path)
    return path


def convert(path, env_id, minari_id, low=None, high=None):
    """Makes the Minari dataset `minari_id` of a file in D4RL's format.

    low, high: the returns that score 0 and 100. The dataset's folder appears when it is whole.
    Raises ValueError for a file that cannot be read, or does not fit the environment.
    """
    folder = get_dataset_path(minari_id)
    if folder.exists():
        raise ValueError(f"{folder} is there already: delete it first, or choose another --name")
    env = make_env(env_id)
    columns = read(path)
    check(path, columns, env)
    episodes = list(split(columns))
    if not episodes:
        raise ValueError(f"{path} holds no transitions: use another file")
    buffers = []
    for i, episode in enumerate(tqdm(episodes, "converting", unit="episode")):
        buffers.append(EpisodeBuffer(i, None, None, *episode))

    root = get_dataset_path("")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as workshop:
        with mock.patch.dict(os.environ, MINARI_DATASETS_PATH=workshop):
            minari.create_dataset_from_buffers(
                minari_id,
                buffers,
                env,
                eval_env=env,
                algorithm_name="D4RL",
                author="D4RL",
                author_email="see github.com/Farama-Foundation/D4RL",
                code_permalink="https://github.com/Farama-Foundation/D4RL",
                ref_min_score=low,
                ref_max_score=high,
                description=f"D4RL's q-learning view of {path.name}",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        for metadata in Path(workshop).rglob("namespace_metadata.json"):
            place = root / metadata.relative_to(workshop)
            place.parent.mkdir(parents=True, exist_ok=True)
            metadata.replace(place)
        Path(workshop, minari_id).replace(folder)


def make_env(env_id):
    sys.modules.setdefault("farama_notifications", None)  # or gymnasium-robotics prints news
    import gymnasium_robotics

    gym.logger.min_level = gym.logger.ERROR  # "Walker2d-v4 is out of date": so is the data
    gym.register_envs(gymnasium_robotics)
    try:
        return gym.make(env_id)
    except gym.error.Error as error:
        raise ValueError(f"cannot make the environment {env_id}: {error}") from error


def read(path):
    """The five columns of a file, by name."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with h5py.File(path) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise ValueError(f"{path} has no {', '.join(missing)}: it is not in D4RL's format")
            columns = {key: file[key][()] for key in KEYS}
    except OSError as error:
        hint = "if its download was cut off, delete that file and run again"
        raise ValueError(f"cannot read {path} ({error}): {hint}") from error
    for key in ("rewards", "terminals", "timeouts"):
        columns[key] = columns[key].reshape(len(columns[key]))
    columns["terminals"] = columns["terminals"].astype(bool)
    columns["timeouts"] = columns["timeouts"].astype(bool)
    return columns


def check(path, columns, env):
    """Raises ValueError where the columns do not fit each other or the environment."""
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"{path}: the lengths of {', '.join(KEYS)} differ: use another file")
    widths = columns["observations"].shape[1:] + columns["actions"].shape[1:]
    expected = env.observation_space.shape + env.action_space.shape
    if widths != expected:
        problem = f"its observations and actions are {widths} wide, those of {env.spec.id}"
        raise ValueError(f"{path}: {problem} {expected}: give another --env-id")
    for key in ("observations", "actions", "rewards"):
        if not np.isfinite(columns[key]).all():
            raise ValueError(f"{path}: NaN or infinity in {key}: clean the data")
    box = env.action_space
    margin = 0.001 * (box.high - box.low)  # of rounding
    outside = (columns["actions"] < box.low - margin) | (columns["actions"] > box.high + margin)
    if outside.any():
        raise ValueError(f"{path}: actions out of the bounds of {env.spec.id}: clip the data")


def split(columns):
    """The episodes of a file, as D4RL's q-learning view has them.

    Yields observations (T + 1, ...), actions, rewards, terminations, truncations (T, ...). Row i
    is a transition if row i + 1 exists and row i is no timeout; a terminal ends the episode.
    """
    n = len(columns["rewards"])
    ends = columns["terminals"] | columns["timeouts"]
    ends[-1:] = True
    start = 0
    for end in np.flatnonzero(ends):
        has_next = end + 1 < n and not columns["timeouts"][end]
        stop = end + 1 if has_next else end  # the last row without a next state is dropped
        if stop > start:
            terminations = columns["terminals"][start:stop]
            truncations = np.zeros(stop - start, dtype=bool)
            truncations[-1] = not terminations[-1]
            yield (
                columns["observations"][start : stop + 1],
                columns["actions"][start:stop],
                columns["rewards"][start:stop],
                terminations,
                truncations,
            )
        start = end + 1


def main():
    args = tyro.cli(Args, description=__doc__)
    try:
        if not args.source.endswith((".hdf5", ".h5")):
            make(args.source)
        elif args.env_id and args.name:
            convert(Path(args.source), args.env_id, args.name)
        else:
            raise ValueError(
                "of a file: add --env-id (such as Hopper-v4) and --name (my/hopper-v0)"
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    name = args.name if args.name else args.source
    print(f"To train on it: python diffusion_ql.py --env {name}")


if __name__ == "__main__":
    main()
