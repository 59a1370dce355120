"""The fine-tuning environment for Gymnasium: continuous sizes around tiers that are chosen already.

Every account has a twin that takes the same signals at the tiers alone, and the reward is the utility gained
on it. The twin does not depend on the actions, so that the sum of an episode's rewards is just what the
fine-tune adds to its utility, limits included: a size that spends tomorrow's budget is charged for it.
Knows nothing of learning, nor of how the tiers are chosen: that is passed in.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.fine_tune import fine_tuned
from envs.guardrails import Limits
from envs.signal_table import SignalTable
from envs.sizing_env import Episodes, Session, spaces

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
# Sizes of legal tiers, float64[N], from observations float32[N, 11 or 12] and masks bool[N, 6].
TierChoice = Callable[[Rows, Bools], Floats]


class FineTuneVectorEnv(VectorEnv[Rows, Rows, npt.NDArray[Any]]):
    """N accounts; a finished one starts again on the step after its end (AutoresetMode.NEXT_STEP)."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (gymnasium's own form)

    def __init__(
        self,
        table: SignalTable,
        limits: Limits,
        num_envs: int,
        choose: TierChoice,
        band: float,
        session: Session | None = None,
        *,
        realised: bool = False,
    ) -> None:
        """`realised`: pay what happened, in place of what the outcome model expects."""
        self.choose, self.band, self.realised = choose, band, realised
        self.episodes = Episodes(
            table, limits, 2 * num_envs, session or Session()
        )  # the accounts, then twins
        self.num_envs = num_envs
        self.single_observation_space, _ = spaces(self.episodes.session)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (1,))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Rows, dict[str, Any]]:
        """Start every account; `options` as in `envs.sizing_env.SizingVectorEnv.reset`."""
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        self._start(np.ones(self.num_envs, dtype=np.bool_), options)
        return self._look(), {}

    def step(self, actions: Rows) -> tuple[Rows, Floats, Bools, Bools, dict[str, Any]]:
        """Size one signal per account; `actions` are fine-tunes in [-1, 1], [N, 1]."""
        n = self.num_envs
        finished = self.episodes.over[:n].copy()
        tiers = self.choose(self._seen, self.episodes.mask)
        tuned = fine_tuned(tiers[:n], np.asarray(actions)[:, 0], self.band)
        wanted = np.concatenate([tuned, tiers[n:]])
        utility = self.episodes.act_size(wanted, realised=self.realised)
        if finished.any():
            self._start(finished, None)
        observation = self._look()
        over = self.episodes.over[:n].copy()
        return observation, utility[:n] - utility[n:], over, np.zeros(n, dtype=np.bool_), {}

    def _start(self, which: Bools, options: dict[str, Any] | None) -> None:
        first, drawdown = self.episodes.starts(int(which.sum()), self.np_random, options)
        self.episodes.start(np.tile(which, 2), np.tile(first, 2), np.tile(drawdown, 2))

    def _look(self) -> Rows:
        self._seen = self.episodes.look()
        return self._seen[: self.num_envs]
