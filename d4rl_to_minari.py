"""D4RL's datasets in Minari's format: the old data, in the format that the field uses today.

    python d4rl_to_minari.py walker2d-medium-expert-v2
    python d4rl_to_minari.py my_data.hdf5 --env-id Hopper-v4 --name my/hopper-v0

The first downloads D4RL's file, if it is not in D4RL_DATASET_DIR (default: ~/.d4rl/datasets), and
makes the Minari dataset d4rl/walker2d/medium-expert-v2. The second converts a file of your own in
D4RL's format: HDF5 with observations, actions, rewards, terminals and timeouts, a row per step.

The result holds D4RL's q-learning view, transition for transition: the next row is the next state;
the last row of an episode that ends in a timeout has none, and is dropped.
"""

import difflib
import os
import re
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

sys.modules["farama_notifications"] = None  # or gymnasium prints news
import gymnasium as gym
import gymnasium_robotics
import h5py
import minari
import numpy as np
import tyro
from gymnasium_robotics.envs.franka_kitchen import KitchenEnv
from minari.data_collector import EpisodeBuffer
from minari.storage import get_dataset_path
from tqdm import tqdm

URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")
KITCHEN_FILES = {  # of D4RL, and the tasks whose completion counts
    "kitchen-complete-v0": (
        "mini_kitchen_microwave_kettle_light_slider-v0",
        ["microwave", "kettle", "light switch", "slide cabinet"],
    ),
    "kitchen-partial-v0": (
        "kitchen_microwave_kettle_light_slider-v0",
        ["microwave", "kettle", "light switch", "slide cabinet"],
    ),
    "kitchen-mixed-v0": (
        "kitchen_microwave_kettle_bottomburner_light-v0",
        ["microwave", "kettle", "bottom burner", "light switch"],
    ),
}


@dataclass
class Source:
    """Where D4RL has a dataset, and what scores agents that were trained on it."""

    file: str  # below URL, without .hdf5
    env_id: str
    options: dict  # of gymnasium.make
    returns: tuple  # that D4RL scores as 0 and 100


OURS = ("two-roads", "bandit")  # tasks that are no datasets of D4RL
SOURCES = {}
for domain, env_id, returns in (
    ("halfcheetah", "HalfCheetah-v4", (-280.178953, 12135.0)),
    ("hopper", "Hopper-v4", (-20.272305, 3234.3)),
    ("walker2d", "Walker2d-v4", (1.629008, 4592.3)),
):
    for level in "random medium expert medium-replay full-replay medium-expert".split():
        file = f"gym_mujoco_v2/{domain}_{level.replace('-', '_')}-v2"
        SOURCES[f"{domain}-{level}-v2"] = Source(file, env_id, {}, returns)
for level in ("human", "cloned", "expert"):  # D4RL's pen has 100 steps, AdroitHandPen-v1 has 200
    file = f"hand_dapg_v1/pen-{level}-v1"
    options = {"max_episode_steps": 100}
    SOURCES[f"pen-{level}-v1"] = Source(file, "AdroitHandPen-v1", options, (96.262799, 3076.833102))
for name, (file, tasks) in KITCHEN_FILES.items():
    SOURCES[name] = Source(f"kitchen/{file}", "D4RLKitchen-v0", {"tasks": tasks}, (0, 4))


class Kitchen(gym.Env):
    """FrankaKitchen-v1 behind D4RL's 60 observations: the positions of 9 joints and 21 coordinates
    of objects, with D4RL's noise, and the goal (30), which never changes."""

    metadata = KitchenEnv.metadata

    def __init__(self, tasks, goal, render_mode=None):
        noise = {"robot_noise_ratio": 0.1, "object_noise_ratio": 0}  # on joints: 0.01, as in D4RL
        self.simulator = KitchenEnv(tasks, **noise, render_mode=render_mode)
        self.render_mode = render_mode
        self.goal = np.array(goal)
        self.noise = np.zeros(30)
        self.noise[11:17] = 0.00005  # on objects: as D4RL's file shows it before anything moves
        self.noise[[9, 10, 17, 18, 19, 23, 24, 25, 29]] = 0.0005
        self.noise[[20, 21, 22, 26, 27, 28]] = 0.01
        self.action_space = self.simulator.action_space
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (60,))

    def observe(self, simulated):
        positions = np.concatenate([simulated["observation"][:9], simulated["observation"][18:39]])
        positions += self.noise * self.simulator.robot_env.np_random.uniform(-1, 1, 30)
        return np.concatenate([positions, self.goal]).astype(np.float32)

    def reset(self, seed=None, options=None):
        simulated, info = self.simulator.reset(seed=seed)
        return self.observe(simulated), info

    def step(self, action):
        simulated, *others = self.simulator.step(action)
        return self.observe(simulated), *others

    def render(self):
        return self.simulator.render()

    def close(self):
        self.simulator.close()


if "D4RLKitchen-v0" not in gym.registry:
    gym.register("D4RLKitchen-v0", "d4rl_to_minari:Kitchen", max_episode_steps=280)


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
    if name not in SOURCES:
        raise ValueError(why_not(name))
    source = SOURCES[name]
    path = download(source.file)
    options = dict(source.options)
    if source.env_id == "D4RLKitchen-v0":
        options["goal"] = read(path)["observations"][0, 30:].tolist()
    minari_id = "d4rl/" + name.replace("-", "/", 1)
    convert(path, source.env_id, minari_id, *source.returns, **options)


