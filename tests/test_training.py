"""The training loop as its users meet it: run folder, seeds, resuming, weights, and what goes wrong."""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_FLAGS

import diffusion_ql
from diffusion_ql import Args, Batch, DiffusionPolicy, DiffusionQL, UserError, load_dataset, select, train

SCRIPT = Path(diffusion_ql.__file__)
ENV = "test/pendulum-v0"


@pytest.fixture(autouse=True)
def dataset(pendulum):
    return pendulum


def files(folder):
    """The contents of a run folder, TensorBoard's events (which hold the time of day) left out."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if "tfevents" not in path.name}


def weights(folder, name="checkpoint.pt", seed=0):
    saved = torch.load(Path(folder) / name, weights_only=True)["seeds"][seed]
    return {f"{part}.{key}": tensor for part in ("actor", "ema_actor", "critic", "critic_target") for key, tensor in saved[part].items()}


def assert_equal_weights(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_importing_has_no_side_effects(tmp_path):
    code = ("import sys, diffusion_ql; heavy = {'gymnasium', 'minari', 'matplotlib', 'h5py', 'tensorboard'} & sys.modules.keys(); "
            "sys.exit(f'imported {heavy}' if heavy else 0)")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)})
    assert not (tmp_path / "runs").exists()


def test_run_folder(cli):
    code, out, err = cli("--env", ENV, *TINY_FLAGS, "--out", "run", "--eta", 0.7)
    assert code == 0, err
    assert {"config.json", "progress.csv", "curves.png", "checkpoint.pt", "best.pt", "result.json"} == files("run").keys()
    assert any("tfevents" in path.name for path in Path("run").iterdir())
    config = json.loads(Path("run/config.json").read_text())
    assert config["eta"] == 0.7 and "eta=0.7" in out and config["env"] == ENV
    rows = list(csv.DictReader(open("run/progress.csv")))
    assert [row["step"] for row in rows] == ["10", "20"]
    assert out.count("| score") == 2 and "run folder: run" in out and "step/s" in err
    result = json.loads(Path("run/result.json").read_text())
    assert result["final"]["score"] == float(rows[-1]["score"])
    assert result["online"]["score"] == max(float(row["score"]) for row in rows)
    assert Path("run/curves.png").read_bytes().startswith(b"\x89PNG")


def test_default_run_folder(cli):
    assert cli("--env", ENV, *TINY_FLAGS, "--seed", 3)[0] == 0
    (folder,) = Path("runs/test-pendulum-v0").iterdir()
    assert folder.name.startswith("3-") and (folder / "result.json").exists()


def test_two_runs_give_identical_files():
    for out in ("a", "b"):
        train(Args(env=ENV, out=out, seed=5, **TINY))
    train(Args(env=ENV, out="c", seed=6, **TINY))
    assert files("a") == files("b")
    assert files("a")["progress.csv"] != files("c")["progress.csv"]


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed_is_as_if_nothing_had_happened(stop):
    settings = {**TINY, "steps": 400, "eval_every": 100}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    whole = train(Args(env=ENV, out="whole", **settings))
    process = subprocess.Popen([sys.executable, SCRIPT, "--env", ENV, *flags, "--out", "part"], stderr=subprocess.PIPE, text=True)
    while not (Path("part/checkpoint.pt").exists() and Path("part/progress.csv").exists()):
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(stop)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == {signal.SIGKILL: -9}.get(stop, 130), err
    reached = torch.load("part/checkpoint.pt", weights_only=True)["step"]
    assert 100 <= reached < 400 and not Path("part/result.json").exists()
    if stop != signal.SIGKILL:
        assert f"Stopped at step {reached:,}" in err and "--resume part" in err and "Traceback" not in err
    subprocess.run([sys.executable, SCRIPT, "--resume", "part"], check=True, capture_output=True)
    assert_equal_weights(weights("whole"), weights("part"))
    for name in ("progress.csv", "result.json", "curves.png"):
        assert files("whole")[name] == files("part")[name], name
    assert json.loads(Path("part/result.json").read_text()) == whole


def test_seeds_side_by_side_are_what_they_are_alone(cli):
    code, out, err = cli("--env", ENV, *TINY_FLAGS, "--seeds", 3, 5, "--out", "both")
    assert code == 0, err
    alone = {seed: train(Args(env=ENV, out=f"alone{seed}", seed=seed, **TINY)) for seed in (3, 5)}
    result = json.loads(Path("both/result.json").read_text())
    for seed in (3, 5):
        assert_equal_weights(weights("both", seed=seed), weights(f"alone{seed}", seed=seed))
        assert result["seeds"][str(seed)] == {kind: alone[seed][kind] for kind in ("final", "online", "offline")}
    for kind in ("final", "online", "offline"):
        scores = [alone[seed][kind]["score"] for seed in (3, 5)]
        np.testing.assert_allclose([result[kind]["score"], result[kind]["score_std"]], [np.mean(scores), np.std(scores)])
        assert f"{kind:8}score {np.mean(scores):6.1f} ± {np.std(scores):.1f}" in out
    last = list(csv.DictReader(open("both/progress.csv")))[-1]
    assert float(last["score"]) == result["final"]["score"] and float(last["bc_loss"]) == result["final"]["bc_loss"]
    assert cli("--resume", "both", "--steps", 30)[0] == 0
    train(Args(env=ENV, out="longer", seed=5, **{**TINY, "steps": 30}))
    assert_equal_weights(weights("both", seed=5), weights("longer", seed=5))
    code, out, err = cli("--resume", "both", "--eval-only")
    assert code == 0 and "4 episodes" in out, err  # two of each seed


def test_resuming_can_train_longer_but_not_otherwise(cli, fails):
    assert cli("--env", ENV, *TINY_FLAGS, "--out", "run")[0] == 0
    assert "--lr 0.0003" in fails("--resume", "run", "--lr", 0.1)
    assert "no run folder" in fails("--resume", "nowhere")
    assert cli("--resume", "run", "--steps", 30)[0] == 0
    assert torch.load("run/checkpoint.pt", weights_only=True)["step"] == 30
    Path("run/checkpoint.pt").write_bytes(Path("run/checkpoint.pt").read_bytes()[:500])
    assert "cannot load run/checkpoint.pt" in fails("--resume", "run", "--steps", 40)
    Path("run/config.json").write_text("{")
    assert "damaged" in fails("--resume", "run")


def test_eval_only_scores_what_was_trained(cli):
    result = train(Args(env=ENV, out="run", **TINY))
    for source in (["--resume", "run"], ["--init-from", "run", "--env", ENV, *TINY_FLAGS], ["--init-from", "run/checkpoint.pt", "--env", ENV, *TINY_FLAGS]):
        before = files("run")
        code, out, err = cli("--eval-only", *source)
        assert code == 0 and f"score {result['final']['score']:.1f} ±" in out, err
        assert files("run") == before


def test_weights_of_the_authors_release(cli, fails, tmp_path):
    """Their actor_N.pth and critic_N.pth hold our names, and a few buffers of the schedule more."""
    agent = DiffusionQL(4, 1, Args(**{**TINY, "hidden_dim": 256}))
    actor = {**agent.actor.state_dict(), "alphas_cumprod_prev": torch.ones(5), "log_one_minus_alphas_cumprod": torch.ones(5)}
    for n, scale in ((5, 0.0), (10, 1.0)):
        torch.save({name: scale * tensor for name, tensor in actor.items()}, f"actor_{n}.pth")
        torch.save(agent.critic.state_dict(), f"critic_{n}.pth")
    flags = ["--env", ENV, "--eval-only", "--eval-episodes", 2, "--batch-size", 16]
    scores = [cli(*flags, "--init-from", *source) for source in (("actor_10.pth", "critic_10.pth"), (".",))]
    assert scores[0][0] == 0, scores[0][2]
    assert scores[0][1] == scores[1][1]  # of a folder, the highest N
    loaded = DiffusionQL(4, 1, Args(**{**TINY, "hidden_dim": 256}))
    diffusion_ql.load_weights(loaded, ["actor_10.pth", "critic_10.pth"])
    for theirs, ours in ((agent.actor, (loaded.actor, loaded.ema_actor)), (agent.critic, (loaded.critic, loaded.critic_target))):
        for network in ours:
            assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), network.parameters()))
    torch.save({name: p for name, p in agent.actor.named_parameters()}, "only_parameters.pth")
    diffusion_ql.load_weights(loaded, ["only_parameters.pth", "critic_10.pth"])
    assert "no critic" in fails(*flags, "--init-from", "actor_10.pth")
    assert "cannot load" in fails(*flags, "--init-from", "actor_10.pth", "critic_10.pth", "--hidden-dim", 32)
    assert "cannot load" in fails(*flags, "--init-from", "actor_10.pth", "critic_10.pth", "--n-timesteps", 7)
    assert "cannot load" in fails(*flags, "--init-from", "missing.pth")
    torch.save(os.system, "code.pth")  # a file that would run code is refused
    assert "cannot load" in fails(*flags, "--init-from", "code.pth")


def test_averages_take_no_gradients():
    """Else every step would hang a piece of autograd's graph on them, and memory would grow without end."""
    agent, width = DiffusionQL(3, 1, Args(hidden_dim=8, ema_start=0, ema_every=1)), 4
    agent.update(Batch(*(torch.rand(width, columns) for columns in (3, 1, 3, 1, 1))))
    for average in (agent.ema_actor, agent.critic_target):
        assert all(parameter.is_leaf and not parameter.requires_grad for parameter in average.parameters())


