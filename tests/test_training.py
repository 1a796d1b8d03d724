"""The training loop as its users meet it: run folder, resuming, forks, and what goes wrong."""

import copy
import json
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import conftest as kit
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ENV, HALF, LONG, TINY, TINY_FLAGS, Fork, ForkArgs, changed, flags

import diffusion_ql
from diffusion_ql import Args, Batch, DiffusionQL, evaluate, load_agent, load_dataset, train

pytestmark = pytest.mark.usefixtures("pendulum")


# ---- The run folder ------------------------------------------------------------------------------
def test_run_folder():
    options = ["--env", ENV, *TINY_FLAGS, "--out", "run", "--eta", 0.7]
    code, out, err = kit.finish(kit.start(*options))
    assert code == 0 and "run folder: run" in out and "score" in out, err
    names = {path.name for path in Path("run").iterdir() if "tfevents" not in path.name}
    files = {"progress.csv", "returns.csv", "checkpoint.pt", "result.json"}
    assert names == files | {"config.json", "agents"}
    assert {path.name for path in Path("run/agents").iterdir()} == {"10.pt", "20.pt"}
    config = kit.config("run")
    assert config["method"] == "diffusion_ql.DiffusionQL" and config["dims"] == [4, 1]
    assert config["settings"]["eta"] == 0.7 and config["versions"]["torch"] == torch.__version__


def test_scores_are_means_of_the_returns(whole):
    rows = kit.table("whole/progress.csv")
    assert [row["step"] for row in rows] == ["10", "20"]
    for row, returns in zip(rows, kit.table("whole/returns.csv"), strict=True):
        assert returns.pop("step") == row["step"] and len(returns) == 2
        scores = load_dataset(ENV).score(np.array(list(returns.values()), float))
        assert float(row["score"]) == pytest.approx(scores.mean())
        assert float(row["score_std"]) == pytest.approx(scores.std(), abs=1e-9)
    assert whole == json.loads(Path("whole/result.json").read_text())
    assert whole["final"]["score"] == float(rows[-1]["score"])


@pytest.mark.parametrize("which", ["final", "online", "offline", 10])
def test_load_agent_gives_back_the_agent_that_was_scored(which, whole):
    step = whole[which]["step"] if which in whole else which
    agent = load_agent("whole", which)
    assert agent.step == step
    returns = evaluate(agent, load_dataset(ENV), episodes=2, seed=(0, step))
    row = kit.table("whole/returns.csv")[step // 10 - 1]
    assert returns.tolist() == [float(row["0"]), float(row["1"])]


def test_columns_are_means_over_the_period():
    losses = iter([1.0, 2.0, 6.0, 5.0])
    made_up = changed(lambda agent, metrics: {**metrics, "bc_loss": torch.tensor(next(losses))})
    train(Args(env=ENV, out="run", **{**TINY, "steps": 4, "eval_every": 3}), agent_class=made_up)
    assert [float(row["bc_loss"]) for row in kit.table("run/progress.csv")] == [3.0, 5.0]


@pytest.mark.parametrize("top_k, step", [(0, 1), (1, 2), (2, 0), (9, 0)])
def test_selections(top_k, step):
    """Online by the best score; offline by the (top_k + 1)-th smallest L_d, or the largest."""
    columns = zip((0, 1, 2), (5.0, 9.0, 7.0), (3.0, 1.0, 2.0), strict=True)
    rows = [dict(step=step, score=score, bc_loss=loss) for step, score, loss in columns]
    result = diffusion_ql.select(rows, top_k)
    assert (result["online"]["step"], result["offline"]["step"]) == (1, step)


def test_tensorboard_holds_each_step_once():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Args(env=ENV, out="run", **{**TINY, "steps": 100, "eval_every": 100}))
    train(Args(resume="run", steps=200))
    events = EventAccumulator("run")
    events.Reload()
    for name in ("losses/q", "losses/bc_loss", "charts/score"):
        assert [event.step for event in events.Scalars(name)] == [100, 200]


