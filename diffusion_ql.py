"""Diffusion-QL (Wang, Hunt & Zhou, ICLR 2023, arXiv:2208.06193) in one file.

The policy is a diffusion model: it clones a dataset's actions by learning to denoise them (L_d), and a Q-function pulls it to the better ones (L_q).

    python diffusion_ql.py                                     # two-roads: a task of minutes, without a download
    python diffusion_ql.py --env walker2d-medium-expert        # Minari's dataset, downloaded on first use
    python diffusion_ql.py --env walker2d-medium-expert-v2     # D4RL's own file: the data of the paper

Read it from top to bottom. Where paper and release (the authors' code) differ it follows the release, which made the published
numbers; only its `--lr_decay` is left out: over a whole run that lowers the learning rate by 0.1 %.
"""
import argparse, collections, contextlib, copy, dataclasses, difflib, importlib, itertools, json, math, os, re, shutil, signal, sys, time  # noqa: E401
from pathlib import Path
from typing import Literal, get_args
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F  # noqa: E401
from tqdm import tqdm

class UserError(Exception):
    """Something the person at the keyboard can mend: main() prints it, without a traceback, and exits with 2."""
def require(condition, message):
    if not condition:
        raise UserError(message)
@contextlib.contextmanager
def explain(message, *errors):
    """Turns the errors of a library into a UserError: the message, with {} standing for the error's own first line."""
    try:
        yield
    except errors or Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise error if isinstance(error, UserError) else UserError(message.format(reason)) from error

# ---- Settings, and the paper's table of tasks ------------------------------------------------------------------------
def option(default, help, low=None, high=math.inf, group=None):
    """A field of Args: its default, its line in --help, its limits, and the group of --help that begins with it."""
    return dataclasses.field(default=default, metadata={"help": help, "limits": (low, high), "group": group})
