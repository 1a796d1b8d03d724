"""doctor.py names what ails a run, goes on where a run lacks something, and writes nothing."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ENV, TINY, some_columns

import forks
from diffusion_ql import Dataset, DiffusionQL, load_dataset, train
from tutorials import doctor


def own_data(terminals=(), scale=1.0):
    """Seven episodes of seven steps, each of which is worth 1, on data of one's own."""
    states, actions, _, rewards, ends = some_columns()
    next_states = np.roll(states, -1, axis=0)
    next_states[6::7] += 1  # here the time is over, and the next row is elsewhere
    ends[list(terminals)] = True
    return Dataset(scale * states, actions, scale * next_states, rewards, ends)


def make_run(dataset=None, agent_class=DiffusionQL, **settings):
    settings = {**TINY, "eval_every": 5, "out": "run", **settings}
    train(agent_class.Args(**settings), dataset, agent_class)


def findings(dataset=None, folder="run"):
    return {finding.test: finding for finding in doctor.examine(folder, dataset)}


def rewrite(path, **columns):
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def set_bias(layer, bias):
    """Makes a layer of the last agent in `run` put out this number, whatever comes in."""
    networks = torch.load("run/agents/20.pt", weights_only=True)
    networks[f"{layer}.weight"].fill_(0)
    networks[f"{layer}.bias"].fill_(bias)
    torch.save(networks, "run/agents/20.pt")


@pytest.mark.parametrize("agent_class", forks.METHODS.values(), ids=forks.METHODS)
def test_every_method_is_examined_also_where_it_has_no_q_and_no_score(agent_class):
    make_run(own_data(), agent_class)
    found = findings(own_data())
    expected = {"seeds", "luck", "gain"}
    if agent_class.update is forks.BCDiffusion.update:
        expected.add("value")
        assert found["value"].saw == found["candidates"].saw == "the run has no q"
    if agent_class.act is not DiffusionQL.act:
        expected.add("candidates")
    assert {name for name in found if found[name].verdict == "not tested"} == expected


def test_a_scored_run_is_compared_with_its_data_and_its_seeds_and_stays_as_it_is(pendulum, capsys):
    make_run(out="runs/0", env=ENV)
    for seed in (1, 2):
        shutil.copytree("runs/0", f"runs/{seed}")
        config = Path(f"runs/{seed}/config.json")
        config.write_text(config.read_text().replace('"seed": 0', f'"seed": {seed}'))
        rewrite(f"runs/{seed}/progress.csv", score=10.0 * seed)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    doctor.main("runs/1")
    assert before == {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    found = findings(folder="runs/1")
    to_look = [finding for finding in found.values() if finding.verdict == "look"]
    assert capsys.readouterr().out.count("Try: ") == len(to_look) > 0
    mean = np.mean([10, 20, pd.read_csv("runs/0/progress.csv")["score"].iloc[-1]])
    assert found["seeds"].saw.startswith("3 runs") and f"with mean {mean:.1f}" in found["seeds"].saw
    returns = [episode.rewards.sum() for episode in pendulum.iterate_episodes()]
    of_data = load_dataset(ENV).score(np.mean(returns))
    assert found["gain"].saw == f"score 10.0; an episode of the data has {of_data:.1f}"


def test_a_run_without_its_data_and_one_before_its_first_evaluation():
    make_run(own_data())
    assert "examine(RUN, dataset)" in findings()["terminals"].saw
    Path("run/progress.csv").unlink()
    found = findings(own_data())
    assert found["cloning"].saw == "the run has not been evaluated yet"
    assert [found[name].verdict for name in ("settings", "terminals")] == ["look", "fine"]
    with pytest.raises(SystemExit, match="error: tests is no run folder"):
        doctor.main("tests")


def test_curves_that_go_wrong_are_told_in_their_order_and_values_are_held_against_the_data():
    make_run(own_data())
    curves = dict(bc_loss=[0.5, 0.5, 0.5, 0.61], critic_loss=[1, 11, 1, 1], q=[1, 1, 101, 1])
    rewrite("run/progress.csv", **curves)
    told = findings(own_data())["order"].saw.split("; ")
    assert [text.split()[0] for text in told] == ["critic_loss", "Q", "L_d"]
    for q, verdict in ((50, "fine"), (116, "look"), (3, "look")):  # possible, too high, too low
        for critic in ("critic.q1_model.6", "critic.q2_model.6"):
            set_bias(critic, q)
        value = findings(own_data())["value"]
        followed = (1 - 0.99**6) / 0.01 + 0.99**6 * q  # the last reward gives way to Q
        assert f"possible 0.0 to 100.0; where episodes begin it is {q:.1f}" in value.saw
        assert f"that followed {followed:.1f} (" in value.saw and value.verdict == verdict


def test_a_policy_with_one_action_time_limits_as_terminals_and_unscaled_states():
    data = own_data(terminals=range(6, 49, 7))
    make_run(data, forks.TD3BC)
    set_bias("actor.network.6", 1e6)
    found = findings(data)
    assert "100% at a limit" in found["actions"].saw and "7 of them" in found["terminals"].saw
    assert found["actions"].verdict == found["terminals"].verdict == "look"
    early = findings(own_data(terminals=[3, 12, 30]))["terminals"]
    assert early.saw.startswith("3 of 10 episodes") and early.verdict == "fine"
    assert findings(own_data(scale=1000.0))["terminals"].verdict == "look"
