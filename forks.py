"""Other methods, each as a fork of Diffusion-QL: a few lines that run on every task.

    python forks.py BCGaussian --env two-roads      # any option of diffusion_ql.py, and its own
    python forks.py EDP --env walker2d-medium-expert --eta 0.5
    python diffusion_ql.py --evaluate RUN           # also for runs of a fork; --resume, too

A fork is a subclass of DiffusionQL. It overrides the policy (make_policy), a loss, `update`, or how
it acts (`act`), and its knob is a field of its Args. Data, loop, evaluation and run folder are
those of diffusion_ql.py. METHODS, at the end, lists them all.
"""

import sys
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

import diffusion_ql
from diffusion_ql import Args, DiffusionQL, mlp


# ---- Policies: loss(action, state) → how badly it clones; sample(state) → actions ----------------
class GaussianPolicy(nn.Module):
    """A Gaussian whose mean and standard deviations a network gives; cloned by its likelihood."""

    def __init__(self, state_dim, action_dim, hidden_dim):
        super().__init__()
        self.network = mlp(state_dim, hidden_dim, hidden_dim, hidden_dim)
        self.network.append(nn.Linear(hidden_dim, 2 * action_dim))

    def distribution(self, state):
        """state (B, state_dim) → Normal of shape (B, action_dim)."""
        mean, log_std = self.network(state).chunk(2, dim=-1)
        return torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())

    def log_likelihood(self, action, state):
        """(B,)"""
        return self.distribution(state).log_prob(action).sum(dim=-1)

    def loss(self, action, state):
        return -self.log_likelihood(action, state).mean()

    def sample(self, state):
        return self.distribution(state).rsample().clamp(-1, 1)


class MixturePolicy(nn.Module):
    """A mixture of Gaussians (a mixture density network: Bishop 1994)."""

    def __init__(self, state_dim, action_dim, hidden_dim, components):
        super().__init__()
        self.components = components
        self.action_dim = action_dim
        self.network = mlp(state_dim, hidden_dim, hidden_dim, hidden_dim)
        self.network.append(nn.Linear(hidden_dim, components * (1 + 2 * action_dim)))

    def distribution(self, state):
        """state (B, state_dim) → a MixtureSameFamily of shape (B, action_dim)."""
        sizes = [self.components, self.components * self.action_dim]
        logits, mean, log_std = self.network(state).split([sizes[0], sizes[1], sizes[1]], dim=-1)
        shape = (len(state), self.components, self.action_dim)
        std = log_std.view(shape).clamp(-5, 2).exp()
        normal = torch.distributions.Normal(mean.view(shape), std)
        weights = torch.distributions.Categorical(logits=logits)
        components = torch.distributions.Independent(normal, 1)
        return torch.distributions.MixtureSameFamily(weights, components)

    def loss(self, action, state):
        return -self.distribution(state).log_prob(action).mean()

    def sample(self, state):
        return self.distribution(state).sample().clamp(-1, 1)


class CVAEPolicy(nn.Module):
    """The conditional variational autoencoder of BCQ (Fujimoto 2019, appendix)."""

    def __init__(self, state_dim, action_dim, hidden_dim, args):
        super().__init__()
        self.latent_dim = args.latent_dim or 2 * action_dim
        self.kl_weight = args.kl_weight
        self.latent_clip = args.latent_clip
        self.encoder = mlp(state_dim + action_dim, hidden_dim, hidden_dim)
        self.encoder.append(nn.Linear(hidden_dim, 2 * self.latent_dim))
        self.decoder = mlp(state_dim + self.latent_dim, hidden_dim, hidden_dim)
        self.decoder.append(nn.Linear(hidden_dim, action_dim)).append(nn.Tanh())

    def decode(self, latent, state):
        """latent (B, latent_dim), state (B, state_dim) → actions (B, action_dim)."""
        return self.decoder(torch.cat([state, latent], dim=-1))

    def loss(self, action, state):
        mean, log_std = self.encoder(torch.cat([state, action], dim=-1)).chunk(2, dim=-1)
        log_std = log_std.clamp(-4, 15)
        latent = mean + log_std.exp() * torch.randn_like(mean)
        reconstruction = F.mse_loss(self.decode(latent, state), action)
        kl = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean()
        return reconstruction + self.kl_weight * kl

    def sample(self, state):
        latent = torch.randn(len(state), self.latent_dim, device=state.device)
        return self.decode(latent.clamp(-self.latent_clip, self.latent_clip), state)


