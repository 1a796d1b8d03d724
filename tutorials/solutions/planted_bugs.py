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


class ForkB(DiffusionQL):
    """A fork that draws the policy's actions once, for all parts of its loss."""

    def policy_loss(self, batch):
        with torch.no_grad():
            action = self.actor.sample(batch.state)
        bc_loss = self.actor.loss(batch.action, batch.state)
        ql_loss, q = self.q_loss(batch.state, action)
        loss = bc_loss + self.args.eta * ql_loss
        return loss, {"bc_loss": bc_loss, "ql_loss": ql_loss, "actor_loss": loss, "q_policy": q}


class ForkC(DiffusionQL):
    """A fork that writes the critics' loss out, to change the target later."""

    def critic_loss(self, batch):
        with torch.no_grad():
            next_action = self.ema_actor.sample(batch.next_state)
            next_q = torch.minimum(*self.critic(batch.next_state, next_action))
            target = batch.reward + self.args.discount * batch.not_done * next_q
        return self.regress(batch, target)