# ---- Stopped and resumed -------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name, seconds", [("SIGKILL", 60), ("SIGKILL", 0), ("SIGINT", 60)])
def test_stopped_at_random_and_resumed(name, seconds, monkeypatch):
    """With a checkpoint before each evaluation, or at every step. Ctrl-C says it in a line."""
    train(Args(env=ENV, out="whole", **LONG))
    monkeypatch.setenv("PYTHONPATH", str(Path(diffusion_ql.__file__).parent))
    code = f"import diffusion_ql as d; d.SAVE_SECONDS = {seconds}; d.main()"
    process = kit.start(code, "--env", ENV, *flags(**LONG), "--out", "part", script="-c")
    kit.wait_for("part/agents", process)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(getattr(signal, name))
    code, _, err = kit.finish(process)
    if name == "SIGINT":
        assert code > 0 and "stopped" in err.splitlines()[-1] and "Traceback" not in err, err
    train(Args(resume="part"))
    kit.assert_same_run("whole", "part")


@pytest.mark.parametrize("number", range(2, 12))  # the first file is config.json
def test_power_cut_at_any_file(number, whole, monkeypatch):
    """Each file is whole or absent, and a resumed run ends like one that never stopped."""
    written = []
    write = diffusion_ql.write

    def write_half(path, save_to):
        written.append(path.name)
        if len(written) == number:
            path.with_name(f"part-{path.name}").write_text("half")
            raise SystemExit
        write(path, save_to)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(diffusion_ql, "write", write_half)
        train(Args(env=ENV, out="part", **TINY))
    train(Args(resume="part"))
    kit.assert_same_run("whole", "part")


def test_a_run_can_train_longer_and_be_evaluated_more_rarely(cli, whole):
    assert cli("--resume", "whole")[0] == 0  # nothing left to train
    assert cli("--resume", "whole", "--steps", 30)[0] == 0
    train(Args(env=ENV, out="longer", **{**TINY, "steps": 30}))
    kit.assert_same_run("whole", "longer")
    assert cli("--resume", "whole", "--steps", 70, "--eval-every", 35)[0] == 0
    steps = [int(row["step"]) for row in kit.table("whole/progress.csv")]
    assert steps == [10, 20, 30, 35, 70]


@pytest.mark.parametrize("change", [{"lr": 0.1}, {"hidden_dim": 32}, {"env": "two-roads"}])
def test_what_a_resumed_run_refuses(change, cli, fails, whole):
    before = Path("whole/config.json").read_bytes()
    (name,) = change
    with pytest.raises(ValueError, match=f"keeps its settings.* {name}"):
        Args(resume="whole", **change)
    code, _, err = cli("--resume", "whole", *flags(**change))
    assert code == 2 and "keeps its settings" in err and name in err
    assert Path("whole/config.json").read_bytes() == before
    assert "has made 20 steps" in fails("--resume", "whole", "--steps", 19)


@pytest.mark.parametrize("content", ["{", "[]", '{"env": "of an older run"}'])
def test_damaged_run_folders(content, fails, whole):
    for file, option in (("checkpoint.pt", "--resume"), ("agents/20.pt", "--evaluate")):
        Path("whole", file).write_bytes(Path("whole", file).read_bytes()[:500])
        assert f"whole/{file}" in fails(option, "whole")
    Path("whole/agents/20.pt").unlink()
    assert "no agent" in fails("--evaluate", "whole")
    Path("whole/config.json").write_text(content)
    for option in ("--resume", "--evaluate"):
        assert "whole is no run folder" in fails(option, "whole")
        assert "nowhere is no run folder" in fails(option, "nowhere")


# ---- Agents --------------------------------------------------------------------------------------
def test_each_loss_moves_its_own_network():
    agent, batch = kit.some_agent()

    def step_of_critics():
        agent.descend(agent.critic_loss(batch)[0], agent.critic_optimizer)

    def step_of_policy():
        agent.descend(agent.policy_loss(batch)[0], agent.actor_optimizer)

    assert kit.moved_by(agent, step_of_critics) == {"critic"}
    assert kit.moved_by(agent, step_of_policy) == {"actor"}
    everything = {"actor", "critic", "ema_actor", "critic_target"}
    assert kit.moved_by(agent, lambda: agent.update(batch)) == everything
    agent.critic_loss(batch)[0].backward()  # update leaves nothing frozen
    for network in (agent.ema_actor, agent.critic_target):  # else autograd's graph would grow
        assert all(p.is_leaf and not p.requires_grad for p in network.parameters())