class MMDPolicy(GaussianPolicy):
    """A tanh-Gaussian matched to the samples of a CVAE, which is trained beside it (BEAR).

    MMD: the maximum mean discrepancy of two sets of samples, by a Laplacian kernel.
    """

    samples = 10  # of each policy in a state

    def __init__(self, state_dim, action_dim, hidden_dim, args):
        super().__init__(state_dim, action_dim, hidden_dim)
        self.sigma = args.sigma  # width of the kernel
        self.cvae = CVAEPolicy(state_dim, action_dim, hidden_dim, args)

    def sample(self, state):
        return self.distribution(state).rsample().tanh()

    def kernel(self, x, y):
        """The mean over pairs of samples x and y (B, samples, action_dim) → (B,)."""
        distance = (x[:, :, None] - y[:, None]).abs().sum(dim=-1)
        return (-distance / (2 * self.sigma)).exp().mean(dim=(1, 2))

    def discrepancy(self, state):
        """The mean MMD between this policy and the CVAE. Its gradient moves this policy alone."""
        repeated = state[:100].repeat_interleave(self.samples, dim=0)  # more states only cost time
        shape = (-1, self.samples, self.cvae.decoder[-2].out_features)
        ours = self.sample(repeated).view(shape)
        with torch.no_grad():
            theirs = self.cvae.sample(repeated).view(shape)
        squared = self.kernel(ours, ours) + self.kernel(theirs, theirs)
        squared = squared - 2 * self.kernel(ours, theirs)
        return (squared + 1e-6).sqrt().mean()

    def loss(self, action, state):
        return self.cvae.loss(action, state) + self.discrepancy(state)


class DeterministicPolicy(nn.Module):
    """One action for each state, cloned by the squared error."""

    def __init__(self, state_dim, action_dim, hidden_dim):
        super().__init__()
        self.network = mlp(state_dim, hidden_dim, hidden_dim, hidden_dim)
        self.network.append(nn.Linear(hidden_dim, action_dim)).append(nn.Tanh())

    def loss(self, action, state):
        return F.mse_loss(self.sample(state), action)

    def sample(self, state):
        return self.network(state)


# ---- Behavior cloning ----------------------------------------------------------------------------
class BCDiffusion(DiffusionQL):
    """Diffusion cloning (the paper's BC-diffusion): Diffusion-QL without a Q."""

    def update(self, batch):
        loss, metrics = self.policy_loss(batch)
        self.descend(loss, self.actor_optimizer)
        self.move_averages()
        self.step += 1
        return metrics

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        return bc_loss, {"bc_loss": bc_loss}

    @torch.no_grad()
    def act(self, states):
        return self.acting_policy().sample(states)


class BCGaussian(BCDiffusion):
    """Cloning by a Gaussian (the paper's BC-MLE)."""

    def make_policy(self, state_dim, action_dim):
        return GaussianPolicy(state_dim, action_dim, self.args.hidden_dim)


@dataclass
class MixtureArgs(Args):
    components: int = 8  # Gaussians in the mixture


class BCMixture(BCDiffusion):
    """Cloning by a mixture of Gaussians: diffusion's honest rival in few dimensions."""

    Args = MixtureArgs

    def make_policy(self, state_dim, action_dim):
        return MixturePolicy(state_dim, action_dim, self.args.hidden_dim, self.args.components)


@dataclass
class CVAEArgs(Args):
    latent_dim: int = 0  # (0: twice as many as the action has)
    kl_weight: float = 0.5  # weight of the KL term
    latent_clip: float = 0.5  # bound of the latent when sampling


class BCCVAE(BCDiffusion):
    """Cloning by BCQ's CVAE (the paper's BC-CVAE)."""

    Args = CVAEArgs

    def make_policy(self, state_dim, action_dim):
        return CVAEPolicy(state_dim, action_dim, self.args.hidden_dim, self.args)


@dataclass
class MMDArgs(CVAEArgs):
    sigma: float = 20.0  # width of the kernel


class BCMMD(BCDiffusion):
    """Cloning by BEAR's MMD (the paper's BC-MMD)."""

    Args = MMDArgs

    def make_policy(self, state_dim, action_dim):
        return MMDPolicy(state_dim, action_dim, self.args.hidden_dim, self.args)


# ---- Other policies, climbed by the gradient of Q ------------------------------------------------
class GaussianQL(DiffusionQL):
    """Diffusion-QL with a Gaussian for its policy: what does the diffusion bring?"""

    def make_policy(self, state_dim, action_dim):
        return GaussianPolicy(state_dim, action_dim, self.args.hidden_dim)


