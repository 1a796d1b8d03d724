"""Three forks of Diffusion-QL: EDP, FQL and IDQL. Notebook 5 explains them.

Each overrides a few methods of DiffusionQL and trains by diffusion_ql.train or sweep.sweep:

    train(Args.for_env("two-roads"), agent_class=EDP)
    train(Args.for_env("two-roads"), agent_class=partial(FQL, alpha=3.0))

A knob that Diffusion-QL has is one of Args (EDP: eta); another is an argument of the class.
"""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

from diffusion_ql import DiffusionQL, mlp


class EDP(DiffusionQL):
    """Efficient Diffusion Policies (Kang 2023): Q judges a one-step guess of the clean action."""

    def policy_loss(self, batch):
        # --- L_d, as in Diffusion-QL ---
        t = torch.randint(self.args.n_timesteps, (len(batch.action),))
        noise = torch.randn_like(batch.action)
        x = self.actor.q_sample(batch.action, t, noise)
        predicted = self.actor.model(x, t, batch.state)
        bc_loss = F.mse_loss(predicted, noise)

        # --- L_q: of the clean action that the predicted noise implies; no chain is walked ---
        guess = self.actor.predict_start_from_noise(x, t, predicted).clamp(-1, 1)
        q1, q2 = self.critic(batch.state, guess)
        coin = torch.rand(()) > 0.5
        q = torch.where(coin, q1, q2)
        ql_loss = -q.mean() / q.abs().mean().detach()

        loss = bc_loss + self.args.eta * ql_loss
        return loss, {"bc_loss": bc_loss, "ql_loss": ql_loss, "actor_loss": loss}


class FlowPolicy(nn.Module):
    """FQL's two policies: a flow that clones the data, and a one-step policy, which acts."""

    def __init__(self, state_dim, action_dim, hidden_dim, flow_steps=10):
        super().__init__()
        self.action_dim = action_dim
        self.flow_steps = flow_steps
        widths = [hidden_dim, hidden_dim, hidden_dim]
        self.flow = mlp(action_dim + 1 + state_dim, *widths)
        self.flow.append(nn.Linear(hidden_dim, action_dim))
        self.one_step = mlp(action_dim + state_dim, *widths)
        self.one_step.append(nn.Linear(hidden_dim, action_dim))

    def velocity(self, x, t, state):
        """x (B, action_dim), t (B, 1) in [0, 1], state (B, state_dim) → velocity like x."""
        return self.flow(torch.cat([x, t, state], dim=-1))

    def loss(self, action, state):
        """Flow matching: the velocity on the straight way from noise to an action of the data."""
        start = torch.randn_like(action)
        t = torch.rand(len(action), 1)
        x = (1 - t) * start + t * action
        return F.mse_loss(self.velocity(x, t, state), action - start)

    @torch.no_grad()
    def follow(self, noise, state):
        """Where the flow takes noise (B, action_dim), in Euler steps: the clone's actions."""
        x = noise
        for k in range(self.flow_steps):
            t = torch.full((len(x), 1), k / self.flow_steps)
            x = x + self.velocity(x, t, state) / self.flow_steps
        return x.clamp(-1, 1)

    def jump(self, noise, state):
        """Noise → action in one step. Not clipped yet."""
        return self.one_step(torch.cat([noise, state], dim=-1))

    def sample(self, state):
        """Actions (B, action_dim) for states (B, state_dim)."""
        noise = torch.randn(len(state), self.action_dim)
        return self.jump(noise, state).clamp(-1, 1)


class FQL(DiffusionQL):
    """Flow Q-learning (Park 2025). alpha: weight of the distillation, its knob.

    As in its code: Q is not normalised, and both critics count by their mean; the next action
    comes from the one-step policy itself, not from an average of it.
    """

    def __init__(self, state_dim, action_dim, args, alpha=10.0):
        super().__init__(state_dim, action_dim, args)
        self.alpha = alpha
        self.actor = FlowPolicy(state_dim, action_dim, args.hidden_dim)
        self.ema_actor = copy.deepcopy(self.actor).requires_grad_(False)  # not used
        self.optimizer = torch.optim.Adam(self.actor.parameters(), args.lr, fused=True)
        self.optimizer.add_param_group({"params": self.critic.parameters(), "lr": args.critic_lr})

    def critic_loss(self, batch):
        with torch.no_grad():
            next_action = self.actor.sample(batch.next_state)
            q1, q2 = self.critic_target(batch.next_state, next_action)
            target = batch.reward + self.args.discount * batch.not_done * (q1 + q2) / 2
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        return loss, {"critic_loss": loss, "q": q1.mean()}

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)

        # --- The one-step policy: end where the flow ends, and climb Q ---
        noise = torch.randn_like(batch.action)
        action = self.actor.jump(noise, batch.state)
        distill_loss = F.mse_loss(action, self.actor.follow(noise, batch.state))
        q1, q2 = self.critic(batch.state, action.clamp(-1, 1))
        q = (q1 + q2).mean() / 2

        loss = bc_loss + self.alpha * distill_loss - q
        return loss, {"bc_loss": bc_loss, "distill_loss": distill_loss, "actor_loss": loss}

    @torch.no_grad()
    def act(self, states):
        return self.actor.sample(states)


class IDQL(DiffusionQL):
    """Implicit diffusion Q-learning (Hansen-Estruch 2023). expectile: its knob.

    The critics are those of IQL, the policy only clones, and the best candidate is played.
    """

    def __init__(self, state_dim, action_dim, args, expectile=0.7):
        super().__init__(state_dim, action_dim, args)
        self.expectile = expectile
        width = args.hidden_dim
        self.value = mlp(state_dim, width, width, width).append(nn.Linear(width, 1))
        self.optimizer.add_param_group({"params": self.value.parameters(), "lr": args.critic_lr})

    def critic_loss(self, batch):
        # --- V(s): an expectile of Q(s, a) over the data's own actions ---
        with torch.no_grad():
            q = torch.minimum(*self.critic_target(batch.state, batch.action))
            next_value = self.value(batch.next_state)
        error = q - self.value(batch.state)
        weight = torch.where(error > 0, self.expectile, 1 - self.expectile)
        value_loss = (weight * error.square()).mean()

        # --- Q(s, a): regress on r + gamma V(s'). The policy is never asked ---
        target = batch.reward + self.args.discount * batch.not_done * next_value
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        metrics = {"critic_loss": loss, "value_loss": value_loss, "q": q1.mean()}
        return loss + value_loss, metrics

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        return bc_loss, {"bc_loss": bc_loss}

    @torch.no_grad()
    def act(self, states):
        return choose(self, states, "best of 50")


# ---- Acting --------------------------------------------------------------------------------------
RULES = ["a sample", "softmax of 50", "best of 50"]


@torch.no_grad()
def choose(agent, states, rule):
    """Actions (B, action_dim) for states (B, state_dim), by one of the RULES of acting."""
    if rule == "a sample":
        return agent.actor.sample(states)
    actions, q = agent.propose(states)  # (B, 50, action_dim), (B, 50)
    if rule == "softmax of 50":
        chosen = torch.multinomial(q.softmax(dim=-1), 1)[:, 0]
    else:
        chosen = q.argmax(dim=-1)
    return actions[torch.arange(len(states)), chosen]


class Player:
    """An agent that acts by another rule than its own."""

    def __init__(self, agent, rule):
        self.agent = agent
        self.rule = rule

    def act(self, states):
        return choose(self.agent, states, self.rule)