def test_init_from_begins_with_those_weights():
    train(Args(env=ENV, out="first", **TINY))
    train(Args(env=ENV, out="second", init_from=("first",), **{**TINY, "steps": 1, "lr": 1e-9, "critic_lr": 1e-9}))
    first, second = weights("first"), weights("second")
    for name in first:
        if name.startswith(("actor", "critic.")):
            torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)


def test_behaviour_cloning_has_no_critics(cli):
    code, out, _ = cli("--env", ENV, *TINY_FLAGS, "--algo", "bc", "--out", "run")
    assert code == 0 and "critic_loss" not in out and "bc_loss" in out
    rows = list(csv.DictReader(open("run/progress.csv")))
    assert "critic_loss" not in rows[0] and float(rows[1]["bc_loss"]) > 0
    critic = {name: tensor for name, tensor in weights("run").items() if "critic" in name}
    torch.manual_seed(0)
    fresh = DiffusionQL(4, 1, Args(**TINY))
    assert all(torch.equal(critic[f"critic.{name}"], tensor) for name, tensor in fresh.critic.state_dict().items())


def test_behaviour_cloning_learns_two_modes():
    torch.manual_seed(0)
    policy = DiffusionPolicy(1, 1, n_timesteps=20, hidden_dim=64)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    action = torch.tensor([[0.7], [-0.7]]).repeat(256, 1)
    for _ in range(1000):
        optimizer.zero_grad()
        policy.loss(action, torch.zeros(512, 1)).backward()
        optimizer.step()
    sample = policy.sample(torch.zeros(500, 1)).detach()
    assert ((sample.abs() - 0.7).abs() < 0.15).float().mean() > 0.85
    assert 0.3 < (sample > 0).float().mean() < 0.7


