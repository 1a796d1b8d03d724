"""The training loop as its users meet it: run folder, resuming, compiling, and what goes wrong."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import TINY, TINY_FLAGS, flags

import diffusion_ql
from diffusion_ql import Args, Batch, DiffusionQL, evaluate, load_dataset, train

SCRIPT = Path(diffusion_ql.__file__)
ENV = "test/pendulum-v0"


@pytest.fixture(autouse=True)
def dataset(pendulum):
    return pendulum


def files(folder):
    """The contents of a run folder, but for TensorBoard's (with the time of day) and the folder's
    own name in config.json."""
    contents = {}
    for path in Path(folder).iterdir():
        if "tfevents" not in path.name and path.name != "config.json":
            contents[path.name] = path.read_bytes()
    return contents


def checkpoint(folder):
    return torch.load(Path(folder) / "checkpoint.pt", weights_only=True)


def step_of(folder):
    return checkpoint(folder)["_extra_state"]["log"][0]


def assert_equal_weights(a, b):
    a = checkpoint(a)
    b = checkpoint(b)
    assert a.keys() == b.keys()
    for name in a.keys() - {"_extra_state"}:
        assert torch.equal(a[name], b[name]), name


def some_agent(**settings):
    args = Args(hidden_dim=8, batch_size=4, device="cpu", ema_start=0, ema_every=1, **settings)
    return DiffusionQL(3, 1, args), Batch(*[torch.rand(4, width) for width in (3, 1, 3, 1, 1)])


def test_run_folder(cli):
    code, out, err = cli("--env", ENV, *TINY_FLAGS, "--out", "run", "--eta", 0.7)
    assert code == 0, err
    names = {"progress.csv", "curves.png", "checkpoint.pt", "result.json"}
    assert files("run").keys() == names
    assert any("tfevents" in path.name for path in Path("run").iterdir())
    config = json.loads(Path("run/config.json").read_text())
    assert config["eta"] == 0.7 and config["env"] == ENV
    rows = list(csv.DictReader(open("run/progress.csv")))
    assert [row["step"] for row in rows] == ["10", "20"]
    assert "run folder: run" in out and "final score" in out
    result = json.loads(Path("run/result.json").read_text())
    assert result["final"]["score"] == float(rows[-1]["score"])
    assert result["online"]["score"] == max(float(row["score"]) for row in rows)
    assert Path("run/curves.png").read_bytes().startswith(b"\x89PNG")
    assert result["final"]["score"] == evaluate_checkpoint("run")


def evaluate_checkpoint(folder):
    """The score of a checkpoint, as a notebook would work it out."""
    args = Args(**json.loads(Path(folder, "config.json").read_text()))
    data = load_dataset(args.env)
    agent = DiffusionQL(data.state_dim, data.action_dim, args)
    agent.load_state_dict(checkpoint(folder))
    return data.score(evaluate(agent, data, args.eval_episodes)).mean()


def test_columns_are_means_over_the_period(monkeypatch):
    losses = iter([1.0, 2.0, 6.0, 5.0])
    update = DiffusionQL.update

    def with_made_up_loss(self, batch):
        return {**update(self, batch), "bc_loss": torch.tensor(next(losses))}

    monkeypatch.setattr(DiffusionQL, "update", with_made_up_loss)
    settings = {**TINY, "steps": 4, "eval_every": 3}
    result = train(Args(env=ENV, out="run", top_k=1, compile="off", **settings))
    rows = list(csv.DictReader(open("run/progress.csv")))
    assert [float(row["bc_loss"]) for row in rows] == [3.0, 5.0]
    assert result["offline"]["step"] == 4  # the second-smallest L_d
    assert result["final"]["step"] == 4


def test_selections(monkeypatch):
    """Online by the best score; offline by the (top_k + 1)-th smallest L_d, or the largest."""
    agent, _ = some_agent(top_k=1)
    agent.history = [
        {"step": 0, "score": 5.0, "bc_loss": 3.0},
        {"step": 1, "score": 9.0, "bc_loss": 1.0},
        {"step": 2, "score": 7.0, "bc_loss": 2.0},
    ]
    result = diffusion_ql.finish(agent, Path("."))
    assert (result["online"]["step"], result["offline"]["step"]) == (1, 2)
    agent.args.top_k = 9
    assert diffusion_ql.finish(agent, Path("."))["offline"]["step"] == 0


def test_another_seed_is_another_run():
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(Args(env=ENV, out=out, seed=seed, **TINY))
    assert files("a") == files("b")
    assert files("a")["progress.csv"] != files("c")["progress.csv"]


def start_and_stop(number, *options):
    """Starts a run, stops it by a signal after its first evaluation; returns code and errors."""
    command = [sys.executable, SCRIPT, "--env", ENV, *options, "--out", "part"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not Path("part/checkpoint.pt").exists():
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    return process.returncode, err


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_stopped_and_resumed_is_as_if_nothing_had_happened(name):
    settings = {**TINY, "steps": 300, "eval_every": 100}
    whole = train(Args(env=ENV, out="whole", **settings))
    code, err = start_and_stop(getattr(signal, name), *flags(**settings))
    assert code == (-9 if name == "SIGKILL" else 130), err
    assert 100 <= step_of("part") < 300 and not Path("part/result.json").exists()
    if name != "SIGKILL":
        assert "--resume part" in err and "Traceback" not in err
    command = [sys.executable, SCRIPT, "--resume", "part"]
    subprocess.run(command, check=True, capture_output=True)
    assert_equal_weights("whole", "part")
    assert files("whole").keys() == files("part").keys()
    for file in ("progress.csv", "result.json", "curves.png"):
        assert files("whole")[file] == files("part")[file], file
    assert json.loads(Path("part/result.json").read_text()) == whole


def test_every_5000_steps_there_is_a_checkpoint(monkeypatch):
    """Also between two evaluations. The steps before are skipped here."""
    train(Args(env=ENV, out="run", **TINY))
    saved = checkpoint("run")
    saved["_extra_state"]["log"][0] = 4997
    torch.save(saved, "run/checkpoint.pt")
    update = DiffusionQL.update

    def dies_at_5002(self, batch):
        if self.step == 5002:
            raise SystemExit
        return update(self, batch)

    monkeypatch.setattr(DiffusionQL, "update", dies_at_5002)
    settings = {**TINY, "steps": 5010, "eval_every": 5010}
    with pytest.raises(SystemExit):
        train(Args(env=ENV, resume="run", compile="off", **settings))
    assert step_of("run") == 5000


def test_killed_between_two_evaluations(monkeypatch):
    """A run goes on from a checkpoint between them, its sums of metrics included."""
    settings = {**TINY, "steps": 12, "eval_every": 8}
    train(Args(env=ENV, out="whole", **settings))
    update = DiffusionQL.update

    def save_and_die(self, batch):
        metrics = update(self, batch)
        if self.step == 5:
            self.totals.update(metrics, steps=1)
            diffusion_ql.save(self, Path("part/checkpoint.pt"))
            raise SystemExit
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionQL, "update", save_and_die)
        with pytest.raises(SystemExit):
            train(Args(env=ENV, out="part", **settings))
    assert step_of("part") == 5
    train(Args(**{**json.loads(Path("part/config.json").read_text()), "resume": "part"}))
    assert_equal_weights("whole", "part")
    assert files("whole")["progress.csv"] == files("part")["progress.csv"]


def test_stopped_before_the_first_evaluation_and_ended_there(cli):
    """--steps that are reached already: the run is scored where it stands."""
    train(Args(env=ENV, out="run", **TINY))
    saved = checkpoint("run")
    saved["_extra_state"]["log"][1].clear()
    saved["_extra_state"]["log"][2].update({"steps": 1, "bc_loss": torch.tensor(1.0)})
    torch.save(saved, "run/checkpoint.pt")
    code, out, err = cli("--resume", "run", "--steps", 15)
    assert code == 0 and "final score" in out, err
    assert json.loads(Path("run/result.json").read_text())["final"]["step"] == 20


def test_killed_before_the_first_checkpoint(cli):
    train(Args(env=ENV, out="whole", **TINY))
    train(Args(env=ENV, out="part", **TINY))
    for name in files("part"):
        Path("part", name).unlink()
    assert cli("--resume", "part")[0] == 0
    assert files("whole") == files("part")


def test_resuming_can_train_longer_but_not_otherwise(cli, fails):
    assert cli("--env", ENV, *TINY_FLAGS, "--out", "run")[0] == 0
    assert "keeps its settings" in fails("--resume", "run", "--lr", 0.1)
    assert "no run folder" in fails("--resume", "nowhere")
    assert "checkpoint.pt" in files("run")
    code, out, _ = cli("--resume", "run")  # nothing left to train: the score
    assert code == 0 and "final score" in out
    assert cli("--resume", "run", "--steps", 30)[0] == 0
    train(Args(env=ENV, out="longer", **{**TINY, "steps": 30}))
    assert_equal_weights("run", "longer")
    Path("run/checkpoint.pt").write_bytes(Path("run/checkpoint.pt").read_bytes()[:500])
    assert "run/checkpoint.pt is damaged" in fails("--resume", "run", "--steps", 40)
    Path("run/config.json").write_text("{")
    assert "no run folder" in fails("--resume", "run")


def test_files_are_whole_or_absent(monkeypatch):
    train(Args(env=ENV, out="run", **TINY))
    before = files("run")

    def power_cut(content, path):
        Path(path).write_text("half")
        raise SystemExit

    monkeypatch.setattr(torch, "save", power_cut)
    with pytest.raises(SystemExit):
        train(Args(env=ENV, resume="run", **{**TINY, "steps": 30}))
    after = files("run")
    assert after["checkpoint.pt"] == before["checkpoint.pt"]
    assert after["result.json"] == before["result.json"]


def test_averages_take_no_gradients():
    """Else every step would hang a piece of autograd's graph on them, and memory would grow."""
    agent, batch = some_agent()
    metrics = agent.update(batch)
    for network in (agent.ema_actor, agent.critic_target):
        assert all(p.is_leaf and not p.requires_grad for p in network.parameters())
    assert not any(value.requires_grad for value in metrics.values())