def test_learning_rates_fall_along_a_cosine_and_resume():
    rates = []

    def watch(agent, metrics):
        optimizers = (agent.actor_optimizer, agent.critic_optimizer)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        return metrics

    def stop(agent, metrics):
        if agent.step == 12:
            raise RuntimeError("stopped")
        return watch(agent, metrics)

    args = Args(env=ENV, out="run", lr=1e-3, critic_lr=4e-3, lr_decay=True, **TINY)
    with pytest.raises(RuntimeError):
        train(args, agent_class=changed(stop))
    del rates[10:]  # it goes on from the checkpoint at step 10
    train(Args(resume="run"), agent_class=changed(watch))
    cosine = (1 + np.cos(np.pi * np.arange(20) / 20)) / 2
    np.testing.assert_allclose(rates, np.outer(cosine, [1e-3, 4e-3]))
    with pytest.raises(ValueError, match="steps"):
        Args(resume="run", steps=40)  # whose rate would jump up again


def test_a_resume_that_is_refused_changes_nothing(whole):
    before = Path("whole/config.json").read_text()
    with pytest.raises(ValueError, match="has made 20 steps"):
        train(Args(resume="whole", steps=10))
    assert Path("whole/config.json").read_text() == before


def test_tensors_are_where_the_agent_is():
    """The device "meta" mixes with no other, so every new tensor has to follow the input."""
    agent, batch = kit.some_agent(max_q_backup=True)
    with torch.device("meta"):  # nor is the default device asked
        assert (agent.act(batch.state).abs() > 1e-9).all()
        assert all(torch.isfinite(value) for value in agent.update(batch).values())
    agent.to("meta")
    batch = Batch(*[column.to("meta") for column in batch])
    results = (agent.act(batch.state), agent.critic_loss(batch)[0], agent.policy_loss(batch)[0])
    assert {result.device.type for result in results} == {"meta"}


def test_a_copy_of_a_compiled_agent_uses_its_own_networks(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    agent, batch = kit.some_agent(compile="default")
    diffusion_ql.compile_losses(agent)
    copied = copy.deepcopy(agent)
    for parameter in copied.critic.parameters():
        parameter.data.zero_()
    assert copied.critic_loss(batch)[1]["q"] == 0 != agent.critic_loss(batch)[1]["q"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_losses_are_the_plain_ones(monkeypatch):
    """To rounding, with the random numbers of the uncompiled code; and resuming is exact."""
    monkeypatch.setattr("torch._inductor.config.fallback_random", True)
    settings = {**TINY, "n_timesteps": 1, "max_q_backup": True, "ema_start": 0}
    for mode in ("off", "default"):
        train(Args(env=ENV, out=mode, compile=mode, **settings))
    for part in ("networks", "attributes"):
        states = [kit.checkpoint(mode)[part] for mode in ("off", "default")]
        torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)
    train(Args(env=ENV, out="part", compile="default", **{**settings, "steps": 10}))
    train(Args(resume="part", steps=20))
    kit.assert_same_run("default", "part")


def test_where_nothing_can_be_compiled(cli, monkeypatch):
    """torch.compile fails where a compiled function is first called; then training goes on."""
    fail = Mock(side_effect=RuntimeError("no compiler"))
    monkeypatch.setattr(torch, "compile", lambda function, mode: fail)
    code, out, err = cli("--env", ENV, *flags(**HALF), "--compile", "default")
    assert code == 0 and "no compiler" in out, err


# ---- Forks ---------------------------------------------------------------------------------------
def test_all_that_a_fork_adds_is_saved_and_resumed(monkeypatch):
    """From a checkpoint between two evaluations, with the sums of metrics since the last one."""
    result = train(ForkArgs(env=ENV, out="whole", **TINY), agent_class=Fork)
    assert result["final"]["half"] == 0.5 and result["final"]["count"] == 15.5  # numbers, too
    state = kit.checkpoint("whole")["attributes"]
    assert state["count"] == 20 and state["mean"] != 0 and state["value_optimizer"]["state"]
    assert state["actor_optimizer"]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)
    monkeypatch.setattr(diffusion_ql, "SAVE_SECONDS", 0)
    monkeypatch.setattr(Fork, "dies_at", 13)
    with pytest.raises(SystemExit):
        train(ForkArgs(env=ENV, out="part", **TINY), agent_class=Fork)
    state = kit.checkpoint("part")
    assert state["attributes"]["count"] == 13 and state["log"]["sums"]
    shutil.copytree("part", "ended")
    result = train(ForkArgs(resume="ended", steps=13), agent_class=Fork)
    assert result["final"]["step"] == 13  # reached before, and scored now
    monkeypatch.setattr(Fork, "dies_at", None)
    train(ForkArgs(resume="part"), agent_class=Fork)
    kit.assert_same_run("whole", "part")


