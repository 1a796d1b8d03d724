"""Makes `cheetah/mixed-v0`, the dataset of lesson 5: HalfCheetah-v5, half middling, half good.

    python tutorials/making/cheetah.py --out runs/cheetah

Trains an agent by SAC, keeps two of its snapshots, lets each act for 20 episodes, with noise as in
its training, and writes these 40,000 transitions in Minari's format to runs/cheetah/data. It needs
stable-baselines3 >= 2.9, which nothing else here needs. It takes 15 minutes on one core; snapshots
that are in the folder are used again. On another machine the agent becomes another one. The
committed dataset is in tutorials/data. To train on it:

    MINARI_DATASETS_PATH=tutorials/data python diffusion_ql.py --env cheetah/mixed-v0
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import torch
import tyro

ENV = "HalfCheetah-v5"
NAME = "cheetah/mixed-v0"
SNAPSHOTS = {"middling": 30_000, "good": 50_000}  # steps of SAC
EPISODES = 20  # of each snapshot
REFERENCE_EPISODES = 20  # of random actions, to measure what they return
SETTINGS = dict(seed=0, learning_starts=5000, device="cpu")  # SAC's others: stable-baselines3's


@dataclass
class Args:
    """Makes the dataset of lesson 5."""

    out: str = "runs/cheetah"  # folder of the snapshots and of the dataset


def load_sac():
    try:
        from stable_baselines3 import SAC
    except ImportError as error:
        sys.exit(f"error: {error}. This script alone needs it: install stable-baselines3 first")
    return SAC


def train_agent(folder):
    """Trains SAC for as long as a snapshot is missing, and saves one every 10,000 steps."""
    from stable_baselines3.common.evaluation import evaluate_policy

    agent = load_sac()("MlpPolicy", gym.make(ENV), **SETTINGS)
    for step in range(10_000, max(SNAPSHOTS.values()) + 1, 10_000):
        agent.learn(10_000, reset_num_timesteps=False)
        agent.save(snapshot_path(folder, step))
        # It draws random numbers, too: without it, the agent would become another one.
        mean, std = evaluate_policy(agent, gym.make(ENV), 3, deterministic=False)
        print(f"SAC, step {step:,}: return {mean:.0f} ± {std:.0f}", flush=True)


def snapshot_path(folder, step):
    return folder / f"sac_{step // 1000}k.zip"


def play(choose, seed):
    """An episode, as float32 columns; choose(state) gives the action."""
    env = gym.make(ENV)
    state, _ = env.reset(seed=seed)
    states = [state]
    actions = []
    rewards = []
    truncated = False
    while not truncated:  # a cheetah cannot fall: episodes have 1,000 steps
        action = choose(state)
        state, reward, _, truncated, _ = env.step(action)
        states.append(state)
        actions.append(action)
        rewards.append(reward)
    return [np.array(column, np.float32) for column in (states, actions, rewards)]


def play_all(folder):
    """{who: their episodes}: random actions; the snapshots, and, to compare, without noise."""
    space = gym.make(ENV).action_space
    space.seed(0)
    seeds = range(REFERENCE_EPISODES)
    played = {"random": [play(lambda state: space.sample(), 9000 + seed) for seed in seeds]}
    for number, (name, step) in enumerate(SNAPSHOTS.items()):
        agent = load_sac().load(snapshot_path(folder, step), device="cpu")
        torch.manual_seed(number)
        for kind, without_noise in {name: False, f"{name}, without noise": True}.items():

            def choose(state, agent=agent, without_noise=without_noise):
                return agent.predict(state, deterministic=without_noise)[0]

            played[kind] = [play(choose, 1000 * number + seed) for seed in range(EPISODES)]
    for name, episodes in played.items():
        mean = np.mean([rewards.sum() for *_, rewards in episodes])
        print(f"{name}: mean return {mean:.0f}", flush=True)
    return played


def make_dataset(folder):
    """Writes the Minari dataset NAME to folder/data. Returns its path."""
    played = play_all(folder)
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "data")
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = []
    makers = []
    for name in SNAPSHOTS:
        for states, actions, rewards in played[name]:
            n = len(rewards)
            ends = np.arange(n) == n - 1
            columns = (states, actions, rewards, np.zeros(n, bool), ends)
            buffers.append(EpisodeBuffer(len(buffers), None, None, *columns))
            makers.append({"snapshot": name, "sac_steps": SNAPSHOTS[name]})
    means = {name: float(np.mean([r.sum() for *_, r in part])) for name, part in played.items()}
    dataset = minari.create_dataset_from_buffers(
        NAME,
        buffers,
        ENV,
        eval_env=ENV,
        algorithm_name="SAC of stable-baselines3",
        author="the tutorials of this repository",
        code_permalink="tutorials/making/cheetah.py",
        ref_min_score=means["random"],
        ref_max_score=means["good"],
        description=(
            f"{EPISODES} episodes of each of two snapshots of one agent on {ENV}, with noise in the"
            " actions. A small dataset of our own, not D4RL's. Its scores: 0 is the mean return of"
            " random actions, 100 that of the good snapshot."
        ),
    )
    dataset.storage.update_episode_metadata(makers)
    settings = {"snapshots": SNAPSHOTS, "sac": SETTINGS, "mean_returns": means}
    dataset.storage.update_metadata({"made_with": json.dumps(settings)})
    path = folder / "data" / NAME
    compress(path / "data" / "main_data.hdf5")
    dataset.storage.update_metadata({"dataset_size": dataset.storage.get_size()})
    return path


def compress(path):
    """Writes an HDF5 file anew with its columns compressed; it reads as before."""
    partial = path.with_name("part.hdf5")
    smallest = dict(libver=("v110", "v110"))  # HDF5 1.10's way to lay out files saves 0.5 MB
    with h5py.File(path) as source, h5py.File(partial, "w", **smallest) as target:
        target.attrs.update(source.attrs)
        for name, episode in source.items():
            group = target.create_group(name)
            group.attrs.update(episode.attrs)
            for key, column in episode.items():
                if isinstance(column, h5py.Dataset):
                    how = dict(compression="gzip", compression_opts=9, shuffle=True)
                    group.create_dataset(key, data=column[()], chunks=column.shape, **how)
    partial.replace(path)


def main():
    folder = Path(tyro.cli(Args, description=__doc__).out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not all(snapshot_path(folder, step).exists() for step in SNAPSHOTS.values()):
        train_agent(folder)
    path = make_dataset(folder)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path.relative_to(folder)}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