def test_each_step_moves_its_own_network():
    """There is one Adam: the critics' step must leave the policy alone, and the other way round."""
    agent, batch = some_agent()
    before = {name: p.clone() for name, p in agent.named_parameters()}
    agent.descend(*agent.critic_loss(batch), agent.critic)
    moved = {
        name.split(".")[0] for name, p in agent.named_parameters() if (p != before[name]).any()
    }
    assert moved == {"critic"}
    before = {name: p.clone() for name, p in agent.named_parameters()}
    agent.critic.requires_grad_(False)
    agent.descend(*agent.policy_loss(batch), agent.actor)
    moved = {
        name.split(".")[0] for name, p in agent.named_parameters() if (p != before[name]).any()
    }
    assert moved == {"actor"}


def test_behavior_cloning_has_no_critics(cli):
    code, _, _ = cli("--env", ENV, *TINY_FLAGS, "--algo", "bc", "--out", "run")
    assert code == 0
    rows = list(csv.DictReader(open("run/progress.csv")))
    assert "critic_loss" not in rows[0] and float(rows[1]["bc_loss"]) > 0
    torch.manual_seed(0)
    fresh = DiffusionQL(4, 1, Args(**TINY))
    saved = checkpoint("run")
    for name, tensor in fresh.state_dict().items():
        if "critic" in name:
            assert torch.equal(saved[name], tensor), name