def test_what_is_built_from_a_forks_policy_follows():
    agent, batch = kit.some_agent(Fork)
    assert {"actor", "ema_actor", "value"} <= kit.moved_by(agent, lambda: agent.update(batch))
    assert agent.actor.model.final_layer.bias is agent.ema_actor.model.final_layer.bias is None


@pytest.mark.slow
def test_a_script_with_a_fork_and_the_command_line(cli, tmp_path, monkeypatch):
    """Its method's name is that of its file, so that diffusion_ql.py brings it back, too."""
    Path("my_fork.py").write_text(
        "import conftest, diffusion_ql\nclass Mine(conftest.Fork): pass\n"
        "if __name__ == '__main__': diffusion_ql.main(Mine)"
    )
    folders = (Path(diffusion_ql.__file__).parent, Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, folders)))
    options = ["--env", ENV, *flags(**HALF), "--expectile", 0.9, "--out", "run"]
    code, _, err = kit.finish(kit.start(*options, script="my_fork.py"))
    assert code == 0 and kit.config("run")["method"] == "my_fork.Mine", err
    monkeypatch.syspath_prepend(tmp_path)
    assert cli("--resume", "run", "--steps", 20)[0] == 0
    assert kit.checkpoint("run")["attributes"]["count"] == 20
    assert "step 20" in cli("--evaluate", "run", "--episodes", 2)[1]
    shown = cli("--resume", "run", "--help")[1]
    assert "--expectile" in shown and "(default: 0.9)" in shown


def test_another_method_does_not_go_on_with_a_run():
    train(ForkArgs(env=ENV, out="run", **HALF), agent_class=Fork)
    train(Args(env=ENV, out="plain", **HALF))
    with pytest.raises(ValueError, match="conftest.Fork"):
        train(Args(resume="run"))
    with pytest.raises(ValueError, match="diffusion_ql.DiffusionQL"):
        train(ForkArgs(resume="plain"), agent_class=Fork)


@pytest.mark.parametrize("module", ["absent", "broken", "__main__"])
def test_a_method_that_is_not_to_be_found(module, fails, tmp_path, monkeypatch):
    """No such file, a file that needs what is not installed, and a notebook's class."""
    monkeypatch.setattr(Fork, "__module__", module)
    train(ForkArgs(env=ENV, out="run", **HALF), agent_class=Fork)
    monkeypatch.syspath_prepend(tmp_path)
    Path("broken.py").write_text("import not_installed")
    for option in ("--resume", "--evaluate"):
        said = fails(option, "run")
        assert f"{module}.Fork" in said and (module != "broken" or "not_installed" in said)
    assert load_agent("run", agent_class=Fork).args.expectile == 0.7