@dataclasses.dataclass
class Args:
    """All settings, each an option of the command line. `Args.for_env(name)` fills in the paper's own for a task."""
    env: str = option("two-roads", "a paper task, a Minari id, the path of an .hdf5 file, or two-roads", group="what to run")
    env_id: str = option("", "Gymnasium environment to evaluate in (default: the dataset's own)")
    algo: Literal["ql", "bc"] = option("ql", "ql: Diffusion-QL; bc: behaviour cloning alone, no critics")
    steps: int = option(1_000_000, "gradient steps *", 1)
    eval_every: int = option(0, "steps between evaluations (default: 50000, or a tenth of a short run)", 0)
    eval_episodes: int = option(0, "episodes per evaluation (default: 10 on MuJoCo tasks, 100 on others)", 0)
    seed: int = option(0, "random seed; on the CPU it fixes everything", 0, 2**32 - 200)
    seeds: list = option((), "train these seeds side by side instead, and give their mean ± std")
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "auto: cuda where there is one, else cpu")
    compile: Literal["auto", "on", "off"] = option("auto", "torch.compile, and CUDA graphs; auto: on a GPU, and from 100000 steps on")
    early_stop: bool = option(False, "stop at the first evaluation whose L_d is not below the one before")
    out: str = option("", "run folder (default: runs/<env>/<seed>-<time>)", group="files")
    resume: str = option("", "run folder to go on with, as if it had never stopped")
    init_from: tuple = option((), "begin with these weights: a run folder, a .pt file, or the release's .pth files")
    eval_only: bool = option(False, "train nothing: score the weights of --init-from or --resume")
    video: str = option("", "record an episode at the end: FILE.mp4 or FILE.gif")
    wandb: bool = option(False, "log to Weights & Biases as well (pip install wandb)")
    lr: float = option(3e-4, "learning rate of the policy *", 1e-12, group="hyperparameters (*: the paper's own on its tasks)")
    eta: float = option(1.0, "weight of the Q-loss in the policy loss *", 0)
    max_q_backup: bool = option(False, "back up the best of 10 next actions *")
    reward_tune: Literal["no", "normalize", "cql_antmaze"] = option("no", "transform of the rewards *")
    grad_norm: float = option(5.0, "largest norm of the gradients of policy and critics; 0: any *", 0)
    top_k: int = option(1, "offline selection takes the evaluation with the (top_k+1)-th smallest L_d *", 0)
    n_timesteps: int = option(5, "N, denoising steps of the policy", 1)
    batch_size: int = option(256, "transitions per gradient step", 1)
    discount: float = option(0.99, "discount factor gamma", 0, 1)
    tau: float = option(0.005, "share of the critics that their targets take up per step", 0, 1)
    critic_lr: float = option(3e-4, "learning rate of the critics", 1e-12)
    ema_decay: float = option(0.995, "decay of the policy's average, which proposes next actions", 0, 1)
    ema_every: int = option(5, "steps between updates of that average", 1)
    ema_start: int = option(1000, "step of its first update", 0)
    candidates: int = option(50, "actions proposed when acting; one is drawn by softmax of Q", 1)
    hidden_dim: int = option(256, "width of all networks", 1)
    @classmethod
    def for_env(cls, env, **overrides):
        """The settings for a dataset: the row of the paper's table that fits it, then `overrides`."""
        row = PAPER_TASKS[paper_name(env)]._asdict() if paper_name(env) else TWO_ROADS if env == "two-roads" else {}
        return cls(**{"env": env, **{name: value for name, value in row.items() if name != "paper_score"}, **overrides})
    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, choices, (low, high) = getattr(self, field.name), get_args(field.type), field.metadata["limits"]
            require(low <= value <= high and value < math.inf if field.type in (int, float) else value in (choices or [value]),
                    f"--{field.name.replace('_', '-')} {value}: give {' or '.join(choices) or f'a number from {low} to {high}'}")
        require(not self.video or self.video.endswith((".mp4", ".gif")), "--video needs a name that ends in .mp4 or .gif")
        require(len({*self.seeds}) == len(self.seeds) and min(self.seeds, default=0) >= 0, "--seeds: give different numbers from 0 on")
        self.eval_every = self.eval_every or min(50_000, max(1, self.steps // 10))
Task = collections.namedtuple("Task", "lr eta max_q_backup reward_tune steps grad_norm top_k paper_score")
PAPER_TASKS = {  # hyperparameters of the release, in the order of Task's fields, and the score in the paper's Table 1
    "halfcheetah-medium-v2":        Task(3e-4, 1.0,   False, "no",          2_000_000, 9,  1, 51.1),
    "hopper-medium-v2":             Task(3e-4, 1.0,   False, "no",          2_000_000, 9,  2, 90.5),
    "walker2d-medium-v2":           Task(3e-4, 1.0,   False, "no",          2_000_000, 1,  1, 87.0),
    "halfcheetah-medium-replay-v2": Task(3e-4, 1.0,   False, "no",          2_000_000, 2,  0, 47.8),
    "hopper-medium-replay-v2":      Task(3e-4, 1.0,   False, "no",          2_000_000, 4,  2, 101.3),
    "walker2d-medium-replay-v2":    Task(3e-4, 1.0,   False, "no",          2_000_000, 4,  1, 95.5),
    "halfcheetah-medium-expert-v2": Task(3e-4, 1.0,   False, "no",          2_000_000, 7,  0, 96.8),
    "hopper-medium-expert-v2":      Task(3e-4, 1.0,   False, "no",          2_000_000, 5,  2, 111.1),
    "walker2d-medium-expert-v2":    Task(3e-4, 1.0,   False, "no",          2_000_000, 5,  1, 110.1),
    "antmaze-umaze-v0":             Task(3e-4, 0.5,   False, "cql_antmaze", 1_000_000, 2,  2, 93.4),
    "antmaze-umaze-diverse-v0":     Task(3e-4, 2.0,   True,  "cql_antmaze", 1_000_000, 3,  2, 66.2),
    "antmaze-medium-play-v0":       Task(1e-3, 2.0,   True,  "cql_antmaze", 1_000_000, 2,  1, 76.6),
    "antmaze-medium-diverse-v0":    Task(3e-4, 3.0,   True,  "cql_antmaze", 1_000_000, 1,  1, 78.6),
    "antmaze-large-play-v0":        Task(3e-4, 4.5,   True,  "cql_antmaze", 1_000_000, 10, 2, 46.4),
    "antmaze-large-diverse-v0":     Task(3e-4, 3.5,   True,  "cql_antmaze", 1_000_000, 7,  1, 56.6),
    "pen-human-v1":                 Task(3e-5, 0.15,  False, "normalize",   1_000_000, 7,  2, 72.8),
    "pen-cloned-v1":                Task(3e-5, 0.1,   False, "normalize",   1_000_000, 8,  2, 57.3),
    "kitchen-complete-v0":          Task(3e-4, 0.005, False, "no",          250_000,   9,  2, 84.0),
    "kitchen-partial-v0":           Task(3e-4, 0.005, False, "no",          1_000_000, 10, 2, 60.5),
    "kitchen-mixed-v0":             Task(3e-4, 0.005, False, "no",          1_000_000, 10, 0, 62.6)}
TWO_ROADS = dict(lr=1e-3, critic_lr=1e-3, discount=0.97, tau=0.02, ema_decay=0.98, steps=9000, eval_every=3000, hidden_dim=128)
DOMAINS = {  # the returns that D4RL scores as 0 and 100 (d4rl/infos.py), and what its files that fit today's environments run in
    "halfcheetah": (-280.178953, 12135.0, "HalfCheetah-v4"), "hopper": (-20.272305, 3234.3, "Hopper-v4"), "antmaze": (0, 1, ""),
    "walker2d": (1.629008, 4592.3, "Walker2d-v4"), "pen": (96.262799, 3076.833102, "AdroitHandPen-v1"), "kitchen": (0, 4, "")}
D4RL_URL, HDF5 = "http://rail.eecs.berkeley.edu/datasets/offline_rl/", (".hdf5", ".h5")
MINARI_IDS = {"two-roads": ["toy/two-roads-v0"], **{f"{robot}-{level}": [f"mujoco/{robot}/{part}-v0" for part in level.split("-")]
    for robot in ("halfcheetah", "hopper", "walker2d") for level in ("medium", "expert", "medium-expert")},  # the last: two datasets together
    **{name[:-3]: [f"D4RL/{name[:-3].replace('-', '/', 1)}-{'v1' if name.startswith('antmaze') else 'v2'}"]
       for name in PAPER_TASKS if name.startswith(("antmaze", "pen", "kitchen"))}}
def paper_name(env):
    """The row of PAPER_TASKS whose settings fit a dataset, under whichever name it goes; None where there is none."""
    env = Path(env).stem.replace("_", "-") if env.endswith(HDF5) else env
    env = next((name for name, ids in MINARI_IDS.items() if [env] == ids), env)
    env = re.sub("^(halfcheetah|hopper|walker2d)-expert$", r"\1-medium-expert", env)  # not in the paper: the nearest row
    return next((name for name in PAPER_TASKS if env in (name, name[:-3])), None)

# ---- Data: float32 tensors of transitions, actions scaled to [-1, 1] -------------------------------------------------
Batch = collections.namedtuple("Batch", "state action next_state reward not_done")  # (B, state_dim), (B, action_dim), ..., (B, 1), (B, 1)
REWARD_TRANSFORMS = {"no": lambda r: r, "normalize": lambda r: (r - r.mean()) / r.std(), "cql_antmaze": lambda r: (r - 0.5) * 4}
class Dataset:
    """An offline dataset: `transitions`, a Batch of them all, and `envs` to score policies in.
    arrays: states, actions, next states, rewards, terminals. spec: the environment's id or EnvSpec. reference: returns
    that score 0 and 100. Raises UserError where the data does not fit the environment."""
    def __init__(self, name, arrays, spec, reference=(0, 100)):
        self.name, self.spec, self.reference = name, spec, reference
        self.envs = [self.make_env()]
        env, box = self.envs[0], self.envs[0].unwrapped.action_space
        self.env_id, self.state_dim, self.action_dim = env.spec.id, *env.observation_space.shape, *box.shape
        self.eval_episodes = 10 if "gymnasium.envs.mujoco" in str(env.spec.entry_point) else 100
        states, actions, next_states, rewards, terminals = arrays
        widths, own = (*states.shape[1:], *actions.shape[1:]), (self.state_dim, self.action_dim)
        require(len(states), f"{name} holds no transitions: choose another --env")
        require(widths == own, f"{name}: its states and actions are {widths} wide, but {self.env_id}'s {own}: give another --env-id")
        bad = np.concatenate([np.argwhere(~np.isfinite(array))[:1, 0] for array in arrays[:4]])
        require(not len(bad), f"{name}: NaN or infinity, for one in transition {bad.min(initial=10**9)}: clean the data, or choose another --env")
        actions = 2 * (actions - box.low) / (box.high - box.low) - 1
        bad = np.argwhere(abs(actions) > 1.001)[:1, 0]  # 0.1 % of rounding is forgiven
        require(not len(bad), f"{name}: action {bad} is out of the bounds of {self.env_id}: clip the data, or give another --env-id")
        terminals = terminals | (self.env_id.startswith("AntMaze") & (rewards > 0))  # D4RL's episodes end at the goal, Minari's go on
        self.transitions = Batch(*(torch.as_tensor(array, dtype=torch.float32) for array in (
            states, actions.clip(-1, 1), next_states, rewards[:, None], ~terminals[:, None])))
    def make_env(self, **kwargs):
        """The environment with flat states, actions in [-1, 1] whatever its own bounds, and always a time limit."""
        import gymnasium as gym, gymnasium_robotics  # noqa: E401
        gym.logger.min_level = gym.logger.ERROR  # "Walker2d-v4 is out of date": D4RL's data is of that version
        with explain(f"cannot make the environment {self.spec} ({{}}): check --env-id", gym.error.Error):
            gym.register_envs(gymnasium_robotics)
            env = gym.make(self.spec, **kwargs)
        box, space = env.action_space, env.observation_space
        fits = isinstance(box, gym.spaces.Box) and box.is_bounded() and len(box.shape) == 1
        require(fits, f"the actions of {env.spec.id} are {box}: Diffusion-QL needs a Box of bounded, continuous ones")
        env = env if env.spec.max_episode_steps else gym.wrappers.TimeLimit(env, 1000)
        env = gym.wrappers.TransformObservation(env, lambda obs: flat_state(obs, space), gym.spaces.Box(
            -np.inf, np.inf, flat_state(space.sample(), space).shape))
        return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    def sample(self, batch_size, generator=None):
        index = torch.randint(len(self.transitions.state), (batch_size,), generator=generator, device=self.transitions.state.device)
        return Batch(*(tensor[index] for tensor in self.transitions))
    def score(self, returns):
        return 100 * (returns - self.reference[0]) / (self.reference[1] - self.reference[0])
def flat_state(obs, space):
    """Flattens an observation, or a stack of them, to (..., state_dim). Goal tasks give [achieved goal, observation,
    desired goal]; kitchen's goals, Dicts themselves, are left out: they never change."""
    if hasattr(space, "keys"):
        goals = ["achieved_goal", "observation", "desired_goal"]
        keys = sorted(space.keys(), key=lambda key: (goals.index(key) if key in goals else 3, key))
        return np.concatenate([flat_state(obs[k], space[k]) for k in keys if not (k in goals and hasattr(space[k], "keys"))], -1)
    require(hasattr(space, "low") and space.dtype != np.uint8 and len(space.shape) < 3,
            f"observations of type {space} are no vectors: Diffusion-QL is for states, not for images or categories")
    return np.reshape(obs, (*np.shape(obs)[:np.ndim(obs) - len(space.shape)], -1)).astype(np.float32)
def load_dataset(env, env_id=""):
    """Loads what `env` names as a Dataset, to be evaluated in env_id or else its own environment; downloads on first use.
    Raises UserError for unknown names, a missing network, and files that cannot be read or do not fit."""
    sys.modules.setdefault("farama_notifications", None)  # gymnasium-robotics would print news of other environments
    domain = (paper_name(env) or env).split("-")[0]
    *reference, d4rl_env = DOMAINS.get(domain, (0, 100, ""))  # unknown: the score is the return
    if env.endswith(HDF5) or env in PAPER_TASKS:
        require(env.endswith(HDF5) or d4rl_env, f"D4RL's {domain} files do not match today's {domain} environments, which "
                f"have other coordinates and widths.\nUse Minari's version of the task: --env {env[:-3]}")
        require(env_id or d4rl_env, f"say which environment to evaluate {env} in, for example --env-id Walker2d-v4")
        return Dataset(env, read_d4rl(env), env_id or d4rl_env, reference)
    datasets, arrays = zip(*(read_minari(minari_id) for minari_id in MINARI_IDS.get(env, [env])))
    require(env_id or datasets[0].env_spec, f"{env} does not say which environment it comes from: add --env-id")
    limits = [datasets[0].storage.metadata.get(f"ref_{which}_score") for which in ("min", "max")]
    reference = reference if domain in ("antmaze", "kitchen") or None in limits else limits
    return Dataset(env, [np.concatenate(column) for column in zip(*arrays)], env_id or datasets[0].recover_environment(eval_env=True).spec, reference)
def read_minari(name):
    """A Minari dataset and its arrays. An episode of T steps has T + 1 observations, so the last step of a truncated
    one keeps its real next state and is not terminal."""
    import minari.storage
    folder = minari.storage.get_dataset_path(name)
    if name == "toy/two-roads-v0" and not folder.exists():
        importlib.import_module("toy_experiments.two_roads").collect()
    elif not folder.exists():
        known = [*MINARI_IDS, *PAPER_TASKS, *minari.list_local_datasets()]
        require(re.fullmatch(r".+/.+-v\d+", name), f"there is no task {name!r}. Nearest: {', '.join(difflib.get_close_matches(name, known, 3, 0))}.\n"
                "Type one of them, a Minari id (such as mujoco/ant/expert-v0), or the path of an .hdf5 file.")
        with explain(f"cannot download {name} ({{}}).\nRun again with a connection, copy the dataset to {folder}, or drop --env: two-roads needs no download"):
            minari.download_dataset(name)
    with explain(f"cannot read {folder} ({{}}).\nPerhaps its download was cut off: delete that folder and run again."):
        dataset, columns = minari.load_dataset(name), []
        for episode in dataset.iterate_episodes():
            states, n = flat_state(episode.observations, dataset.observation_space), len(episode.actions)
            require(len(states) - 1 == len(episode.rewards) == n, f"episode {episode.id} has {n} actions, {len(states)} observations")
            columns.append((states[:-1], episode.actions, states[1:], episode.rewards, episode.terminations))
    return dataset, [np.concatenate(column) for column in zip(*columns)] or [np.zeros(0)] * 5
def read_d4rl(env):
    """The arrays of a file in D4RL's format, or of a paper task's file in the d4rl package's cache, downloaded if need be.
    D4RL's q-learning view: the next row is the next state, and rows with a timeout, which have none, are dropped."""
    import h5py
    path = Path(env)
    if env in PAPER_TASKS:
        name = f"hand_dapg_v1/{env}.hdf5" if env.startswith("pen") else f"gym_mujoco_v2/{env[:-3].replace('-', '_')}-v2.hdf5"
        path = Path(os.environ.get("D4RL_DATASET_DIR", "~/.d4rl/datasets")).expanduser() / Path(name).name
        if not path.exists():
            with explain(f"cannot download {D4RL_URL}{name} ({{}}).\nRun again with a connection, put that file at {path}, or drop --env: two-roads needs no download"):
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(D4RL_URL + name, f"{path}.part")
                h5py.File(f"{path}.part").close()  # fails where the end is missing
                os.replace(f"{path}.part", path)
    require(path.exists(), f"there is no file {path}: check the path after --env")
    keys = "observations", "actions", "rewards", "terminals", "timeouts"
    with explain(f"cannot read {path} ({{}}).\nPerhaps its download was cut off: delete that file and run again."), h5py.File(path) as file:
        require({*keys} <= {*file}, f"{path} has no {', '.join({*keys} - {*file})}: it is not in D4RL's format, use another file")
        states, actions, rewards, terminals, timeouts = arrays = [file[key][()] for key in keys]
    require(len(set(map(len, arrays))) == 1, f"{path}: the lengths of {', '.join(keys)} differ: use another file")
    keep = ~timeouts[:-1].astype(bool)
    return states[:-1][keep], actions[:-1][keep], states[1:][keep], rewards[:-1][keep].ravel(), terminals[:-1][keep].ravel().astype(bool)

# ---- Diffusion policy ------------------------------------------------------------------------------------------------
def vp_schedule(n_timesteps):
    """The variance-preserving schedule (section 4): float32 tensors (n_timesteps,), the least noisy step first; names: the release."""
    i, b_min, b_max = np.arange(1, n_timesteps + 1), 0.1, 10.0
    betas = torch.tensor(1 - np.exp(-b_min / n_timesteps - (b_max - b_min) * (i - 0.5) / n_timesteps**2), dtype=torch.float32)
    cumprod = torch.cumprod(1 - betas, 0)
    previous = torch.cat([torch.ones(1), cumprod[:-1]])
    variance = betas * (1 - previous) / (1 - cumprod)
    return {"betas": betas, "alphas_cumprod": cumprod, "sqrt_alphas_cumprod": cumprod.sqrt(), "sqrt_one_minus_alphas_cumprod": (1 - cumprod).sqrt(),
            "sqrt_recip_alphas_cumprod": (1 / cumprod).sqrt(), "sqrt_recipm1_alphas_cumprod": (1 / cumprod - 1).sqrt(),
            "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(), "posterior_mean_coef1":
            betas * previous.sqrt() / (1 - cumprod), "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - cumprod)}

class FastMish(torch.autograd.Function):
    """x tanh(softplus(x)); with p = sigmoid(x) and u = p (2 - p) the tanh is u / (2 - u): one exponential, few passes."""
    @staticmethod
    def forward(ctx, x):
        p = x.sigmoid()
        u = (2 - p).mul_(p)
        tanh = u.div_(2 - u)
        y = x * tanh
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.addcmul(x, y, tanh, value=-1).mul_(p).add_(tanh))  # tanh + x (1 - tanh^2) p
        return y
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0]
class Mish(nn.Module):
    def forward(self, x):
        return F.mish(x) if x.is_cuda else FastMish.apply(x)  # CUDA's own is a single kernel
def mlp(*widths):
    return nn.Sequential(*(layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), Mish())))
