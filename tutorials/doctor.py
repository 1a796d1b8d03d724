"""Examines a run by ten tests: what each saw, what is healthy, and what to try if it is not.

    python tutorials/doctor.py RUN

RUN is a run folder of diffusion_ql.py or forks.py; the run may still be training. Nothing is
trained, downloaded or written. In a notebook, `examine(RUN)` returns the findings.
"""

import contextlib
import inspect
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch.distributions import Categorical

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path.cwd())]  # your forks, too

from diffusion_ql import DiffusionPolicy, DiffusionQL
from tutorials.run_folder import Run, apart, experiment, loss_of_one_gaussian, spread_of_actions

Finding = namedtuple("Finding", "test verdict saw healthy advice")  # texts


# ---- The tests: Run → (is it healthy?, what was seen) --------------------------------------------
# The docstring says what is healthy; what to try. ValueError: the run lacks what the test needs.
def settings(run):
    """those that you meant, and no others.
    train a twin of a few hundred steps that has one of them as usual."""
    usual = vars(run.agent_class.Args(env=run.args.env))
    changed = []
    for name, value in experiment(run.config)[1].items():
        if value != usual[name]:
            changed.append(f"{name} is {value} instead of {usual[name]}")
    changes = ", ".join(changed) or "all settings are the task's"
    return not changed, f"{run.last_step:,} of {run.args.steps:,} steps; {changes}"


def seeds(run):
    """three or more; only differences larger than their scatter mean something.
    run the same command with other seeds, each with its --out beside this folder."""
    run.curve("score")
    scores = pd.Series(run.scores_of_seeds())
    saw = f"{len(scores)} runs of this experiment have come to this step"
    if len(scores) > 1:
        saw += f", with mean {scores.mean():.1f} and standard deviation {scores.std():.1f}"
    return len(scores) >= 3, saw


def luck(run):
    """a last score near the best one, which is also the luckiest.
    score both on new episodes (--evaluate RUN --which online); then train with --lr-decay."""
    score, error = run.curve("score"), run.progress["error"]
    best, last = score.idxmax(), score.index[-1]
    saw = f"score {score[last]:.1f} with a standard error of {error[last]:.1f}; "
    saw += f"the best was {score[best]:.1f} at step {run.progress.step[best]:,}"
    return score[best] - score[last] <= 3 * (error[best] ** 2 + error[last] ** 2) ** 0.5, saw


def gain(run):
    """above the data's own; a clone's, about as high.
    look at the other tests first; then more steps, or another eta."""
    score = run.curve("score").iloc[-1]
    if run.dataset.ends_at_goal or "kitchen" in run.args.env:
        raise ValueError("the rewards of this task do not add up to its score")
    of_data = run.dataset.score(run.dataset.transitions.reward.sum() / len(run.episodes))
    error = run.progress["error"].iloc[-1]
    return (
        score > of_data - 2 * error,
        f"score {score:.1f}; an episode of the data has {of_data:.1f}",
    )


def order(run):
    """no curve goes wrong; if some do, the first is nearest to the cause.
    train again with a smaller --eval-every, up to that step."""
    curves, lowest = run.progress, run.progress.cummin()
    if len(curves) < 3:
        raise ValueError("with fewer than three evaluations, no curve has a direction")
    wrong = {}
    if "bc_loss" in curves:
        wrong["L_d 0.1 above its lowest"] = curves.bc_loss > lowest.bc_loss + 0.1
    if "critic_loss" in curves:
        wrong["critic_loss 10 times its lowest"] = curves.critic_loss > 10 * lowest.critic_loss
    if "score" in curves:
        far_down = 10 + 4 * curves.error  # a healthy run on two-roads fell by 15
        wrong["score far down"] = curves.score < curves.score.cummax() - far_down
    with contextlib.suppress(ValueError):  # without data, nothing bounds Q
        wrong["Q impossible"] = ~run.curve("q").between(*run.bounds())
    first = {what: curves["step"][where].min() for what, where in wrong.items() if where.any()}
    told = [f"{what} from step {first[what]:,} on" for what in sorted(first, key=first.get)]
    return not told, "; ".join(told) or f"nothing wrong in {len(curves)} evaluations"


def cloning(run):
    """it falls; a diffusion's to below that of the best Gaussian that ignores the state.
    more steps if it still falls; otherwise a smaller eta, or a lower learning rate."""
    loss = run.curve("bc_loss").tolist()
    saw = f"L_d is {loss[-1]:.3f}, and was {loss[0]:.3f} at the first evaluation"
    if not isinstance(run.agent.actor, DiffusionPolicy):
        return loss[-1] <= loss[0], saw
    of_gaussian = loss_of_one_gaussian(run.agent.actor, run.data.action)
    saw += f"; that of one Gaussian is {of_gaussian:.3f}"
    return loss[-1] <= min(loss[0], of_gaussian), saw


