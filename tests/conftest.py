"""What the tests share: small datasets that they make themselves, runs, agents, command lines."""

import copy
import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import environments  # noqa: F401  (registers them)
import gymnasium as gym
import gymnasium_robotics
import h5py
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer

import d4rl_to_minari
import diffusion_ql

torch.set_num_threads(1)  # for networks of 16 units, a second thread costs more than it brings
os.environ["OMP_NUM_THREADS"] = "1"  # the same in subprocesses

TINY = dict(
    steps=20,
    eval_every=10,
    eval_episodes=2,
    batch_size=16,
    hidden_dim=16,
    candidates=4,
    device="cpu",
)

ENV = "test/pendulum-v0"  # the dataset that the fixture `pendulum` makes
HALF = {**TINY, "steps": 10}  # the first of the two evaluations of TINY
LONG = {**TINY, "steps": 300, "eval_every": 100}  # long enough to be stopped from outside


def flags(**settings):
    """Settings as options of the command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


TINY_FLAGS = flags(**TINY)


def hear_ctrl_c():
    """In a new process: Ctrl-C is heard, also where the tests run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*argv, script=diffusion_ql.__file__):
    """Starts a script, or `-c` and code, as a process of its own."""
    command = [sys.executable, *map(str, (script, *argv))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=hear_ctrl_c, **pipes)


def wait_for(path, process):
    """Waits until a process has made a file."""
    while not Path(path).exists():
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()


def finish(process):
    """Exit code, output and errors of a process that was started."""
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


# ---- Runs and agents -----------------------------------------------------------------------------
def table(path):
    return list(csv.DictReader(open(path)))


def config(folder):
    return json.loads(Path(folder, "config.json").read_text())


def checkpoint(folder):
    return torch.load(Path(folder) / "checkpoint.pt", weights_only=True)


def assert_same_run(a, b):
    """Bit for bit: all that training changes, the log, the random state, and the files."""
    ours, theirs = checkpoint(a), checkpoint(b)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    names = {path.relative_to(a) for path in Path(a).glob("agents/*")}
    assert names == {path.relative_to(b) for path in Path(b).glob("agents/*")}
    for name in [*names, "progress.csv", "returns.csv", "result.json"]:
        assert Path(a, name).read_bytes() == Path(b, name).read_bytes(), name


def changed(change):
    """DiffusionQL whose metrics are change(agent, metrics), after each update."""

    class Changed(diffusion_ql.DiffusionQL):
        def update(self, batch):
            return change(self, super().update(batch))

    return Changed


def some_agent(agent_class=diffusion_ql.DiffusionQL, **settings):
    args = agent_class.Args(**{**TINY, "ema_start": 0, "ema_every": 1, **settings})
    return agent_class(3, 1, args), diffusion_ql.Batch(
        *[torch.rand(4, width) for width in (3, 1, 3, 1, 1)]
    )


def moved_by(agent, change):
    """The networks whose parameters `change()` changes."""
    before = {name: parameter.clone() for name, parameter in agent.named_parameters()}
    change()
    moved = [name for name, p in agent.named_parameters() if not torch.equal(p, before[name])]
    return {name.split(".")[0] for name in moved}


@dataclass(kw_only=True)
class ForkArgs(diffusion_ql.Args):
    expectile: float = 0.7  # an option of its own


class Fork(diffusion_ql.DiffusionQL):
    """Another policy; a third network with an optimizer, a schedule, a counter, a running mean."""

    Args = ForkArgs
    dies_at = None  # a step

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.value = torch.nn.Linear(state_dim, 1)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), args.critic_lr)
        schedules = torch.optim.lr_scheduler
        self.schedule = schedules.CosineAnnealingLR(self.actor_optimizer, args.steps)
        self.count = 0
        self.mean = torch.zeros(())

    def make_policy(self, state_dim, action_dim):
        policy = super().make_policy(state_dim, action_dim)
        policy.model.final_layer = torch.nn.Linear(self.args.hidden_dim, action_dim, bias=False)
        return policy

    def update(self, batch):
        if self.step == self.dies_at:
            raise SystemExit
        value_loss = (self.value(batch.state) - self.args.expectile).square().mean()
        self.descend(value_loss, self.value_optimizer)
        metrics = super().update(batch)
        self.schedule.step()
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * metrics["q"].detach()
        return {**metrics, "value_loss": value_loss, "half": 0.5, "count": self.count}


@pytest.fixture
def whole():
    """A run of TINY, whole, in a folder of that name: its result."""
    return diffusion_ql.train(diffusion_ql.Args(env=ENV, out="whole", **TINY))


