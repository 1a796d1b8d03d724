"""forks.py: its methods train, resume and act."""

import pytest
import torch
from conftest import HALF, TINY, TINY_FLAGS, assert_same_run

import forks
from diffusion_ql import load_agent, parse_args, train
from forks import FQL, IDQL, METHODS
from toy_experiments.pictures import RULES, choose

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
    actions = [agent.act(torch.zeros(5, 4))]
    actions += [choose(agent, torch.zeros(5, 4), rule) for rule in RULES]
    for chosen in actions:
        assert chosen.shape == (5, 1) and chosen.abs().max() <= 1


def test_a_methods_knob_is_an_option_of_the_command_line(pendulum, run_main):
    assert parse_args(["--alpha", "3"], FQL)[1].alpha == 3
    options = ["--env", ENV, "--out", "run", "--expectile=0.9", *TINY_FLAGS]
    assert run_main(forks, "IDQL", *options)[0] == 0
    assert isinstance(load_agent("run"), IDQL) and load_agent("run").args.expectile == 0.9