@dataclass
class TD3BCArgs(Args):
    alpha: float = 2.5  # weight of Q, against the squared error


class TD3BC(DiffusionQL):
    """TD3+BC (Fujimoto & Gu 2021): a deterministic policy, cloned and climbed.

    Left out: noise on the next action, policy updates at every second step only, and the
    normalisation of states. Q's scale is, as in Diffusion-QL, that of the other critic.
    """

    Args = TD3BCArgs

    def make_policy(self, state_dim, action_dim):
        return DeterministicPolicy(state_dim, action_dim, self.args.hidden_dim)

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        ql_loss, q = self.q_loss(batch.state, self.actor.sample(batch.state))
        loss = bc_loss + self.args.alpha * ql_loss
        return loss, {"bc_loss": bc_loss, "ql_loss": ql_loss, "actor_loss": loss, "q_policy": q}

    act = BCDiffusion.act  # a sample of the policy


class EDP(DiffusionQL):
    """Efficient Diffusion Policies (Kang 2023): Q judges a guess of the clean action, made in one
    step from a noisy one of the data, so that no chain is walked. Its knob is eta.

    Left out: the policy's faster sampler (DPM-Solver), and its other ways to use Q.
    """

    def policy_loss(self, batch):
        t = torch.randint(self.args.n_timesteps, (len(batch.action),), device=batch.action.device)
        noise = torch.randn_like(batch.action)
        x = self.actor.q_sample(batch.action, t, noise)
        predicted = self.actor.model(x, t, batch.state)
        bc_loss = F.mse_loss(predicted, noise)
        guess = self.actor.predict_start_from_noise(x, t, predicted).clamp(-1, 1)
        ql_loss, q = self.q_loss(batch.state, guess)
        loss = bc_loss + self.args.eta * ql_loss
        return loss, {"bc_loss": bc_loss, "ql_loss": ql_loss, "actor_loss": loss, "q_policy": q}


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
        t = torch.rand(len(action), 1, device=action.device)
        x = (1 - t) * start + t * action
        return F.mse_loss(self.velocity(x, t, state), action - start)

    @torch.no_grad()
    def follow(self, noise, state):
        """Where the flow takes noise (B, action_dim), in Euler steps: the clone's actions."""
        x = noise
        for k in range(self.flow_steps):
            t = torch.full((len(x), 1), k / self.flow_steps, device=x.device)
            x = x + self.velocity(x, t, state) / self.flow_steps
        return x.clamp(-1, 1)

    def jump(self, noise, state):
        """Noise → action in one step. Not clipped yet."""
        return self.one_step(torch.cat([noise, state], dim=-1))

    def sample(self, state):
        noise = torch.randn(len(state), self.action_dim, device=state.device)
        return self.jump(noise, state).clamp(-1, 1)


@dataclass
class FQLArgs(Args):
    alpha: float = 1.0  # weight of the distillation; its authors try 0.03, 0.1, 0.3, 1, 3 and 10


class FQL(DiffusionQL):
    """Flow Q-learning (Park, Li & Levine 2025): a flow clones, and a one-step policy, which acts,
    is held close to it and climbs Q. Q is normalised (normalize_q_loss in its code).

    As there, both critics count by their mean, and next actions come from the one-step policy.
    """

    Args = FQLArgs

    def make_policy(self, state_dim, action_dim):
        return FlowPolicy(state_dim, action_dim, self.args.hidden_dim)

    def critic_loss(self, batch):
        with torch.no_grad():
            next_action = self.actor.sample(batch.next_state)
            q1, q2 = self.critic_target(batch.next_state, next_action)
            target = batch.reward + self.args.discount * batch.not_done * (q1 + q2) / 2
        return self.regress(batch, target)

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        noise = torch.randn_like(batch.action)
        action = self.actor.jump(noise, batch.state)
        distill_loss = F.mse_loss(action, self.actor.follow(noise, batch.state))
        q1, q2 = self.critic(batch.state, action.clamp(-1, 1))
        q = (q1 + q2) / 2
        loss = bc_loss + self.args.alpha * distill_loss - q.mean() / q.abs().mean().detach()
        return loss, {"bc_loss": bc_loss, "distill_loss": distill_loss, "actor_loss": loss}

    act = BCDiffusion.act  # a sample of the policy


# ---- Actions chosen by Q, or weighted by it: no gradient of Q ------------------------------------
@torch.no_grad()
def best_of(agent, states):
    """The candidate with the highest Q (B, action_dim), for states (B, state_dim)."""
    actions, q = agent.propose(states)
    return actions[torch.arange(len(states)), q.argmax(dim=-1)]