class SinusoidalEmbedding(nn.Module):
    def forward(self, timestep):
        angle = timestep[:, None] * torch.exp(torch.arange(8, device=timestep.device) * (-math.log(10_000) / 7))
        return torch.cat([angle.sin(), angle.cos()], -1)  # (B, 16)

class Denoiser(nn.Module):
    """Predicts the noise epsilon in a noisy action, given the timestep and the state (appendix; layer names: the release)."""
    def __init__(self, state_dim, action_dim, hidden_dim=256):
        super().__init__()
        self.time_mlp = nn.Sequential(SinusoidalEmbedding(), nn.Linear(16, 32), Mish(), nn.Linear(32, 16))
        self.mid_layer = mlp(action_dim + 16 + state_dim, hidden_dim, hidden_dim, hidden_dim)
        self.final_layer = nn.Linear(hidden_dim, action_dim)
    def forward(self, action, timestep, state):
        """action (B, action_dim), timestep (B,) or (1,) if all are the same, state (B, state_dim) → (B, action_dim)."""
        x = torch.cat([action, self.time_mlp(timestep).expand(len(action), -1), state], -1)
        return self.final_layer(self.mid_layer(x))

class DiffusionPolicy(nn.Module):
    """pi(a | s): a DDPM over actions in [-1, 1], conditioned on the state (section 3, eqs. 1 and 2)."""
    def __init__(self, state_dim, action_dim, n_timesteps=5, hidden_dim=256):
        super().__init__()
        self.n_timesteps, self.action_dim = n_timesteps, action_dim
        self.model = Denoiser(state_dim, action_dim, hidden_dim)
        for name, values in vp_schedule(n_timesteps).items():
            self.register_buffer(name, values)
    def sample(self, state, noise=None, return_chain=False):
        """Denoises Gaussian noise into actions (B, action_dim) for state (B, state_dim); differentiable throughout (eq. 1).
        noise (N, B, action_dim): noise[0] is the starting point, the rest the steps' own from the noisiest to the
        cleanest, the last step having none. return_chain: also every intermediate action, (N + 1, B, action_dim)."""
        noise = torch.randn(self.n_timesteps, len(state), self.action_dim, device=state.device) if noise is None else noise
        action, chain = noise[0], [noise[0]]
        for i in reversed(range(self.n_timesteps)):
            epsilon = self.model(action, torch.full((1,), i, device=state.device), state)
            clean = self.sqrt_recip_alphas_cumprod[i] * action - self.sqrt_recipm1_alphas_cumprod[i] * epsilon
            action = self.posterior_mean_coef1[i] * clean.clamp(-1, 1) + self.posterior_mean_coef2[i] * action
            if i > 0:
                action = action + (0.5 * self.posterior_log_variance_clipped[i]).exp() * noise[self.n_timesteps - i]
            chain.append(action)
        action = action.clamp(-1, 1)
        return (action, torch.stack(chain)) if return_chain else action
    def loss(self, action, state, timestep=None, noise=None):
        """L_d, the denoising loss (eq. 2): scalar. timestep (B,) in 0..N-1 and noise (B, action_dim) are drawn if not given."""
        timestep = torch.randint(self.n_timesteps, (len(action),), device=action.device) if timestep is None else timestep
        noise = torch.randn_like(action) if noise is None else noise
        noisy = self.sqrt_alphas_cumprod[timestep, None] * action + self.sqrt_one_minus_alphas_cumprod[timestep, None] * noise
        return F.mse_loss(self.model(noisy, timestep, state), noise)

