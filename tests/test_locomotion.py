"""The dataset of lesson 5 and the runs on it are what their scripts say, and small."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffusion_ql import Args, load_dataset, open_minari, parse_args
from tutorials.experiments import locomotion
from tutorials.helpers import args_of
from tutorials.making import cheetah

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
MEGABYTE = 1_000_000


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(TUTORIALS / "data"))


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_dataset_is_small_and_what_its_script_makes(data):
    assert size_of(TUTORIALS / "data") < 4 * MEGABYTE
    stored = open_minari(cheetah.NAME)
    metadata = stored.storage.metadata
    made_with = json.loads(metadata["made_with"])
    assert made_with["snapshots"] == cheetah.SNAPSHOTS
    assert made_with["sac"] == cheetah.SETTINGS
    returns = {name: [] for name in cheetah.SNAPSHOTS}
    makers = stored.storage.get_episode_metadata(range(stored.total_episodes))
    for episode, maker in zip(stored.iterate_episodes(), makers, strict=True):
        assert episode.observations.dtype == episode.actions.dtype == np.float32
        assert len(episode.rewards) == 1000 and episode.truncations[-1]
        assert maker["sac_steps"] == cheetah.SNAPSHOTS[maker["snapshot"]]
        returns[maker["snapshot"]].append(episode.rewards.sum())
    for name, values in returns.items():
        assert len(values) == cheetah.EPISODES
        assert np.mean(values) == pytest.approx(made_with["mean_returns"][name], rel=1e-5)
    low, high = made_with["mean_returns"]["random"], made_with["mean_returns"]["good"]
    assert load_dataset(cheetah.NAME).reference == (low, high)


def test_dataset_can_be_trained_on_by_the_command_line(data):
    _, args = parse_args(["--env", cheetah.NAME])
    assert args.env == locomotion.ENV == cheetah.NAME
    assert (args.eta, args.reward_tune, args.max_q_backup) == (1.0, "no", False)


@pytest.mark.parametrize("algo", locomotion.AGENTS)
def test_committed_runs_are_whole_and_have_the_settings_of_their_script(algo, data):
    folder = locomotion.RESULTS / algo
    out = str(locomotion.RUNS / algo)
    assert args_of(folder) == Args(env=locomotion.ENV, out=out, **locomotion.SETTINGS)
    progress = pd.read_csv(folder / "progress.csv")
    every, steps = locomotion.SETTINGS["eval_every"], locomotion.SETTINGS["steps"]
    assert progress.step.tolist() == list(range(every, steps + 1, every))
    assert json.loads((folder / "result.json").read_text())["final"]["step"] == steps
    assert size_of(folder) < 1.5 * MEGABYTE
    agent = locomotion.load_agent(algo, load_dataset(locomotion.ENV))
    actions = agent.act(torch.zeros(3, 17))
    assert actions.shape == (3, 6) and actions.abs().max() <= 1


def test_more_seeds_are_those_of_the_script():
    seeds = json.loads((locomotion.RESULTS / "seeds.json").read_text())
    assert list(seeds) == [str(seed) for seed in locomotion.SEEDS]
    evaluations = locomotion.SEED_STEPS // locomotion.SETTINGS["eval_every"]
    for numbers in seeds.values():
        assert {len(scores) for scores in numbers["curves"].values()} == {evaluations}
        for name in ("ql, 1", "ql, 50", "bc, 1", "bc, 50"):
            assert len(numbers[name]) == locomotion.EPISODES
    curves = [scores for numbers in seeds.values() for scores in numbers["curves"].values()]
    assert len({tuple(scores) for scores in curves}) == len(curves)  # no run stands there twice