def why_not(name):
    """What is wrong with a name that is not in SOURCES."""
    domain = name.split("-")[0]
    if "singletask" in name or re.search(r"-(navigate|stitch|explore|play|noisy)-", name):
        return f"{name} is OGBench's, with simulators of its own: give its arrays to Dataset(...)"
    if domain == "antmaze":
        task = re.sub(r"-v\d+$", "", name)
        return f"{name}: D4RL's mazes lie otherwise than today's. Minari's data: --env {task}"
    if domain in ("door", "hammer", "relocate"):
        return f"{name}: the rewards of AdroitHand's {domain} have changed since, so none fits"
    if name.endswith(("-v0", "-v1")) and f"{name[:-3]}-v2" in SOURCES:
        return f"{name} does not say where its episodes are cut off: --env {name[:-3]}-v2 does"
    nearest = ", ".join(difflib.get_close_matches(name, [*SOURCES, *OURS], n=4, cutoff=0))
    hint = "of an .hdf5 file: see python d4rl_to_minari.py --help"
    return f"D4RL has no {name!r} that fits a simulator of today; nearest: {nearest}; {hint}"


def download(file):
    """The path of D4RL's file, in the d4rl package's own cache folder. Raises OSError."""
    folder = Path(os.environ.get("D4RL_DATASET_DIR", "~/.d4rl/datasets")).expanduser()
    address = f"{URL}{file}.hdf5"
    path = folder / Path(address).name
    partial = path.with_name(f"part-{path.name}")
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(address, timeout=60) as response:
                size = int(response.headers.get("Content-Length", 0)) or None
                with (
                    open(partial, "wb") as copy,
                    tqdm(desc=path.name, total=size, unit="B", unit_scale=True) as bar,
                ):
                    while block := response.read(1 << 20):
                        bar.update(copy.write(block))
            h5py.File(partial).close()  # fails where the end is missing
            partial.replace(path)
        h5py.File(path).close()
    except OSError as error:
        hint = "delete it and run again" if path.exists() else "download it by hand"
        raise OSError(f"{path}: {error}\n{hint}, from {address}") from error
    return path


def convert(path, env_id, minari_id, low=None, high=None, **options):
    """Makes the Minari dataset `minari_id` of a file in D4RL's format.

    low, high: the returns that score 0 and 100; options: of gymnasium.make. The dataset's folder
    appears when it is whole. Raises ValueError for a file that cannot be read, or does not fit.
    """
    folder = get_dataset_path(minari_id)
    if folder.exists():
        raise ValueError(f"{folder} is there already: delete it first, or choose another --name")
    env = make_env(env_id, options)
    columns = read(path)
    check(path, columns, env)
    episodes = list(split(columns))
    if not episodes:
        raise ValueError(f"{path} holds no transitions: use another file")
    buffers = []
    for i, episode in enumerate(tqdm(episodes, "converting", unit="episode")):
        buffers.append(EpisodeBuffer(i, None, None, *episode))

    about = dict(algorithm_name="D4RL", author="D4RL", ref_min_score=low, ref_max_score=high)
    about["code_permalink"] = "https://github.com/Farama-Foundation/D4RL"
    about["author_email"] = "see github.com/Farama-Foundation/D4RL"
    about["description"] = f"D4RL's q-learning view of {path.name}"
    store(minari_id, buffers, env, about)


def store(minari_id, buffers, env, about):
    """Writes a Minari dataset; its folder appears when it is whole.

    buffers: a list of EpisodeBuffer; about: {argument: value} of minari.create_dataset_from_buffers
    that say where the data is from. Raises OSError.
    """
    folder = get_dataset_path(minari_id)
    root = get_dataset_path("")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as workshop:
        with mock.patch.dict(os.environ, MINARI_DATASETS_PATH=workshop):
            minari.create_dataset_from_buffers(minari_id, buffers, env, eval_env=env, **about)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for metadata in Path(workshop).rglob("namespace_metadata.json"):
            place = root / metadata.relative_to(workshop)
            place.parent.mkdir(parents=True, exist_ok=True)
            metadata.replace(place)
        if not folder.exists():  # another process may have made it in the meantime
            Path(workshop, minari_id).replace(folder)


def check_name(name):
    """Raises ValueError for a name that Minari or diffusion_ql.py would not understand."""
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", name):
        raise ValueError(f"--name {name}: give one such as my/hopper-v0")
    if name in SOURCES or name.startswith("d4rl/"):
        raise ValueError(f"--name {name} is D4RL's own: give another, such as my/hopper-v0")


def make_env(env_id, options):
    """An environment for rows of numbers. Raises ValueError, with the reason, if there is none."""
    gym.logger.min_level = gym.logger.ERROR  # "Walker2d-v4 is out of date": so is the data
    gym.register_envs(gymnasium_robotics)
    try:
        env = gym.make(env_id, **options)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"cannot make the environment {env_id}: {error}") from error
    for kind, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            kind_of_space = type(space).__name__
            raise ValueError(f"{env_id} has {kind} that are no vectors of numbers: {kind_of_space}")
    return env


def read(path):
    """The five columns of a file, by name."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with h5py.File(path) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise ValueError(f"{path} has no {', '.join(missing)}: it is not in D4RL's format")
            columns = {key: np.asarray(file[key]) for key in KEYS}
    except (OSError, TypeError, ValueError) as error:
        hint = "if its download was cut off, delete that file and run again"
        raise ValueError(f"cannot read {path} ({error}): {hint}") from error
    for key in ("rewards", "terminals", "timeouts"):
        if columns[key].size != len(np.atleast_1d(columns[key])):
            raise ValueError(f"{path}: {key} has the shape {columns[key].shape}, not (n,)")
        columns[key] = columns[key].reshape(-1)
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
            check_name(args.name)
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