def add_value(agent, state_dim):
    """Gives an agent V(s), trained together with its critics: a third network in three lines."""
    widths = [state_dim, agent.args.hidden_dim, agent.args.hidden_dim, agent.args.hidden_dim]
    agent.value = mlp(*widths).append(nn.Linear(agent.args.hidden_dim, 1))
    agent.critic_optimizer.add_param_group({"params": list(agent.value.parameters())})


@dataclass
class IDQLArgs(Args):
    candidates: int = 64  # the best of these is played; its authors try 16, 64 and 256
    expectile: float = 0.7  # of V: 0.5 is the mean over the data's actions, 1 their best
    reward_scale: float = 1.0  # its authors scale locomotion's returns to a range of 1000


class IDQL(BCDiffusion):
    """Implicit diffusion Q-learning (Hansen-Estruch 2023): IQL's critics (Kostrikov 2022), a policy
    that only clones, and the best of its candidates is played."""

    Args = IDQLArgs

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        add_value(self, state_dim)

    update = DiffusionQL.update

    def critic_loss(self, batch):
        # --- V(s): an expectile of Q(s, a) over the data's own actions ---
        with torch.no_grad():
            q = torch.minimum(*self.critic_target(batch.state, batch.action))
            next_value = self.value(batch.next_state)
        error = q - self.value(batch.state)
        weight = torch.where(error > 0, self.args.expectile, 1 - self.args.expectile)
        value_loss = (weight * error.square()).mean()

        # --- Q(s, a): regress on r + gamma V(s'). The policy is never asked ---
        reward = self.args.reward_scale * batch.reward
        target = reward + self.args.discount * batch.not_done * next_value
        loss, metrics = self.regress(batch, target)
        return loss + value_loss, {**metrics, "value_loss": value_loss}

    def act(self, states):
        return best_of(self, states)


@dataclass
class AWRArgs(Args):
    temperature: float = 0.2  # the lower, the more the best actions count


class AWR(DiffusionQL):
    """Advantage-weighted regression (Peng 2019) with critics (as AWAC: Nair 2020): a Gaussian that
    clones good actions more than bad ones, and plays its mean.

    An action weighs exp(A / temperature), with A = Q(s, a) - V(s). V is the mean of Q over the
    data's own actions.
    """

    Args = AWRArgs

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        add_value(self, state_dim)

    def make_policy(self, state_dim, action_dim):
        return GaussianPolicy(state_dim, action_dim, self.args.hidden_dim)

    def critic_loss(self, batch):
        loss, metrics = super().critic_loss(batch)
        value_loss = F.mse_loss(self.value(batch.state), self.q(batch))
        return loss + value_loss, {**metrics, "value_loss": value_loss}

    @torch.no_grad()
    def q(self, batch):
        """The lower Q of the data's actions (B, 1)."""
        return torch.minimum(*self.critic(batch.state, batch.action))

    @torch.no_grad()
    def weights(self, batch):
        """How much each action of the batch counts: (B,), the sum is 1."""
        advantage = self.q(batch) - self.value(batch.state)
        return (advantage[:, 0] / self.args.temperature).softmax(dim=0)

    def policy_loss(self, batch):
        log_likelihood = self.actor.log_likelihood(batch.action, batch.state)
        loss = -(self.weights(batch) * log_likelihood).sum()
        return loss, {"bc_loss": -log_likelihood.mean(), "actor_loss": loss}

    @torch.no_grad()
    def act(self, states):
        return self.acting_policy().distribution(states).mean.clamp(-1, 1)


class WeightedDiffusion(AWR):
    """AWR with a diffusion policy: the batch is drawn anew by its weights, and cloned."""

    make_policy = DiffusionQL.make_policy
    act = BCDiffusion.act

    def policy_loss(self, batch):
        weights = self.weights(batch)
        index = torch.multinomial(weights, len(weights), replacement=True)
        bc_loss = self.actor.loss(batch.action[index], batch.state[index])
        return bc_loss, {"bc_loss": bc_loss}


# ---- BCQ and BEAR --------------------------------------------------------------------------------
class BestOfTen(DiffusionQL):
    """What BCQ and BEAR share: the value of a state is that of the best of ten actions, by a
    mixture of both critics; and the best of ten is played."""

    def critic_loss(self, batch):
        with torch.no_grad():
            states = batch.next_state.repeat_interleave(10, dim=0)
            q1, q2 = self.critic_target(states, self.ema_actor.sample(states))
            q = 0.75 * torch.minimum(q1, q2) + 0.25 * torch.maximum(q1, q2)
            next_q = q.view(-1, 10).amax(dim=1, keepdim=True)
            target = batch.reward + self.args.discount * batch.not_done * next_q
        return self.regress(batch, target)

    def act(self, states):
        return best_of(self, states)


