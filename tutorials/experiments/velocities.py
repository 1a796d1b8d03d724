"""Does a clone do better in Minari's kitchen if it does not see the joints' velocities?

    V=tutorials.experiments.velocities
    python sweep.py --envs kitchen-complete --seeds 0 1 2 --steps 50000 --eval-every 25000 \
        --methods BCGaussian BCDiffusion $V.GaussianOfPositions $V.DiffusionOfPositions \
        --out runs/velocities

Minari's kitchen has 59 numbers: 9 positions and 9 velocities of the robot, then 21 and 20 of the
objects. D4RL's has the 30 positions alone. A clone that sees how it moves may go on as it moved,
instead of looking where it is (de Haan, Jayaraman & Levine 2019, causal confusion).

The runs of results/velocities are on D4RL's demonstrations, replayed in FrankaKitchen-v1 in this
form, and not on Minari's own file.
"""

from forks import BCDiffusion, BCGaussian

POSITIONS = [*range(9), *range(18, 39)]


class OfPositions:
    """A cloning fork that is shown the 30 positions of kitchen's 59 numbers."""

    def make_policy(self, state_dim, action_dim):
        return super().make_policy(len(POSITIONS), action_dim)

    def update(self, batch):
        return super().update(batch._replace(state=batch.state[:, POSITIONS]))

    def act(self, states):
        return super().act(states[:, POSITIONS])


class GaussianOfPositions(OfPositions, BCGaussian):
    pass


class DiffusionOfPositions(OfPositions, BCDiffusion):
    pass
