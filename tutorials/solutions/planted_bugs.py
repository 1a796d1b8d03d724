"""The three forks of lesson 7, each with one mistake. It spoils the search to read on."""

import torch

from diffusion_ql import DiffusionQL


class ForkA(DiffusionQL):
    """A fork that normalises the states."""

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.register_buffer("mean", torch.zeros(state_dim))
        self.register_buffer("std", torch.ones(state_dim))

    def prepare(self, data):
        self.mean.copy_(data.state.mean(dim=0))
        self.std.copy_(data.state.std(dim=0) + 1e-3)

    def update(self, batch):
        state = (batch.state - self.mean) / self.std
        next_state = (batch.next_state - self.mean) / self.std
        return super().update(batch._replace(state=state, next_state=next_state))


class RepairedA(ForkA):
    """`act` normalises the states, too."""

    @torch.no_grad()
    def act(self, states):
        return super().act((states - self.mean) / self.std)


class ForkB(DiffusionQL):
    """A fork with one optimizer for all networks. It writes `update` out to use it."""

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        groups = [
            {"params": list(self.actor.parameters()), "lr": args.lr},
            {"params": list(self.critic.parameters()), "lr": args.critic_lr},
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)

    def update(self, batch):
        loss, critic_metrics = self.critic_loss(batch)
        self.descend(loss, self.optimizer)

        loss, policy_metrics = self.policy_loss(batch)
        self.descend(loss, self.optimizer)

        self.move_averages()
        self.step += 1
        return {**critic_metrics, **policy_metrics}


class ForkC(DiffusionQL):
    """A fork for data that stores `done` where Batch has `not_done`."""

    def critic_loss(self, batch):
        return super().critic_loss(batch._replace(not_done=1 - batch.not_done))