@pytest.mark.parametrize("part", ["actor", "actor.model", "critic"])
def test_networks_that_come_too_late_are_refused(part):
    class Late(DiffusionQL):
        def __init__(self, state_dim, action_dim, args):
            super().__init__(state_dim, action_dim, args)
            self.set_submodule(part, copy.deepcopy(self.get_submodule(part)))

    with pytest.raises(ValueError, match=f"no optimizer .* {part}"):
        train(Args(env=ENV, out="run", **TINY), agent_class=Late)
    assert not Path("run").exists()


@pytest.mark.parametrize("first", [15, 99])
def test_a_metric_may_be_missing_at_first_or_always(first):
    def without(agent, metrics):
        return metrics if agent.step > first else {"critic_loss": metrics["critic_loss"]}

    result = train(Args(env=ENV, **TINY), agent_class=changed(without))
    assert ("offline" in result) == (first < 99)


@pytest.mark.parametrize("name", ["step", "score", "score_std", "return"])
def test_metrics_have_names_of_their_own(name):
    named = changed(lambda agent, metrics: {**metrics, name: 1.0})
    with pytest.raises(ValueError, match=f"column {name} already"):
        train(Args(env=ENV, out="run", **TINY), agent_class=named)


# ---- Other ways to run it ------------------------------------------------------------------------
def test_in_a_thread_and_ctrl_c_after_training(whole):
    with ThreadPoolExecutor() as pool:
        pool.submit(train, Args(env=ENV, out="thread", **TINY)).result()
    kit.assert_same_run("whole", "thread")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has none
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_two_first_runs_at_once():  # the default dataset is not there yet
    options = [*flags(**HALF), "--compile", "off"]
    runs = [kit.start("--seed", seed, *options, "--out", f"run-{seed}") for seed in (0, 1)]
    for seed, run in enumerate(runs):
        code, _, err = kit.finish(run)
        assert code == 0 and Path(f"run-{seed}/result.json").exists(), err


@pytest.mark.slow
def test_a_copy_of_the_file_alone():
    """It trains on Minari's datasets, and says in a line what is missing for the others."""
    shutil.copy(diffusion_ql.__file__, "one_file.py")
    missing = {ENV: None, "two-roads": "toy_experiments", "hopper-medium-v2": "d4rl_to_minari"}
    options = [*flags(**HALF), "--compile", "off"]
    runs = [kit.start("--env", env, *options, script="one_file.py") for env in missing]
    for run, file in zip(runs, missing.values(), strict=True):
        code, _, err = kit.finish(run)
        assert code == (2 if file else 0) and "Traceback" not in err, err
        assert file is None or (file in err and len(err.splitlines()) <= 2)


def test_data_of_ones_own(fails):
    data = diffusion_ql.Dataset(*kit.some_columns(), env="InvertedPendulum-v5")
    train(Args(out="whole", **TINY), data)
    train(Args(out="run", **HALF), data)
    for option in ("--resume", "--evaluate"):
        assert "a Dataset of your own" in fails(option, "run")
    with pytest.raises(ValueError, match="a Dataset of your own"):
        train(Args(resume="run"))
    train(Args(resume="run", steps=20), data)
    kit.assert_same_run("whole", "run")


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    train(Args(env=ENV, **HALF))


def test_evaluate(cli, fails):
    kit.make_minari("fine/scores-v0", refs=(0, 1))
    train(Args(env="fine/scores-v0", out="run", ema_start=5, **TINY))
    scores = []
    for others in ("", "", "--seed=1", "--which=10", "--act-with=average", "--episodes=11"):
        code, out, err = cli("--evaluate", "run", "--episodes", 12, *others.split())
        assert code == 0, err
        scores.append(out[out.index("step") :])
    assert "step 20: score" in scores[0] and "12 episodes" in scores[0]
    assert scores[0] == scores[1] and len(set(scores)) == 5
    for option in ("--episodes=0", "--seed=-1", "--device=no"):
        assert option.split("=")[0] in fails("--evaluate", "run", option)