# ---- Critics ---------------------------------------------------------------------------------------------------------
class DoubleCritic(nn.Module):
    """Two independent Q-functions of (state, action)."""
    def __init__(self, state_dim, action_dim, hidden_dim=256):
        super().__init__()
        self.q1_model, self.q2_model = (nn.Sequential(*mlp(state_dim + action_dim, *[hidden_dim] * 3), nn.Linear(hidden_dim, 1)) for _ in range(2))
    def forward(self, state, action):
        """state (B, state_dim), action (B, action_dim) → Q1, Q2, each (B, 1)."""
        x = torch.cat([state, action], -1)
        return self.q1_model(x), self.q2_model(x)

# ---- The agent -------------------------------------------------------------------------------------------------------
Draws = collections.namedtuple("Draws", "next_noise timestep noise policy_noise coin")
class DiffusionQL:
    """Algorithm 1 of the paper. To build another algorithm from it, override `critic_loss` or `policy_loss`."""
    def __init__(self, state_dim, action_dim, args=None, device="cpu"):
        self.args, self.device, self.step, self.random = args or Args(), torch.device(device), 0, None  # random: a Generator, or PyTorch's
        self.actor = DiffusionPolicy(state_dim, action_dim, self.args.n_timesteps, self.args.hidden_dim).to(device)
        self.critic = DoubleCritic(state_dim, action_dim, self.args.hidden_dim).to(device)
        self.ema_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=self.args.lr, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=self.args.critic_lr, fused=True)
        self.parts = dict(actor=self.actor, ema_actor=self.ema_actor, critic=self.critic, critic_target=self.critic_target,
                          actor_optimizer=self.actor_optimizer, critic_optimizer=self.critic_optimizer)  # of a checkpoint
    def draw(self, batch_size):
        """All the randomness of one update, so that it can be handed in."""
        n, action_dim, repeats = self.args.n_timesteps, self.actor.action_dim, 10 if self.args.max_q_backup else 1
        here = {"generator": self.random, "device": self.device}
        return Draws(next_noise=torch.randn(n, repeats * batch_size, action_dim, **here), timestep=torch.randint(n, (batch_size,), **here),
                     noise=torch.randn(batch_size, action_dim, **here), policy_noise=torch.randn(n, batch_size, action_dim, **here),
                     coin=torch.rand((), **here) > 0.5)  # whether Q1 is maximised and Q2 normalises, or the reverse
    def update(self, batch, draws=None):
        """One gradient step of critics and policy on a Batch (Algorithm 1); returns a dict of scalar tensors."""
        metrics = self.learn(batch, draws or self.draw(len(batch.state)))
        self.average_policy()
        return metrics
    def learn(self, batch, draws):
        """The two gradient steps: the same computation whatever `self.step` is, so that a GPU can record it (see `updates`)."""
        metrics = {}
        if self.args.algo == "ql":
            metrics |= self.descend(*self.critic_loss(batch, draws), self.critic, self.critic_optimizer)  # eq. 4
        self.critic.requires_grad_(False)  # neither the policy step nor the targets need gradients for the critics' weights
        metrics |= self.descend(*self.policy_loss(batch, draws), self.actor, self.actor_optimizer)  # eq. 3
        if self.args.algo == "ql":
            torch._foreach_lerp_([*self.critic_target.parameters()], [*self.critic.parameters()], self.args.tau)
        self.critic.requires_grad_(True)
        return metrics
    @torch.no_grad()
    def average_policy(self):
        if self.step >= self.args.ema_start and self.step % self.args.ema_every == 0:
            torch._foreach_lerp_([*self.ema_actor.parameters()], [*self.actor.parameters()], 1 - self.args.ema_decay)
        self.step += 1
    def critic_loss(self, batch, draws):
        """Eq. 4: both critics regress on y = r + gamma min(Q1', Q2')(s', a'), a' from the averaged policy."""
        with torch.no_grad():
            k = 10 if self.args.max_q_backup else 1  # AntMaze: each target critic takes its own best of 10 next actions
            next_state = batch.next_state.repeat_interleave(k, 0)
            next_q = torch.stack(self.critic_target(next_state, self.ema_actor.sample(next_state, draws.next_noise)))  # (2, k B, 1)
            next_q = next_q.view(2, -1, k).amax(2, keepdim=True)  # (2, B, 1)
            target = batch.reward + self.args.discount * batch.not_done * next_q.amin(0)
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        return loss, {"critic_loss": loss.detach(), "q": q1.detach().mean()}
    def policy_loss(self, batch, draws):
        """Eq. 3: L_d + eta L_q. Gradients of L_q flow through the whole denoising chain."""
        bc_loss = self.actor.loss(batch.action, batch.state, draws.timestep, draws.noise)
        if self.args.algo == "bc":
            return bc_loss, {"bc_loss": bc_loss.detach()}
        q1, q2 = self.critic(batch.state, self.actor.sample(batch.state, draws.policy_noise))
        q_up, q_scale = torch.where(draws.coin, q1, q2), torch.where(draws.coin, q2, q1).detach()
        ql_loss = -q_up.mean() / q_scale.abs().mean()  # the paper's alpha is eta / E|Q|: eta means the same for rewards of any size
        loss = bc_loss + self.args.eta * ql_loss
        return loss, {"bc_loss": bc_loss.detach(), "ql_loss": ql_loss.detach(), "actor_loss": loss.detach()}
    def descend(self, loss, metrics, network, optimizer):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), self.args.grad_norm or math.inf)
        optimizer.step()
        return metrics
    @torch.no_grad()
    def propose(self, states, noise=None):
        """50 candidate actions (B, 50, action_dim) for states (B, state_dim), and the lower target Q of each (B, 50)."""
        states = states.repeat_interleave(self.args.candidates, 0)
        actions = self.actor.sample(states, noise)
        q = torch.minimum(*self.critic_target(states, actions))
        return actions.view(-1, self.args.candidates, self.actor.action_dim), q.view(-1, self.args.candidates)
    @torch.no_grad()
    def act(self, states, noise=None):
        """Actions (B, action_dim) in [-1, 1] for states (B, state_dim): of the candidates, one by softmax of Q (section 4)."""
        if self.args.algo == "bc":
            return self.actor.sample(states, noise)
        actions, q = self.propose(states, noise)
        return actions.take_along_dim(torch.multinomial(q.softmax(-1), 1)[..., None], 1)[:, 0]