@dataclass
class BCQArgs(CVAEArgs):
    candidates: int = 10  # the best of these is played
    perturbation: float = 0.05  # how far an action of the CVAE may be moved


class PerturbedCVAE(CVAEPolicy):
    """BCQ's policy: an action of the CVAE, moved a little by a network that climbs Q."""

    def __init__(self, state_dim, action_dim, hidden_dim, args):
        super().__init__(state_dim, action_dim, hidden_dim, args)
        self.perturbation = args.perturbation
        self.move = mlp(state_dim + action_dim, hidden_dim, hidden_dim)
        self.move.append(nn.Linear(hidden_dim, action_dim)).append(nn.Tanh())

    def sample(self, state):
        action = super().sample(state).detach()  # Q moves the perturbation, not the CVAE
        move = self.move(torch.cat([state, action], dim=-1))
        return (action + self.perturbation * move).clamp(-1, 1)


class BCQ(BestOfTen):
    """Batch-constrained Q-learning (Fujimoto 2019)."""

    Args = BCQArgs

    def make_policy(self, state_dim, action_dim):
        return PerturbedCVAE(state_dim, action_dim, self.args.hidden_dim, self.args)

    def policy_loss(self, batch):
        bc_loss = self.actor.loss(batch.action, batch.state)
        q1, _ = self.critic(batch.state, self.actor.sample(batch.state))
        loss = bc_loss - q1.mean()
        return loss, {"bc_loss": bc_loss, "actor_loss": loss, "q_policy": q1.mean()}


@dataclass
class BEARArgs(MMDArgs):
    candidates: int = 10  # the best of these is played
    threshold: float = 0.15  # how far the policy may stray, as an MMD


class BEAR(BestOfTen):
    """BEAR (Kumar 2019): the highest Q whose MMD to the cloned behavior stays below a threshold.

    A Lagrange multiplier holds it there. Two settings are ours: BEAR's threshold of 0.05 is below
    the MMD of two sets of ten samples of one distribution, and its multiplier begins at 1, too low
    to free a tanh that Q has saturated.
    """

    Args = BEARArgs

    def __init__(self, state_dim, action_dim, args):
        super().__init__(state_dim, action_dim, args)
        self.log_multiplier = nn.Parameter(torch.tensor(5.0))
        self.actor_optimizer.add_param_group({"params": [self.log_multiplier]})

    def make_policy(self, state_dim, action_dim):
        return MMDPolicy(state_dim, action_dim, self.args.hidden_dim, self.args)

    def policy_loss(self, batch):
        bc_loss = self.actor.cvae.loss(batch.action, batch.state)
        q = torch.minimum(*self.critic(batch.state, self.actor.sample(batch.state))).mean()
        excess = self.actor.discrepancy(batch.state) - self.args.threshold
        multiplier = self.log_multiplier.clamp(-5, 10).exp()
        loss = bc_loss - q + multiplier.detach() * excess - multiplier * excess.detach()
        return loss, {"bc_loss": bc_loss, "excess": excess, "actor_loss": loss, "q_policy": q}


# ---- Other critics -------------------------------------------------------------------------------
class LayerNormCritics(DiffusionQL):
    """Diffusion-QL with LayerNorm in its critics (Yue 2023, arXiv:2310.04411), for a large eta."""

    def make_critic(self, state_dim, action_dim):
        critics = super().make_critic(state_dim, action_dim)
        for network in (critics.q1_model, critics.q2_model):
            for place in (1, 4, 7):  # between a Linear layer and its Mish
                network.insert(place, nn.LayerNorm(self.args.hidden_dim))
        return critics


METHODS = {
    method.__name__: method
    for method in (
        [BCGaussian, BCCVAE, BCMMD, BCMixture, BCDiffusion]
        + [TD3BC, GaussianQL, BCQ, BEAR, AWR, WeightedDiffusion, EDP, FQL, IDQL]
        + [LayerNormCritics]
    )
}


def main():
    name, *options = sys.argv[1:] or ["--help"]
    if name not in METHODS:
        print(__doc__, f"\nmethods: {', '.join(METHODS)}", file=sys.stderr)
        sys.exit(0 if name == "--help" else f"error: no method {name!r}: give one of those above")
    diffusion_ql.main(METHODS[name], options)


if __name__ == "__main__":
    main()
