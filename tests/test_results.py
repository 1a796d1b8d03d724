"""The committed results of the bandit: the README's tables are theirs, and its claims hold."""

import json
from pathlib import Path

import numpy as np
import pytest

from toy_experiments.figures import ACTING_COLUMNS, CLONING_COLUMNS, REWARD_COLUMNS, table

TOYS = Path(__file__).resolve().parents[1] / "toy_experiments"
DATA_REWARD = 2.375  # the mean of the four corners' rewards


def load(name):
    """{row: [(None, numbers) of each seed]}, references included, of figures/name.json."""
    content = json.loads((TOYS / "figures" / f"{name}.json").read_text())
    rows = {**content.get("references", {}), **content["results"]}
    return {row: [(None, numbers) for numbers in runs] for row, runs in rows.items()}


def values(name, row, measure):
    """A measure of a row for each seed (seeds,)."""
    return np.array([numbers[measure] for _, numbers in load(name)[row]])


@pytest.mark.parametrize(
    "name, columns",
    [
        ("behavior_cloning", CLONING_COLUMNS),
        ("cvae_settings", CLONING_COLUMNS),
        ("n_timesteps", CLONING_COLUMNS),
        ("q_learning", REWARD_COLUMNS),
        ("q_learning", ACTING_COLUMNS),
        ("few_steps", REWARD_COLUMNS),
        ("expressiveness", REWARD_COLUMNS),
    ],
)
def test_the_tables_of_the_readme_are_those_of_the_results(name, columns):
    rows = load(name)
    if columns is ACTING_COLUMNS:
        rows = {row: runs for row, runs in rows.items() if "reward, best of 50" in runs[0][1]}
    assert table(rows, columns) in (TOYS / "README.md").read_text()