# ---- Evaluation ------------------------------------------------------------------------------------------------------
def evaluate(agent, dataset, episodes=None, seed=100):
    """Returns (episodes,) of one episode each, side by side, with one call of `agent.act` per step; PyTorch's random state
    stays as it was. Like D4RL, AntMaze counts reaching the goal, kitchen the tasks completed."""
    episodes = episodes or dataset.eval_episodes
    dataset.envs += [dataset.make_env() for _ in range(episodes - len(dataset.envs))]
    envs, returns, running = dataset.envs[:episodes], np.zeros(episodes), list(range(episodes))
    with torch.random.fork_rng([agent.device] if agent.device.type == "cuda" else []):
        torch.manual_seed(seed)
        states = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
        while running:
            actions = agent.act(torch.as_tensor(states[running], device=agent.device)).cpu().numpy()
            for i, action in zip(list(running), actions):
                states[i], reward, terminated, truncated, info = envs[i].step(action)
                returns[i] += reward
                if dataset.env_id.startswith("AntMaze"):
                    terminated = returns[i] = reward > 0
                elif "episode_task_completions" in info:
                    returns[i] = len(info["episode_task_completions"])
                if terminated or truncated:
                    running.remove(i)
    return returns
def record_video(agent, dataset, path=""):
    """Records an episode to `path` (.mp4 or .gif), or only tries to render. Raises UserError where the machine cannot."""
    import gymnasium as gym, imageio  # noqa: E401
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
    with explain("this machine cannot render ({}).\nInstall OpenGL (Debian: libegl1, or libosmesa6 with MUJOCO_GL=osmesa), or drop --video"):
        env = gym.wrappers.RenderCollection(dataset.make_env(render_mode="rgb_array"))
        env.reset(seed=0)
    if path:
        dataset.envs.insert(0, env)
        evaluate(agent, dataset, 1)
        fps = env.metadata["render_fps"]
        write(path, lambda partial: imageio.mimsave(partial, env.render(), **({"fps": fps} if path.endswith("mp4") else {"duration": 1000 / fps})))

