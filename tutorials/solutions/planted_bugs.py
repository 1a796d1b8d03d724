"""The three forks of notebook 6, each with one mistake. It spoils the search to read on."""

import torch

from diffusion_ql import DiffusionQL, load_dataset, move_average


class ForkA(DiffusionQL):
    """A fork that normalises the states."""

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        states = load_dataset(args.env).transitions.state
        self.register_buffer("mean", states.mean(dim=0))
        self.register_buffer("std", states.std(dim=0) + 1e-3)

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
    """A fork that writes `update` out, to log more."""

    def update(self, batch):
        self.critic.requires_grad_(True)
        loss, values = self.critic_loss(batch)
        metrics = self.descend(loss, values, self.critic)

        loss, values = self.policy_loss(batch)
        metrics.update(self.descend(loss, values, self.actor))

        move_average(self.critic_target, self.critic, self.args.tau)
        if self.step >= self.args.ema_start and self.step % self.args.ema_every == 0:
            move_average(self.ema_actor, self.actor, 1 - self.args.ema_decay)
        self.step += 1
        return metrics


class ForkC(DiffusionQL):
    """A fork for data that stores `done` where Batch has `not_done`."""

    def critic_loss(self, batch):
        return super().critic_loss(batch._replace(not_done=1 - batch.not_done))
