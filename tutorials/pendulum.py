"""A dataset of one's own: Gymnasium's pendulum, swung up by a controller with noise.

Lesson 6 writes the controller out and explains it. Torques go from -2 to 2; a state is
(cos, sin, speed) with the angle measured from the upright position.
"""

import gymnasium as gym
import numpy as np

from diffusion_ql import Dataset

NOISE = 1.5  # standard deviation of the noise on the torque, before it is clipped
EPISODES = 60  # of 200 steps


def controller(state):
    """The torque for a state (3,): swing up by energy, and hold the pendulum near the top."""
    cosine, sine, speed = state
    if cosine > 0.9 and abs(speed) < 4:  # near the top, and slow: hold it (a PD law)
        return -12 * np.arctan2(sine, cosine) - 3 * speed
    energy = speed**2 / 6 + 5 * (cosine - 1)  # 0 at rest at the top
    if energy < 0:
        return 2 * np.sign(speed)  # pump: push in the direction of motion
    return -2 * np.sign(speed)  # brake


def play(choose_torque, episodes, seed=0):
    """Transitions and returns of episodes; choose_torque(state) gives the torque.

    A transition is (state, action, next_state, reward, terminal). No state of this task is
    terminal: an episode is cut off after 200 steps, which `truncated` says, not `terminated`.
    """
    world = gym.make("Pendulum-v1")
    transitions = []
    returns = np.zeros(episodes)
    for episode in range(episodes):
        state, _ = world.reset(seed=seed + episode)
        truncated = False
        while not truncated:
            action = np.clip([choose_torque(state)], -2, 2).astype(np.float32)
            next_state, reward, terminated, truncated, _ = world.step(action)
            transitions.append((state, action, next_state, reward, terminated))
            returns[episode] += reward
            state = next_state
    return transitions, returns


def make_pendulum_data(episodes=EPISODES, noise=NOISE, seed=0):
    """The Dataset of the controller with noise, and the returns of its episodes."""
    rng = np.random.default_rng(seed)

    def with_noise(state):
        return controller(state) + noise * rng.standard_normal()

    transitions, returns = play(with_noise, episodes, seed)
    columns = [np.array(column) for column in zip(*transitions, strict=True)]
    return Dataset(*columns, env="Pendulum-v1"), returns