# ---- Training loop ---------------------------------------------------------------------------------------------------
def write(path, content):
    """Writes a file whole or not at all. content: a text, or a function that writes to the path that it is given."""
    partial = Path(path).with_name(f"part-{Path(path).name}")
    partial.write_text(content) if isinstance(content, str) else content(partial)
    os.replace(partial, path)
def load_weights(agent, paths, optimizers=False):
    """Loads a run folder's checkpoint, a .pt file, or the release's actor_N.pth and critic_N.pth (of a folder, the latest).
    Returns all that the files hold. Raises UserError for files that are missing, damaged, or of another shape."""
    found, latest = {}, lambda path, name: sorted(path.glob(name), key=lambda file: (len(file.name), file.name))[-1:]  # noqa: E731
    for path in map(Path, paths):
        for file in latest(path, "checkpoint.pt") or latest(path, "actor_*.pth") + latest(path, "critic_*.pth") or [path]:
            with explain(f"cannot load {file} ({{}}): give a whole checkpoint, of the same task and settings"):
                saved = torch.load(file, map_location=agent.device, weights_only=True)  # runs no code from the file
                release = ("critic", "critic_target") if "q1_model.0.weight" in saved else ("actor", "ema_actor")  # averages begin as copies
                seeds = saved.get("seeds", {None: dict.fromkeys(release, saved)})
                saved = saved | seeds.get(agent.args.seed, [*seeds.values()][0])  # this seed's, or else the first's
                for name, part in agent.parts.items():
                    if name in saved and isinstance(part, nn.Module):  # the release's have some buffers more
                        part.load_state_dict(dict(part.named_buffers()) | {k: v for k, v in saved[name].items() if k in part.state_dict()})
                    elif name in saved and optimizers:
                        part.load_state_dict(saved[name] | {"param_groups": part.state_dict()["param_groups"]})
            found |= saved
    missing = {"actor", "critic" if agent.args.algo == "ql" else "actor"} - found.keys()
    require(not missing, f"{' '.join(paths)} has no {' and no '.join(missing)}: name both actor_N.pth and critic_N.pth")
    return found
def updates(agents, dataset, compiled=False, recorded=False):
    """Endlessly: a step of every agent, each on a batch of its own, then their metrics, {name: (agents,)}. recorded: a GPU takes longer to
    start an update's many small kernels than to run them, so after three plain steps the agents' `learn` is recorded as one CUDA
    graph, and started as a whole from then on; each agent's part is on a stream of its own, so that they overlap."""
    for agent in agents if compiled else ():
        agent.critic_loss, agent.policy_loss = torch.compile(agent.critic_loss), torch.compile(agent.policy_loss)
    streams, graph = [torch.cuda.Stream() if recorded else None for _ in agents], recorded and torch.cuda.CUDAGraph()
    def side_by_side(update):
        metrics, now = [], recorded and torch.cuda.current_stream()
        for agent, stream in zip(agents, streams):
            _ = recorded and stream.wait_stream(now)
            with torch.cuda.stream(stream):  # None: where we are
                metrics.append(update(agent, dataset.sample(agent.args.batch_size, agent.random)))
        _ = [now.wait_stream(stream) for stream in streams if recorded]
        return {name: torch.stack([own[name] for own in metrics]) for name in metrics[0]}
    for _ in range(3) if recorded else itertools.count():
        yield side_by_side(lambda agent, batch: agent.update(batch))
    for agent in agents:
        graph.register_generator_state(agent.random)
        step = vars(agent).pop("step")  # what depends on it cannot be recorded: this makes it fail
        for group in [group for part in agent.parts.values() for group in getattr(part, "param_groups", [])]:
            group["capturable"] = True  # Adam's
    with explain("cannot record this update as a CUDA graph ({}): add --compile off"), torch.cuda.graph(graph):
        metrics = side_by_side(lambda agent, batch: agent.learn(batch, agent.draw(len(batch.state))))
    for step in itertools.count(step):
        graph.replay()
        for agent in agents:
            agent.step = step
            agent.average_policy()
        yield metrics