def test_a_loss_that_is_not_finite_ends_training(fails, monkeypatch):
    update = DiffusionQL.update

    def breaks_at_step_17(self, batch):
        metrics = update(self, batch)
        return {**metrics, "critic_loss": torch.tensor(torch.nan)} if self.step == 17 else metrics

    monkeypatch.setattr(DiffusionQL, "update", breaks_at_step_17)
    message = fails("--env", ENV, *TINY_FLAGS, "--out", "run", code=1)
    assert "not finite" in message and "--lr" in message
    assert step_of("run") == 10


@pytest.mark.parametrize(
    "options, says",
    [
        (["--steps", "0"], "--steps: give"),
        (["--lr", "nan"], "--lr: give"),
        (["--lr", "-1"], "--lr: give"),
        (["--critic-lr", "0"], "--critic_lr: give"),
        (["--batch-size", "0"], "--batch_size: give"),
        (["--hidden-dim", "-3"], "--hidden_dim: give"),
        (["--eval-every", "-5"], "--eval_every: give"),
        (["--batch-size", "many"], "--batch-size"),
        (["--reward-tune", "double"], "normalize"),
        (["--learning-rate", "1"], "--learning-rate"),
        (["--device", "cuda"], "--device cpu"),
        (["--compile", "maybe"], "--compile"),
    ],
)
def test_nonsense_on_the_command_line(options, says, cli):
    if options[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    tiny = [option for option in TINY_FLAGS if not option.startswith(options[0])]
    code, _, err = cli("--env", ENV, *tiny, *options)
    assert code == 2 and says in err and "Traceback" not in err
    assert not Path("runs").exists()


def test_output_folder(fails):
    Path("file").write_text("")
    assert "--out" in fails("--env", ENV, *TINY_FLAGS, "--out", "file/run")
    train(Args(env=ENV, out="run", **TINY))
    assert "holds a run already" in fails("--env", ENV, *TINY_FLAGS, "--out", "run")


def test_help_shows_the_tasks_own_settings(cli):
    code, out, _ = cli("--env", "antmaze-large-play", "--help")
    assert code == 0 and "(default: 4.5)" in out and "(default: cql_antmaze)" in out
    for name in Args.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out


class ImplicitQ(DiffusionQL):
    """IQL's critics in a few lines: a third network, without a trick."""

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.value = nn.Linear(state_dim, 1)
        self.optimizer.add_param_group({"params": self.value.parameters(), "lr": args.critic_lr})

    def critic_loss(self, batch):
        with torch.no_grad():
            target_q = torch.minimum(*self.critic_target(batch.state, batch.action))
            target = batch.reward + self.args.discount * batch.not_done * self.value(
                batch.next_state
            )
        error = target_q - self.value(batch.state)
        value_loss = (torch.where(error > 0, 0.7, 0.3) * error.square()).mean()
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target) + value_loss
        return loss, {"critic_loss": loss, "value_loss": value_loss}


