"""Where an RLlib algorithm keeps its own log outside Tune: a folder that goes when it stops.

Knows nothing of what is trained.
"""

import shutil
import tempfile

from ray.rllib.algorithms.algorithm import Algorithm


class OwnFolder(Algorithm):
    """Mixed into an RLlib Algorithm, which would make an empty folder in the user's home on every run."""

    def _setup_logdir(self) -> None:
        if self._storage:
            super()._setup_logdir()
        else:
            self._logdir = tempfile.mkdtemp(prefix="ballast-rllib-")

    def cleanup(self) -> None:
        """See `ray.tune.Trainable.cleanup`."""
        super().cleanup()
        if not self._storage:
            shutil.rmtree(self._logdir, ignore_errors=True)