def test_evaluate_draws_episodes_that_training_has_not_seen(cli, monkeypatch, whole):
    draws = []
    monkeypatch.setattr(diffusion_ql, "play", lambda *rest: draws.append(rest[2]) or [0.0] * 2)
    evaluate(load_agent("whole"), load_dataset(ENV), episodes=2, seed=(0, 20))
    cli("--evaluate", "whole", "--episodes", 2)
    assert not set(draws[0]) & set(draws[1])


@pytest.mark.parametrize("choice, used", [("as trained", "ema_actor"), ("policy", "actor")])
def test_act_with_the_policy_or_the_average(choice, used, cli, monkeypatch):
    train(Args(env=ENV, out="run", act_with="average", **HALF))
    agents = []
    monkeypatch.setattr(diffusion_ql, "evaluate", lambda a, *_: agents.append(a) or np.zeros(2))
    assert cli("--evaluate", "run", "--act-with", choice)[0] == 0
    other = {"ema_actor": "actor", "actor": "ema_actor"}[used]
    getattr(agents[0], other).sample = None  # is not called
    assert agents[0].act(torch.zeros(3, 4)).shape == (3, 1)


def test_agents_that_are_not_there(fails, whole):
    progress = pd.read_csv("whole/progress.csv", index_col="step")
    progress.drop(columns="bc_loss").to_csv("whole/progress.csv")
    for which in ("15", "best", "offline"):
        said = fails("--evaluate", "whole", "--which", which)
        assert f"no agent of {which}" in said and "give a step of [10, 20]" in said


@pytest.mark.parametrize("env_id, films", [("Line-v0", True), ("Goal-v0", False)])
def test_evaluate_films_where_the_simulator_can_draw(env_id, films, run_main):
    kit.make_minari("test/film-v0", env_id, episodes=4)
    train(Args(env="test/film-v0", out="run", **HALF))
    code, out, err = run_main(diffusion_ql, "--evaluate", "run", "--episodes", 2, "--video")
    assert code == (0 if films else 2) and "Traceback" not in err, err
    assert bool(list(Path("run").glob("video/*.mp4"))) == films


# ---- What goes wrong -----------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", [60, 0])
def test_a_loss_that_is_not_finite_ends_training(seconds, capsys, monkeypatch):
    """And no checkpoint of a minute holds it."""
    nan = torch.tensor(torch.nan)
    breaks = changed(lambda agent, metrics: {**metrics, "q": nan} if agent.step == 17 else metrics)
    monkeypatch.setattr(diffusion_ql, "SAVE_SECONDS", seconds)
    with pytest.raises(SystemExit, match="2"):
        diffusion_ql.main(breaks, ["--env", ENV, *TINY_FLAGS, "--out", "run"])
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: q is nan") and "--lr" in message
    assert kit.checkpoint("run")["attributes"]["step"] < 17


NUMBERS = "--steps=0 --lr=nan --lr=-1 --lr=inf --critic-lr=0 --batch-size=0 --eval-every=-5 "
NUMBERS += "--eval-episodes=0 --top-k=-1 --seed=-1 --candidates=0 --batch-size=many"
WORDS = "--reward-tune=double --compile=maybe --act-with=mean --learning-rate=1 --device=cuda:99"


@pytest.mark.parametrize("option", [*NUMBERS.split(), *WORDS.split()])
def test_nonsense_on_the_command_line(option, cli):
    name = option.split("=")[0]
    tiny = [tiny for tiny in TINY_FLAGS if not tiny.startswith(name)]
    code, _, err = cli("--env", ENV, *tiny, option)
    assert code == 2 and "Traceback" not in err
    assert name in err or name.removeprefix("--").replace("-", "_") in err
    assert not Path("runs").exists()


def test_nonsense_in_python():
    for name, value in {"reward_tune": "double", "act_with": "mean", "batch_size": 2.5}.items():
        with pytest.raises(ValueError, match=name):
            Args(**{name: value})


def test_output_folder(fails, whole):
    Path("file").write_text("")
    assert "file/run" in fails("--env", ENV, *TINY_FLAGS, "--out", "file/run")
    assert "holds a run already" in fails("--env", ENV, *TINY_FLAGS, "--out", "whole")