def test_a_fork_with_a_third_network_trains_and_resumes():
    result = train(Args(env=ENV, out="whole", **TINY), agent_class=ImplicitQ)
    assert np.isfinite(result["final"]["value_loss"])
    torch.manual_seed(0)
    fresh = ImplicitQ(4, 1, Args(**TINY))
    assert not torch.equal(fresh.value.weight, checkpoint("whole")["value.weight"])
    train(Args(env=ENV, out="part", **{**TINY, "steps": 10}), agent_class=ImplicitQ)
    train(Args(env=ENV, resume="part", **TINY), agent_class=ImplicitQ)
    assert_equal_weights("whole", "part")


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")


@needs_compiler
def test_compiled_losses_are_the_plain_ones(monkeypatch):
    """To rounding, with the random numbers of the uncompiled code; and resuming is exact."""
    monkeypatch.setattr("torch._inductor.config.fallback_random", True)
    settings = {**TINY, "n_timesteps": 2, "max_q_backup": True, "ema_start": 0}
    for choice in ("off", "on"):
        train(Args(env=ENV, out=choice, compile=choice, **settings))
    plain = checkpoint("off")
    compiled = checkpoint("on")
    for name in plain.keys() - {"_extra_state"}:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-3, atol=1e-5, msg=name)

    train(Args(env=ENV, out="part", compile="on", **{**settings, "steps": 10}))
    train(Args(env=ENV, resume="part", compile="on", **settings))
    assert_equal_weights("on", "part")
    assert files("on")["progress.csv"] == files("part")["progress.csv"]


def test_where_compiling_fails(cli, fails, monkeypatch):
    """torch.compile fails where a compiled function is first called; then training goes on."""

    def compile_lazily(function, mode):
        def fail(batch):
            raise RuntimeError("no compiler")

        return fail

    monkeypatch.setattr(torch, "compile", compile_lazily)
    assert "no compiler" in fails("--env", ENV, *TINY_FLAGS, "--compile", "on", "--out", "a")
    update = DiffusionQL.update

    def stops_after_two_steps(self, batch):
        metrics = update(self, batch)
        if self.step == 2:
            raise ZeroDivisionError
        return metrics

    monkeypatch.setattr(DiffusionQL, "update", stops_after_two_steps)
    long = [option for option in TINY_FLAGS if not option.startswith("--steps")]
    with pytest.raises(ZeroDivisionError):
        cli("--env", ENV, *long, "--steps", "5000", "--eval-every", "5000", "--out", "b")


def test_tensorboard_holds_losses_and_scores():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Args(env=ENV, out="run", **{**TINY, "steps": 200, "eval_every": 100}))
    events = EventAccumulator("run")
    events.Reload()
    assert {"charts/score", "losses/bc_loss", "losses/critic_loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("losses/q")] == [100, 200]