def test_sample_takes_noise_and_returns_the_chain():
    policy, state = DiffusionPolicy(3, 2, n_timesteps=7), torch.randn(4, 3)
    noise = torch.randn(7, 4, 2)
    action, chain = policy.sample(state, noise, return_chain=True)
    assert chain.shape == (8, 4, 2) and torch.equal(chain[0], noise[0])
    assert torch.equal(action, chain[-1].clamp(-1, 1)) and torch.equal(action, policy.sample(state, noise))


def test_early_stop_and_model_selection(monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 1.0])
    update = DiffusionQL.update

    def with_made_up_loss(self, batch):
        return {**update(self, batch), "bc_loss": torch.tensor(next(losses))}

    monkeypatch.setattr(DiffusionQL, "update", with_made_up_loss)
    result = train(Args(env=ENV, out="run", early_stop=True, **{**TINY, "steps": 4, "eval_every": 1}))
    assert result["final"]["step"] == 3  # 2.5 is the first that is not lower than the one before
    history = [{"step": i, "score": score, "bc_loss": loss} for i, (score, loss) in enumerate([(5, 3.0), (9, 1.0), (7, 2.0)])]
    assert select(history, 1) == {"online": history[1], "offline": history[2]}
    assert select(history, 9)["offline"] is history[0]


def test_a_loss_that_is_not_finite_ends_training_at_once(fails, monkeypatch):
    update = DiffusionQL.update

    def breaks_at_step_17(self, batch):
        metrics = update(self, batch)
        return {**metrics, "critic_loss": torch.tensor(float("nan"))} if self.step == 17 else metrics

    monkeypatch.setattr(DiffusionQL, "update", breaks_at_step_17)
    message = fails("--env", ENV, *TINY_FLAGS, "--out", "run", code=1)
    assert "at step 17" in message
    assert torch.load("run/checkpoint.pt", weights_only=True)["step"] == 10


def test_files_are_whole_or_absent(monkeypatch):
    train(Args(env=ENV, out="run", **TINY))
    before = files("run")

    def power_cut(*args):
        Path(args[1]).write_text("half")
        raise SystemExit

    monkeypatch.setattr(torch, "save", power_cut)
    with pytest.raises(SystemExit):
        train(Args(env=ENV, resume="run", **{**TINY, "steps": 30}))
    after = files("run")
    assert all(after[name] == before[name] for name in before if name != "config.json")  # that one has the new --steps
    assert json.loads(after["config.json"])["steps"] == 30