def actions(run):
    """nearer to the data's than to those of any states, and not much more often at a limit.
    a smaller eta; and look whether `act` sees the states as `update` does."""
    some = run.data.sample(1000)
    chosen = run.agent.act(some.state)
    distance, (near, far) = apart(chosen, some.action), spread_of_actions(some)
    limits = [(part.abs() > 0.99).float().mean().item() for part in (chosen, some.action)]
    saw = f"{distance:.2f} from the data's, which are {near:.2f} apart in similar states and "
    saw += f"{far:.2f} in any two; {limits[0]:.0%} at a limit, the data's {limits[1]:.0%}"
    return distance < 0.55 * (near + far) and limits[0] < limits[1] + 0.3, saw


def value(run):
    """Q is possible (single ones may err by 15 %), and no less than what followed in the data.
    if too high: smaller tau, critic_lr or eta; if too low: more steps, or true terminals."""
    low, high = run.bounds()
    mean, largest = run.q.mean(), run.q.max()
    q, followed = run.followed()
    saw = f"Q is {mean:.1f} on average, {largest:.1f} at most, possible {low:.1f} to {high:.1f}; "
    saw += f"where episodes begin it is {q:.1f}, and by the rewards that followed {followed:.1f} "
    saw += "(with Q's last value, where an episode was cut off)"
    is_possible = low <= mean <= high and largest <= high + 0.15 * (high - low)
    return is_possible and q >= followed - 0.2 * abs(followed), saw


def terminals(run):
    """where a task is over, not where the time is; states of the order of 1.
    store a time limit (Gymnasium's `truncated`) as not terminal; normalise the states."""
    length, is_over = run.episodes["length"], run.episodes["is_over"]
    at_limit = (length[is_over] == length.max()).sum()
    largest = run.data.state.abs().max()
    saw = f"{is_over.sum()} of {len(length)} episodes end at a terminal, {at_limit} of them after "
    saw += f"{length.max()} steps, the longest time; the largest number in a state is {largest:.1f}"
    is_time_limit = length.max() > 1 and at_limit > max(2, 0.2 * is_over.sum())
    return not is_time_limit and largest < 100, saw


def candidates(run):
    """neither one action is drawn nor all; and Q varies, or there is nothing to climb.
    --reward-tune normalize, or rewards without their constant."""
    run.curve("q")
    if type(run.agent).act is not DiffusionQL.act:
        raise ValueError("this method does not act by a draw among candidates")
    _, q = run.agent.propose(run.data.sample(500).state)
    drawn = Categorical(logits=q).entropy().exp().mean()
    ratio = run.q.std() / run.q.abs().mean()
    saw = f"about {drawn:.1f} of {q.shape[1]} actions are in the draw; "
    saw += f"over the data, Q varies by {ratio:.0%} of its mean size"
    return 1.5 < drawn < 0.998 * q.shape[1] and ratio > 0.1, saw


TESTS = [settings, seeds, luck, gain, order, cloning, actions, value, terminals, candidates]


# ---- The examination -----------------------------------------------------------------------------
def examine(folder, dataset=None, agent_class=None):
    """A Finding for each of TESTS. Raises ValueError for what is no run folder.

    dataset: that of a run on data of its own; agent_class: of a method from a notebook.
    """
    run = Run(folder, dataset, agent_class)
    findings = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for test in TESTS:
            healthy, advice = inspect.getdoc(test).splitlines()
            try:
                is_fine, saw = test(run)
                verdict = "fine" if is_fine else "look"
            except (ValueError, OSError, ImportError) as error:
                verdict, saw = "not tested", str(error)
            findings.append(Finding(test.__name__, verdict, saw, healthy, advice))
    return findings


def main(run: tyro.conf.Positional[str]):
    """Examines a run folder by ten tests."""
    try:
        findings = examine(run)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for test, verdict, saw, healthy, advice in findings:
        texts = [f"{test:11} {verdict.upper()}: {saw}."]
        if verdict != "not tested":
            texts.append(" " * 12 + f"Healthy: {healthy}")
        if verdict == "look":
            texts.append(" " * 12 + f"Try: {advice}")
        for text in texts:
            print(textwrap.fill(text, 100, subsequent_indent=" " * 12))


if __name__ == "__main__":
    tyro.cli(main)