def train(args, agent_class=DiffusionQL):
    """Trains as `args` say, evaluates, and keeps the run folder; returns what result.json holds. eval_only: scores weights.
    Raises UserError for what does not fit, FloatingPointError for a loss that is not finite, KeyboardInterrupt once all is saved."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    dataset = load_dataset(args.env, args.env_id)
    with explain(f"PyTorch finds no {device} here ({{}}): use --device cpu"):
        data = Batch(*(tensor.to(device) for tensor in dataset.transitions))
    require(len(data.state) >= args.batch_size, f"{args.env} has only {len(data.state)} transitions: give a smaller --batch-size")
    dataset.transitions = data._replace(reward=REWARD_TRANSFORMS[args.reward_tune](data.reward))
    agents, seeds, totals, recent, stop, stopping = [], args.seeds or [args.seed], {}, [], [], False
    for seed in seeds:  # each with random numbers of its own: its result does not depend on the others
        torch.manual_seed(seed)
        agents.append(agent := agent_class(dataset.state_dim, dataset.action_dim, dataclasses.replace(args, seed=seed), device))
        agent.random, agent.history = torch.Generator(device).manual_seed(2**32 - 1 - seed), []  # history: its evaluations
        if args.resume or args.init_from:
            saved = load_weights(agent, [f"{args.resume}/checkpoint.pt"] if args.resume else args.init_from, bool(args.resume))
        if args.resume:
            agent.step, agent.history, totals = saved["step"], saved["history"], saved["totals"]
            agent.random.set_state(saved["random"].cpu())
    _ = args.video and record_video(agents[0], dataset)  # a trial: better now than after the training
    if args.eval_only:
        scores = dataset.score(returns := np.concatenate([evaluate(agent, dataset, args.eval_episodes) for agent in agents]))
        print(f"{args.env}: score {scores.mean():.1f} ± {scores.std():.1f}, return {returns.mean():.1f}; {len(returns)} episodes of {dataset.env_id}")
        return record_video(agents[0], dataset, args.video) if args.video else {"score": scores.mean()}
    compiled = args.compile == "on" or args.compile == "auto" and shutil.which("g++") and (device == "cuda" or device == "cpu" and args.steps >= 100_000)
    with explain("torch.compile does not work here ({}): add --compile off"):
        _ = compiled and torch.compile(torch.sigmoid)(torch.ones(2, device=device))
    recorded = device == "cuda" and args.compile != "off" and agent_class.update is DiffusionQL.update
    folder = Path(args.resume or args.out or f"runs/{args.env.replace('/', '-').strip('.-')}/{'-'.join(map(str, seeds))}-{time.strftime('%Y%m%d-%H%M%S')}")
    with explain(f"cannot write to {folder} ({{}}): choose another folder with --out", OSError):
        folder.mkdir(parents=True, exist_ok=True)
        require(args.resume or not (folder / "config.json").exists(), f"{folder} already holds a run: --resume it, or choose another --out")
        write(folder / "config.json", json.dumps({**vars(args), "out": "", "resume": ""}, indent=2))
    with explain("--wandb needs its package: pip install wandb", ImportError):
        _ = args.wandb and importlib.import_module("wandb").init(project="diffusion-ql", name=str(folder), config=vars(args), dir=folder, sync_tensorboard=True)
    from torch.utils.tensorboard import SummaryWriter
    print(f"{args.env}: {len(data.state):,} transitions, state {dataset.state_dim}, action {dataset.action_dim}, evaluated in {dataset.env_id}, "
          f"on {device}, {'' if compiled else 'not '}compiled{', as a CUDA graph' * recorded}\n{' '.join(f'{k}={v}' for k, v in vars(args).items() if v not in ('', (), []))}\nrun folder: {folder}", flush=True)
    def checkpoint(name):
        seeds = {agent.args.seed: {**{name: part.state_dict() for name, part in agent.parts.items()}, "random": agent.random.get_state(),
                                   "history": agent.history} for agent in agents}
        write(folder / name, lambda partial: torch.save({"seeds": seeds, "step": agent.step, "totals": totals}, partial))
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):  # stop between two steps, with everything saved
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: stop.append(True)))
        rows, learning = average([agent.history for agent in agents]), updates(agents, dataset, compiled, recorded)
        board = stack.enter_context(SummaryWriter(folder, purge_step=agent.step + 1))
        bar = stack.enter_context(tqdm(total=args.steps, initial=agent.step, unit="step", mininterval=0.5 if sys.stderr.isatty() else 30))
        while not (stopping or agent.step >= args.steps):
            metrics = next(learning)
            totals = {name: totals.get(name, 0) + (value if device == "mps" else value.double()) for name, value in metrics.items()}  # each (seeds,)
            recent.append(torch.stack([*totals.values()]))
            bar.update()
            due, stopping = agent.step % args.eval_every == 0 or agent.step >= args.steps, bool(stop)
            if device == "cpu" or agent.step % 100 == 0 or due or stopping:  # reading a number waits for the GPU
                broken, recent = int((~torch.stack(recent).isfinite()).flatten(1).any(1).sum()), []  # steps since the first that is not finite
                if broken:
                    raise FloatingPointError(f"a loss is not finite at step {agent.step - broken + 1}: try a lower --lr, --eta or --grad-norm.\n"
                                             f"The last good checkpoint.pt, if any, is intact in {folder}")
                last = {name: value.mean().item() for name, value in metrics.items()}
                bar.set_postfix({**last, **({"score": rows[-1]["score"]} if rows else {})}, refresh=False)
                for name, value in last.items() if agent.step % 100 == 0 else ():
                    board.add_scalar(f"losses/{name}", value, agent.step)
            if due:
                steps = agent.step - (rows[-1]["step"] if rows else 0)
                for i, agent in enumerate(agents):
                    scores = dataset.score(returns := evaluate(agent, dataset, args.eval_episodes))
                    agent.history.append({"step": agent.step, "score": scores.mean().item(), "score_std": scores.std().item(), "return":
                                          returns.mean().item(), **{name: total[i].item() / steps for name, total in totals.items()}})
                totals, rows = {}, average([agent.history for agent in agents])
                if select(rows, args.top_k)["online"] is rows[-1]:
                    checkpoint("best.pt")
                checkpoint("checkpoint.pt")
                report(folder, args, rows, board)
                stopping |= args.early_stop and len(rows) > 1 and rows[-1]["bc_loss"] >= rows[-2]["bc_loss"]
            elif agent.step % 5000 == 0:
                checkpoint("checkpoint.pt")
        checkpoint("checkpoint.pt")
    if stop and agent.step < args.steps:
        raise KeyboardInterrupt(f"Stopped at step {agent.step:,}; everything is saved. To go on:\npython diffusion_ql.py --resume {folder}")
    best = [{"final": agent.history[-1], **select(agent.history, args.top_k)} for agent in agents]
    means = {kind: average([[own[kind]] for own in best])[0] for kind in best[0]}
    result = {"env": args.env, "algo": args.algo, **({"seeds": dict(zip(map(str, seeds), best))} if args.seeds else {"seed": args.seed}), **means}
    write(folder / "result.json", json.dumps(result, indent=2))
    print("\n".join(f"{kind:8}score {row['score']:6.1f} ± {row['score_std']:.1f} at step {row['step']:,}" for kind, row in means.items()),
          f"run folder: {folder}", sep="\n")
    if args.env == "two-roads":
        importlib.import_module("toy_experiments.two_roads").plot([folder])
    return result if not args.video else record_video(agents[0], dataset, args.video) or result
def select(history, top_k):
    """The paper's model selections: *online* by the best score, *offline* by the (top_k + 1)-th smallest L_d."""
    return {"online": max(history, key=lambda row: row["score"]), "offline": sorted(history, key=lambda row: row["bc_loss"])[:top_k + 1][-1]}