@pytest.mark.parametrize("flags, says", [
    (["--steps", "0"], "--steps 0"), (["--lr", "nan"], "--lr nan"), (["--lr", "-1"], "--lr -1"), (["--discount", "1.5"], "from 0 to 1"),
    (["--batch-size", "many"], "--batch-size"), (["--reward-tune", "double"], "normalize"), (["--learning-rate", "1"], "--learning-rate"),
    (["--video", "film.avi"], ".mp4"), (["--eval-only"], "--init-from"), (["--device", "cuda"], "--device cpu"), (["--eta", "inf"], "--eta"),
    (["--seed", "-1"], "--seed"), (["--seeds", "1", "1"], "different"), (["--seeds", "-1", "2"], "--seeds"), (["--seeds", "one"], "--seeds"),
    (["--compile", "maybe"], "--compile"),
])
def test_nonsense_on_the_command_line(flags, says, fails):
    if flags[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    tiny = [flag for flag in TINY_FLAGS if not flag.startswith(flags[0])]
    assert says in fails("--env", ENV, *tiny, *flags)
    assert not Path("runs").exists()


def test_output_folder(fails):
    Path("file").write_text("")
    assert "cannot write" in fails("--env", ENV, *TINY_FLAGS, "--out", "file/run")
    train(Args(env=ENV, out="run", **TINY))
    assert "already holds a run" in fails("--env", ENV, *TINY_FLAGS, "--out", "run")


def test_wandb_is_optional(fails):
    try:
        import wandb  # noqa: F401
        pytest.skip("wandb is installed")
    except ImportError:
        assert "pip install wandb" in fails("--env", ENV, *TINY_FLAGS, "--wandb")


def test_help_fits_the_eye(cli):
    code, out, _ = cli("--help")
    assert code == 0 and max(map(len, out.splitlines())) <= 120
    for name in Args.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out


def test_video(fails, cli):
    data = load_dataset(ENV)
    try:
        diffusion_ql.record_video(None, data)
        renders = True
    except UserError:
        renders = False
    if renders:
        import imageio.v3 as iio
        for name in ("film.gif", "film.mp4"):
            code, _, err = cli("--env", ENV, *TINY_FLAGS, "--video", name)
            assert code == 0 and len(iio.imread(name)) > 1, err
    else:
        assert "cannot render" in fails("--env", ENV, *TINY_FLAGS, "--video", "film.gif")
        assert not Path("runs").exists()


def test_a_fork_overrides_one_loss():
    class Cautious(DiffusionQL):
        def critic_loss(self, batch, draws):
            loss, metrics = super().critic_loss(batch, draws)
            q = torch.cat(self.critic(batch.state, torch.zeros_like(batch.action)))
            return loss + q.square().mean(), {**metrics, "penalty": q.detach().square().mean()}

    result = train(Args(env=ENV, out="run", **TINY), Cautious)
    assert np.isfinite(result["final"]["penalty"])


def compiled_against_plain(device, steps):
    """The weights of two seeds after some updates, plain and compiled."""
    settings = {**TINY, "steps": steps, "eval_every": steps, "n_timesteps": 2, "device": device, "max_q_backup": True, "ema_start": 0, "seeds": [0, 1]}
    for choice in ("off", "on"):
        train(Args(env=ENV, out=choice, compile=choice, **settings))
    for seed in (0, 1):
        for name, tensor in weights("off", seed=seed).items():
            yield weights("on", seed=seed)[name], tensor, f"{name} of seed {seed}"


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiling_changes_no_number():
    for compiled, plain, name in compiled_against_plain("cpu", steps=4):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_cuda_graph_changes_no_number():
    for compiled, plain, name in compiled_against_plain("cuda", steps=12):  # nine of them replays
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-5, msg=name)


def test_compiling_when_it_pays(cli, fails, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    assert "not compiled" in cli("--env", ENV, *TINY_FLAGS)[1]
    assert "no compiler" in fails("--env", ENV, *TINY_FLAGS, "--compile", "on")
    monkeypatch.setattr(diffusion_ql.shutil, "which", lambda name: "/usr/bin/" + name)
    tiny = [flag for flag in TINY_FLAGS if not flag.startswith("--steps")]
    assert "--compile off" in fails("--env", ENV, *tiny, "--steps", 100_000)
