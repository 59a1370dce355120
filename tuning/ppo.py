"""RLlib's PPO over rollouts of arrays.

Its own training step serves as it is: it hands on what the runners sampled, and `tuning.learner` knows what
to make of it. Knows nothing of sizing.
"""

from ray.rllib.algorithms.ppo import PPO

from tuning.log_folder import OwnFolder
from tuning.samplers import Samplers


class ArrayPPO(OwnFolder, Samplers, PPO):
    """PPO for `tuning.rollout.ArrayEnvRunner` and `tuning.learner.ArrayPPOLearner`."""
