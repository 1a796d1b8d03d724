"""The path that a GPU takes, tested where there is none: an imitation plays the CUDA graph, PyTorch's "meta" the other device."""

import contextlib
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_ql import Args, Batch, Dataset, DiffusionQL, UserError, updates

STATE_DIM, ACTION_DIM = 3, 2


class Stream:
    """Knows which streams' work it comes after."""

    def __init__(self):
        self.after = set()

    def wait_stream(self, other):
        self.after |= {other, *other.after}


class Imitation(TorchDispatchMode):
    """A CUDA graph on the CPU. While recording it notes every operation with its tensors, and afterwards puts their contents back, for a
    recording runs nothing. A replay does the same operations on the same memory; no line of Python is run again."""

    now = Stream()  # the stream that is current

    def __init__(self):
        super().__init__()
        self.operations, self.generators, self.before = [], [], []

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        state = (
            kwargs["generator"].get_state() if kwargs.get("generator") else None
        )  # a generator arrives as another Python object
        if state is not None and not any(
            torch.equal(state, known.get_state()) for known in self.generators
        ):
            raise RuntimeError("a generator that is not registered")
        written = [
            value
            for argument, value in zip(function._schema.arguments, args)
            if argument.alias_info and argument.alias_info.is_write
        ]
        for value in written:
            self.before += [
                (tensor, tensor.clone())
                for tensor in (value if isinstance(value, (list, tuple)) else [value])
            ]
        out = function(*args, **kwargs)
        if function.namespace == "aten" and (
            written or not any(result.alias_info for result in function._schema.returns)
        ):  # a view stays one
            self.operations.append(
                (function, args, kwargs, None if written else out, Imitation.now)
            )
        return out

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, out, _ in self.operations:
                new = function(*args, **kwargs)
                for old, value in zip(
                    *((out, new) if isinstance(out, (list, tuple)) else ([out], [new]))
                ):
                    _ = old is None or old.copy_(value)


@contextlib.contextmanager
def on_stream(stream):
    before, Imitation.now = Imitation.now, stream or Imitation.now
    yield
    Imitation.now = before


@contextlib.contextmanager
def recording(graph):
    states, stream = [generator.get_state() for generator in graph.generators], Stream()
    with on_stream(stream), graph:
        yield
    assert all(own is stream or own in stream.after for *_, own in graph.operations), (
        "a stream was not joined"
    )
    assert all(own is stream or stream in own.after for *_, own in graph.operations), (
        "a stream was not forked"
    )
    with torch.no_grad():
        for tensor, content in reversed(graph.before):
            tensor.copy_(content)
    for generator, state in zip(graph.generators, states):
        generator.set_state(state)


@pytest.fixture
def imitated(monkeypatch):
    for name, fake in dict(
        Stream=Stream,
        stream=on_stream,
        current_stream=lambda: Imitation.now,
        CUDAGraph=Imitation,
        graph=recording,
    ).items():
        monkeypatch.setattr(torch.cuda, name, fake)


class Data(Dataset):
    def __init__(self, device="cpu"):
        torch.manual_seed(0)
        self.transitions = Batch(
            *(
                torch.rand(100, width, device=device)
                for width in (STATE_DIM, ACTION_DIM, STATE_DIM, 1, 1)
            )
        )


def make_agents(kind=DiffusionQL, **settings):
    agents = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        args = Args(
            seed=seed,
            hidden_dim=16,
            batch_size=8,
            n_timesteps=3,
            ema_start=2,
            ema_every=3,
            lr=1e-2,
            **settings,
        )
        agents.append(kind(STATE_DIM, ACTION_DIM, args))
        agents[-1].random = torch.Generator().manual_seed(seed)
    return agents


@pytest.mark.parametrize("settings", [{}, {"max_q_backup": True, "grad_norm": 0}, {"algo": "bc"}])
def test_a_replayed_update_is_the_plain_one(settings, imitated):
    plain, recorded = make_agents(**settings), make_agents(**settings)
    steps = zip(updates(plain, Data()), updates(recorded, Data(), recorded=True))
    for step, (want, got) in enumerate(
        itertools.islice(steps, 15), start=1
    ):  # from the fourth on, replays
        assert want.keys() == got.keys() and all(
            torch.equal(got[name], want[name]) for name in want
        ), step
        for a, b in zip(plain, recorded):
            assert a.step == b.step == step and torch.equal(
                a.random.get_state(), b.random.get_state()
            )
            for part in ("actor", "ema_actor", "critic", "critic_target"):
                for name, tensor in a.parts[part].state_dict().items():
                    assert torch.equal(b.parts[part].state_dict()[name], tensor), (step, part, name)
    for optimizer in (recorded[0].actor_optimizer, recorded[0].critic_optimizer):
        assert optimizer.param_groups[0][
            "capturable"
        ]  # without it PyTorch refuses to record Adam's step


def read_back(agent, loss):
    return loss * (2 if loss.item() > 0 else 1)


def by_step(agent, loss):
    return loss * min(1, agent.step / 1000)


def stray_generator(agent, loss):
    return loss * torch.rand((), generator=torch.Generator())


@pytest.mark.parametrize("change", [read_back, by_step, stray_generator])
def test_what_cannot_be_recorded_says_so(change, imitated):
    class Fork(DiffusionQL):
        def policy_loss(self, batch, draws):
            loss, metrics = super().policy_loss(batch, draws)
            return change(self, loss), metrics

    steps = updates(make_agents(Fork), Data(), recorded=True)
    assert len(list(itertools.islice(steps, 3))) == 3
    with pytest.raises(UserError, match="--compile off"):
        next(steps)


@pytest.mark.parametrize("settings", [{}, {"max_q_backup": True}, {"algo": "bc"}])
def test_everything_is_on_one_device(settings, monkeypatch):
    monkeypatch.setattr(
        torch.optim, "Adam", lambda parameters, lr, fused: torch.optim.SGD(parameters, lr)
    )  # not fused on this device
    agent, data = (
        DiffusionQL(STATE_DIM, ACTION_DIM, Args(hidden_dim=16, **settings), "meta"),
        Data("meta"),
    )
    for _ in range(2):
        metrics = agent.update(data.sample(8))
    assert all(value.device.type == "meta" for value in metrics.values())
    assert agent.act(data.transitions.state[:4]).device.type == "meta"
