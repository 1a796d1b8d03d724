"""forks.py: its methods train, resume and act, by every rule."""

import pytest
import torch
from conftest import HALF, TINY, TINY_FLAGS, assert_same_run

import forks
from diffusion_ql import Args, Batch, DiffusionQL, load_agent, parse_args, train
from forks import FQL, IDQL, METHODS
from tutorials.helpers import RULES, choose

ENV = "test/pendulum-v0"


@pytest.mark.parametrize("name", METHODS)
def test_method_trains_resumes_and_acts(name, pendulum):
    method = METHODS[name]
    train(method.Args(env=ENV, out="whole", **TINY), agent_class=method)
    train(method.Args(env=ENV, out="part", **HALF), agent_class=method)
    train(method.Args(resume="part", steps=TINY["steps"]), agent_class=method)
    assert_same_run("whole", "part")
    agent = load_agent("whole")
    assert type(agent) is method
    actions = agent.act(torch.zeros(5, 4))
    assert actions.shape == (5, 1) and actions.abs().max() <= 1


def test_a_methods_knob_is_an_option_of_the_command_line(pendulum, run_main):
    args, _ = parse_args(["--alpha", "3"], FQL)
    assert args.alpha == 3
    code, _, _ = run_main(
        forks, "IDQL", "--env", ENV, "--out", "run", "--expectile=0.9", *TINY_FLAGS
    )
    assert code == 0
    assert isinstance(load_agent("run"), IDQL) and load_agent("run").args.expectile == 0.9


def test_the_critics_of_idql_never_ask_the_policy():
    agent = IDQL(2, 2, IDQL.Args(hidden_dim=8))
    agent.actor = agent.ema_actor = None
    loss, _ = agent.critic_loss(Batch(*[torch.rand(4, width) for width in (2, 2, 2, 1, 1)]))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", METHODS)
def test_actions_by_every_rule(name):
    agent = METHODS[name](2, 2, METHODS[name].Args(hidden_dim=8, candidates=50))
    for rule in RULES:
        actions = choose(agent, torch.zeros(5, 2), rule)
        assert actions.shape == (5, 2) and actions.abs().max() <= 1


def test_best_of_50_has_the_largest_q():
    torch.manual_seed(0)
    agent = DiffusionQL(2, 2, Args(hidden_dim=8))
    states = torch.randn(20, 2)
    q = {}
    for rule in RULES:
        actions = choose(agent, states, rule)
        q[rule] = torch.minimum(*agent.critic_target(states, actions)).mean()
    assert q["best of 50"] > q["a sample"] and q["best of 50"] > q["softmax of 50"]