def average(histories):
    """The evaluations of several seeds as one: means, and as score_std the spread of the seeds' scores instead of the episodes'."""
    return histories[0] if len(histories) == 1 else [
        {**{name: np.mean([row[name] for row in rows]).item() for name in rows[0]}, "step": round(np.mean([row["step"] for row in rows])),
         "score_std": np.std([row["score"] for row in rows]).item()} for rows in zip(*histories)]
def report(folder, args, history, board):
    """After each evaluation: a printed line, TensorBoard, progress.csv and curves.png."""
    from matplotlib.figure import Figure
    last, task, column = history[-1], PAPER_TASKS.get(paper_name(args.env)), lambda name: np.array([row[name] for row in history])
    tqdm.write(f"step {last['step']:>9,} | score {last['score']:6.1f} ± {last['score_std']:4.1f} | " + " | ".join(
        f"{name} {value:.4g}" for name, value in list(last.items())[3:]), file=sys.stdout)
    board.add_scalar("charts/score", last["score"], last["step"])
    write(folder / "progress.csv", "".join(",".join(map(str, line)) + "\n" for line in [last, *(row.values() for row in history)]))
    names = [name for name in last if name not in ("step", "score_std", "return", "actor_loss")]
    figure, step = Figure(figsize=(2.8 * len(names), 3.2), layout="constrained"), column("step") / 1000
    for axis, name in zip(axes := figure.subplots(1, len(names)), names):
        axis.plot(step, column(name), marker=".")
        axis.set(title=f"{args.env}\n{name}" if axis is axes[0] else name, xlabel="thousand gradient steps")
    axes[0].fill_between(step, column("score") - column("score_std"), column("score") + column("score_std"), alpha=0.2,
                         label=f"± std over {'seeds' if args.seeds else 'episodes'}")
    if task:
        axes[0].axhline(task.paper_score, color="black", ls="--", label=f"paper: {task.paper_score} after {task.steps:,} steps")
    axes[0].legend(fontsize=8)
    write(folder / "curves.png", lambda partial: figure.savefig(partial, format="png", dpi=120))

# ---- Command line ----------------------------------------------------------------------------------------------------
def parse_args(argv=None):
    """The Args of a command line. Raises UserError for what makes no sense."""
    parser = argparse.ArgumentParser(usage="python diffusion_ql.py [options]", description=__doc__.splitlines()[0], allow_abbrev=False, argument_default=
                                     argparse.SUPPRESS, formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=120))
    parser.error = lambda message: require(False, f"{message}. All options: python diffusion_ql.py --help")
    for field in dataclasses.fields(Args):
        kind, choices, line, default = field.type, get_args(field.type), field.metadata["help"], field.default
        group = parser.add_argument_group(field.metadata["group"]) if field.metadata["group"] else group
        how = {bool: {"action": argparse.BooleanOptionalAction}, str: {"metavar": "NAME"}, tuple: {"nargs": "+", "metavar": "PATH"},
               list: {"nargs": "+", "type": int, "metavar": "N"}, int: {"type": int, "metavar": "N"}, float: {"type": float, "metavar": "X"}}
        line += "" if "(default" in line or default in ("", ()) else f" (default: {default})"
        group.add_argument("--" + field.name.replace("_", "-"), help=line, **how.get(kind, {"choices": choices}))
    given = vars(parser.parse_args(argv))
    require(given.keys() & {"resume", "init_from"} or "eval_only" not in given, "--eval-only needs weights: add --resume or --init-from")
    if "resume" not in given:
        return Args.for_env(given.pop("env", Args.env), **given)
    with explain(f"{given['resume']} is no run folder, or its config.json is damaged ({{}}): name another, or start a new run"):
        saved, free = json.loads(Path(given["resume"], "config.json").read_text()), "resume steps device compile eval_episodes eval_only video wandb"
        changed = [f"--{name.replace('_', '-')} {saved[name]}" for name in given.keys() - free.split() if given[name] != saved[name]]
        require(not changed, f"{given['resume']} was begun with {' '.join(changed)}: leave that option away, or start a new run")
        return Args(**{**saved, **given})
def main():
    try:
        train(parse_args())
    except (UserError, OSError, FloatingPointError, KeyboardInterrupt) as error:
        print(error if isinstance(error, KeyboardInterrupt) else f"error: {error}", file=sys.stderr)
        sys.exit({UserError: 2, KeyboardInterrupt: 130}.get(type(error), 1))

if __name__ == "__main__":
    sys.modules["diffusion_ql"] = sys.modules["__main__"]  # for toy_experiments/, which import it
    main()