class Constant:
    """An agent that always plays the same action, and remembers what it saw and could draw."""

    def __init__(self, *action):
        self.action = torch.tensor(action)
        self.states = []
        self.noise = []

    def act(self, states):
        self.states.append(states)
        self.noise.append(torch.rand(1).item())
        return self.action.repeat(len(states), 1)


# ---- Where each test runs ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, with its own data folders and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(d4rl_to_minari, "URL", "http://127.0.0.1:9/")  # nothing listens there


# ---- Data ----------------------------------------------------------------------------------------
def make_minari(
    name,
    env_id="InvertedPendulum-v5",
    episodes=8,
    seed=0,
    refs=(None, None),
    eval_env=None,
    **kwargs,
):
    """A Minari dataset of uniformly random actions (Minari's DataCollector would need JAX)."""
    gym.register_envs(gymnasium_robotics)
    env = gym.make(env_id, **kwargs)
    env.action_space.seed(seed)
    buffers = []
    for i in range(episodes):
        observation, _ = env.reset(seed=seed + i)
        observations = [observation]
        steps = []
        done = False
        while not done:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(copy.deepcopy(observation))
            steps.append((action, float(reward), bool(terminated), bool(truncated)))
            done = terminated or truncated
        columns = [np.array(column) for column in zip(*steps, strict=True)]
        buffers.append(EpisodeBuffer(i, seed + i, None, stack(observations), *columns))
    return minari.create_dataset_from_buffers(
        name,
        buffers,
        env,
        eval_env=eval_env or env,
        ref_min_score=refs[0],
        ref_max_score=refs[1],
    )


def stack(observations):
    if isinstance(observations[0], dict):
        return {key: stack([obs[key] for obs in observations]) for key in observations[0]}
    if isinstance(observations[0], tuple):
        return tuple(stack(part) for part in zip(*observations, strict=True))
    return np.stack(observations)


@pytest.fixture
def pendulum():
    return make_minari(ENV, refs=(3.0, 950.0))


def edit_metadata(minari_id, **changes):
    """Changes a dataset's metadata.json. What becomes None goes."""
    path = minari.storage.get_dataset_path(minari_id) / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    kept = {name: value for name, value in metadata.items() if value is not None}
    path.write_text(json.dumps(kept))


def edit_episode(minari_id, column, change):
    """Changes a column of the first episode: change(array) → array."""
    path = minari.storage.get_dataset_path(minari_id) / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        array = change(file["episode_0"][column][()])
        del file["episode_0"][column]
        file["episode_0"][column] = array


def put(row, value):
    """A change of a column that puts a value into a row."""

    def change(array):
        array[row] = value
        return array

    return change


def some_columns(width=4, n=49):
    """states, actions, next_states, rewards and terminals, as an InvertedPendulum-v5 has them."""
    r = np.random.RandomState(0)
    states = r.standard_normal((n + 1, width))
    return [states[:-1], r.uniform(-1, 1, (n, 1)), states[1:], np.ones(n), np.zeros(n, bool)]


def make_d4rl(path, n=60, width=4, action_width=1, **changes):
    """A file in D4RL's format; returns its columns."""
    r = np.random.RandomState(0)
    columns = {
        "observations": r.standard_normal((n, width)).astype("f4"),
        "actions": r.uniform(-1, 1, (n, action_width)).astype("f4"),
        "rewards": r.standard_normal(n).astype("f4"),
        "terminals": np.arange(n) % 10 == 9,
        "timeouts": np.arange(n) % 20 == 4,
    }
    columns.update(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            if column is not None:
                file[key] = column
    return columns


# ---- Public data, where it is here ---------------------------------------------------------------
def folder_of(variable, default):
    """The folder that an environment variable names, before a test sets another."""
    return Path(os.environ.get(variable, default)).expanduser().absolute()


D4RL = folder_of("D4RL_DATASET_DIR", "~/.d4rl/datasets")
MINARI = folder_of("MINARI_DATASETS_PATH", "~/.minari/datasets")


# ---- Command lines -------------------------------------------------------------------------------
@pytest.fixture
def run_main(monkeypatch, capsys):
    """Runs the main() of a module as its command line; returns exit code, output, errors."""

    def run(module, *argv):
        monkeypatch.setattr(sys, "argv", [module.__name__ + ".py", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            module.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def cli(run_main):
    def run(*argv):
        return run_main(diffusion_ql, *argv)

    return run


@pytest.fixture
def fails(run_main):
    """Runs a command line, which must end with one or two lines of error and no traceback."""

    def run(*argv, code=2, module=diffusion_ql):
        got, _, err = run_main(module, *argv)
        assert got == code and "error: " in err and "Traceback" not in err, err
        message = err[err.index("error: ") :].strip()
        assert len(message.splitlines()) <= 2 and len(message) < 500, err
        return message

    return run
