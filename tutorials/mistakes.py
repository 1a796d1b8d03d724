"""Typical mistakes in tutorials/homework.ipynb, which tutorials/grading.py recognises.

A mistake is {hint: (right, wrong)}: `wrong` in place of `right`, wherever that stands in the
solution (tutorials/solutions/homework.py); or {hint: [(right, wrong), ...]} if it is in several
places. To teach the grader another mistake, add it here.
"""

P_SAMPLE = {
    "The guess of the clean action is not clamped to [-1, 1].": ("x0.clamp(-1, 1)", "x0"),
    "Clamp the guess of the clean action to [-1, 1], not the mean: a noisy action has no bounds.": [
        ("x0.clamp(-1, 1)", "x0"),
        ("if i == 0:", "mean = mean.clamp(-1, 1)\n    if i == 0:"),
    ],
    "The network is told i + 1: timesteps run from 0 to N - 1 here.": (
        "torch.full((1,), i)",
        "torch.full((1,), i + 1)",
    ),
    "The variance is the posterior's here (the release); beta_i is the paper's eq. 1.": (
        "posterior_variance[i]",
        "betas[i]",
    ),
    "Multiply the noise by the standard deviation, the square root of the variance.": (
        "posterior_variance[i].sqrt()",
        "posterior_variance[i]",
    ),
    # The posterior's variance is 0 there, so this shows only with the variance of eq. 1.
    "Noise is added at the last step, i = 0.": ("if i == 0:", "if False:"),
    "The step without noise is i = 0, not i = 1.": ("if i == 0:", "if i == 1:"),
    "No noise is added.": ("std * torch.randn_like(x)", "0 * x"),
    "The two coefficients of the mean are swapped: the first one belongs to x0.": (
        "posterior_mean_coef1[i] * x0 + policy.posterior_mean_coef2[i] * x",
        "posterior_mean_coef2[i] * x0 + policy.posterior_mean_coef1[i] * x",
    ),
    "No gradient flows from the result to x: leave out detach and no_grad, L_q needs it.": (
        "t = torch.full",
        "x = x.detach(); t = torch.full",
    ),
    # Last, since it changes the pieces that others look for.
    "The index of the schedule is off by one: index i = 0 is the least noisy step.": (
        "[i]",
        "[i - 1]",
    ),
}
DENOISING_LOSS = {
    "alpha-bar is missing its square roots: it scales the variance, not the action.": (
        "kept.sqrt() * action + (1 - kept).sqrt() * noise",
        "kept * action + (1 - kept) * noise",
    ),
    "The factors of action and noise are swapped.": (
        "kept.sqrt() * action + (1 - kept).sqrt() * noise",
        "kept.sqrt() * noise + (1 - kept).sqrt() * action",
    ),
    "Use alpha-bar_i (all steps up to i), not alpha_i = 1 - beta_i (one step).": (
        "policy.alphas_cumprod[t, None]",
        "(1 - policy.betas[t, None])",
    ),
    "The network sees the clean action: hand it the noisy one.": (
        "policy.model(x,",
        "policy.model(action,",
    ),
    "The network is told t + 1: timesteps run from 0 to N - 1 here.": (
        "(x, t, state)",
        "(x, t + 1, state)",
    ),
    "The network predicts the noise, not the clean action.": (
        "predicted - noise",
        "predicted - action",
    ),
    "Take the mean over the action's dimensions, too (the release); the paper sums them.": (
        ".square().mean()",
        ".square().sum(dim=-1).mean()",
    ),
    "Take the mean, not the sum, or the loss grows with the batch.": (
        ".square().mean()",
        ".square().sum()",
    ),
    "The loss has no gradient: leave out detach and no_grad.": (
        "predicted = policy.model(x, t, state)",
        "predicted = policy.model(x, t, state).detach()",
    ),
}
POLICY_LOSS = {
    "The scale is not detached: the policy is also rewarded for a smaller |Q|.": (".detach()", ""),
    "The sign of L_q: a lower loss must mean a higher Q.": ("-climbed.mean()", "climbed.mean()"),
    "The scale comes from the other critic than the one that is climbed.": (
        "other.abs()",
        "climbed.abs()",
    ),
    "The scale is the mean of |Q|, not the absolute value of the mean.": (
        "other.abs().mean()",
        "other.mean().abs()",
    ),
    "The scale is over the policy's own actions (the release), not over the data's.": (
        "other.abs()",
        "agent.critic(batch.state, batch.action)[int(coin)].abs()",
    ),
    "The scale is a single number, the mean of |Q| over the batch, not one for each sample.": (
        "-climbed.mean() / scale",
        "-(climbed / other.abs().detach()).mean()",
    ),
    "Climb one critic, which the coin chooses, not the smaller of the two (as TD3 and SAC do).": (
        "if coin:",
        "q1 = q2 = torch.minimum(q1, q2)\n    if coin:",
    ),
    "Climb the critic that the coin chooses, not the smaller of the two; the scale is right.": (
        "-climbed.mean()",
        "-torch.minimum(q1, q2).mean()",
    ),
    "L_q is not divided by its scale.": (" / scale", ""),
    "eta is missing.": ("agent.args.eta * ql_loss", "ql_loss"),
    "eta weighs L_q, not L_d.": (
        "bc_loss + agent.args.eta * ql_loss",
        "agent.args.eta * bc_loss + ql_loss",
    ),
    "L_d is missing.": ("return bc_loss + ", "return "),
    "The coin is not used: it says which critic is climbed.": ("if coin:", "if True:"),
    "The coin is read the other way round: if it is True, Q1 is climbed.": (
        "if coin:",
        "if not coin:",
    ),
    "Climb the critics, not their targets.": ("agent.critic(", "agent.critic_target("),
    "The actions come from the policy that learns, not from the averaged one.": (
        "agent.actor.sample",
        "agent.ema_actor.sample",
    ),
    "No gradient flows from Q to the policy: sample without detach and no_grad.": (
        "agent.actor.sample(batch.state)",
        "agent.actor.sample(batch.state).detach()",
    ),
}
CRITIC_TARGET = {
    "not_done is forgotten: nothing follows a terminal state.": (" * batch.not_done", ""),
    "not_done is 0 at terminal states, and 1 elsewhere: multiply by it as it is.": (
        "* batch.not_done",
        "* (1 - batch.not_done)",
    ),
    "The discount is forgotten.": ("agent.args.discount * ", ""),
    "The next action comes from the averaged policy, agent.ema_actor.": (
        "agent.ema_actor",
        "agent.actor",
    ),
    "The values come from the target critics, agent.critic_target.": (
        "agent.critic_target",
        "agent.critic",
    ),
    "Take the smaller of the two critics, not the larger.": (
        "torch.minimum(q1, q2)",
        "torch.maximum(q1, q2)",
    ),
    "Take the smaller of the two critics, not their mean.": (
        "torch.minimum(q1, q2)",
        "(q1 + q2) / 2",
    ),
    "Take the smaller of the two critics, not the first alone.": ("torch.minimum(q1, q2)", "q1"),
    "Take the smaller of the two critics at each transition, not over the batch.": (
        "torch.minimum(q1, q2)",
        "torch.minimum(q1, q2).min()",
    ),
    "The target looks at the next state, batch.next_state.": ("batch.next_state", "batch.state"),
    "The target is a number, not something to learn: compute it under torch.no_grad().": (
        "torch.no_grad()",
        "torch.enable_grad()",
    ),
}
MAX_Q_TARGET = {
    "Each critic takes its own best of the 10 first; the smaller of the two comes after.": (
        "best1 =",
        "q1 = q2 = torch.minimum(q1, q2); best1 =",
    ),
    "Take the best of the 10, not their mean.": (
        "amax(dim=1, keepdim=True)",
        "mean(dim=1, keepdim=True)",
    ),
    "The 10 actions of a state are next to each other: view(-1, 10), not view(10, -1).": (
        "view(-1, 10).amax(dim=1, keepdim=True)",
        "view(10, -1).amax(dim=0)[:, None]",
    ),
    "not_done is forgotten: nothing follows a terminal state.": (" * batch.not_done", ""),
}
MISTAKES = {
    "p_sample": P_SAMPLE,
    "denoising_loss": DENOISING_LOSS,
    "policy_loss": POLICY_LOSS,
    "critic_target": CRITIC_TARGET,
    "max_q_target": MAX_Q_TARGET,
}
