"""The position-sizing environment for Gymnasium: one account, or N accounts stepped together.

A step is one signal: the action is a tier, the reward its utility, and the ledger moves as trades settle.
Knows nothing of learning; every number comes from the signal table, the guardrail and the ledger.
"""

from copy import copy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from pydantic import BaseModel, ConfigDict, Field

from envs.account import NANOSECONDS_PER_DAY, Ledger
from envs.guardrails import SIZES, TIERS, Limits, allowed, as_rows, bound, cap, floor_to_tier
from envs.observation import OBSERVATION_FIELDS, observe, session_left
from envs.rewards import net_r
from envs.signal_table import SignalTable
from market.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class Session(BaseModel):
    """How an episode is cut out of the stream."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    days: float = Field(
        default=28.0, gt=0, le=3660, description="calendar days in an episode; 28 hold 20 trading days"
    )
    reset_drawdown: float = Field(
        default=0.8, ge=0, lt=1, description="an episode starts in a drawdown drawn from [0, this x limit)"
    )
    session_left: bool = Field(default=True, description="whether the twelfth field is observed")
    whole_days: bool = Field(
        default=False,
        description="whether an episode starts only with the first signal of a UTC day, its budget unspent",
    )


class Alternatives(NamedTuple):
    """What the six tiers of N pending signals would bring."""

    legal: Bools  # [N, 6]
    rewards: Floats  # [N, 6]; an illegal tier's are those of the tier it is floored to
    observations: Rows  # [N, 6, 11 or 12], of what follows


class Episodes:
    """N accounts, each somewhere in its own window of one signal stream."""

    def __init__(self, table: SignalTable, limits: Limits, accounts: int, session: Session) -> None:
        self.table, self.limits, self.session = table, limits, session
        self._limits = as_rows(limits)  # once, and not four times in every step
        self.width = len(OBSERVATION_FIELDS) - (not session.session_left)
        self.ledger = Ledger.of(accounts, limits.max_open_trades)
        self.window_end = np.searchsorted(table.time, table.time + int(session.days * NANOSECONDS_PER_DAY))
        self.first = np.arange(len(table))  # rows at which an episode may start
        if session.whole_days:
            self.first = np.unique(table.time // NANOSECONDS_PER_DAY, return_index=True)[1]
        self.row = np.zeros(accounts, dtype=np.int64)
        self.end = np.zeros(accounts, dtype=np.int64)
        self.started = np.zeros(accounts, dtype=np.int64)
        self.over = np.ones(accounts, dtype=np.bool_)
        self.multiplier = np.zeros(accounts)

    def start(self, which: Bools, first: Integers, drawdown: Floats) -> None:
        """Put the accounts of `which` at the start of the windows that begin at rows `first`."""
        self.ledger.reset(which, drawdown)
        self.row[which] = first
        self.end[which] = self.window_end[first]
        self.started[which] = self.table.time[first]
        self.over[which] = False

    def start_anywhere(self, which: Bools, random: np.random.Generator) -> None:
        """`start` at random rows and drawdowns."""
        self.start(which, *self.starts(int(which.sum()), random))

    def starts(
        self, count: int, random: np.random.Generator, options: dict[str, Any] | None = None
    ) -> tuple[Integers, Floats]:
        """Rows int64[count] and drawdowns float64[count] to `start` from: those of `options`, or drawn."""
        if options and "first" in options:
            first = np.asarray(options["first"], dtype=np.int64).reshape(-1)
            return first, np.asarray(options.get("drawdown", np.zeros(len(first))), np.float64).reshape(-1)
        limit = self.session.reset_drawdown * self.limits.max_drawdown
        first = self.first[random.integers(len(self.first), size=count)]
        return first, random.uniform(0.0, limit, size=count)

    def look(self) -> Rows:
        """Settle what is due and observe: float32[N, 11 or 12]. The mask is then in `mask`, bool[N, 6]."""
        here = self.here()
        now = self.table.time[here]
        self.ledger.settle(now)
        account = self.ledger.account()
        self.cap, self.cap_rule = cap(account, self._limits)
        self.mask = allowed(self.cap, self._limits)
        left = np.where(self.over, 0.0, session_left(now - self.started, self.session.days))
        return observe(self.table.market[here], account, self.cap, self._limits, left)[:, : self.width]

    def act(self, tiers: Integers) -> Floats:
        """Take the tiers, int64[N], through the guardrail; accounts whose episode is over stand still.
        Returns rewards.
        """
        if tiers.min() < 0 or tiers.max() >= len(TIERS):
            raise DataError(
                "action", [int(tiers.min()), int(tiers.max())], f"give tiers from 0 to {len(TIERS) - 1}"
            )
        size = self._allowed(SIZES[tiers])
        reward = self.table.reward[self.here(), floor_to_tier(size)]
        reward = np.where(self.over, 0.0, reward)
        self.place(size)
        return reward

    def act_size(self, wanted: Floats, *, realised: bool) -> Floats:
        """`act` for multipliers, float64[N], clamped to the cap as they are. Returns their utility; see
        `SignalTable.utility_of`.
        """
        size = self._allowed(wanted, snap=False)
        utility = self.table.utility_of(size, self.here(), realised=realised)
        utility = np.where(self.over, 0.0, utility)
        self.place(size)
        return utility

    def alternatives(self) -> Alternatives:
        """What each tier would bring the pending signals; the accounts themselves stay as they are.

        What an account does cannot change the stream, so that every alternative is as exact as the step taken
        (Sinclair et al. 2023). Call it after `look` and before `act`.
        """
        times, each = len(TIERS), copy(self)
        each.ledger = self.ledger.repeated(times)
        for name in ("row", "end", "started", "over", "multiplier", "cap", "cap_rule"):
            setattr(each, name, np.repeat(getattr(self, name), times))
        shape = (len(self.row), times)
        rewards = each.act(np.tile(np.arange(times), len(self.row))).reshape(shape)
        return Alternatives(self.mask, rewards, each.look().reshape(*shape, self.width))

    def place(self, multiplier: Floats) -> None:
        """Open trades of the given size, float64[N] within `cap`, and go on to the next signals."""
        here = self.here()
        self.multiplier = np.where(self.over, 0.0, multiplier)
        table = self.table
        r = net_r(self.multiplier, table.gross_r[here], table.cost_r[here], table.impact_r[here])
        self.ledger.open(self.multiplier, self.limits.base_risk, r, table.exit_time[here])
        self.row += ~self.over
        self.over = self.row >= self.end

    def _allowed(self, wanted: Floats, snap: bool = True) -> Floats:
        strange = self.table.out_of_distribution[self.here()]
        return bound(
            wanted, self.cap, self.cap_rule, self._limits, snap=snap, out_of_distribution=strange
        ).multiplier

    def here(self) -> Integers:
        """The row of each account's pending signal; an episode that is over stays at its last."""
        return np.minimum(self.row, self.end - 1)


def spaces(session: Session) -> tuple[gym.spaces.Box, gym.spaces.Discrete[np.int64]]:
    """Observation and action space of one account."""
    low = np.full(len(OBSERVATION_FIELDS), 0.0, dtype=np.float32)
    low[[2, 4, 5]] = -1.0  # momentum_score, entry_quality, risk_reward_ratio
    low = low[: len(low) - (not session.session_left)]
    return gym.spaces.Box(low, np.ones_like(low)), gym.spaces.Discrete(len(TIERS))


class SizingVectorEnv(VectorEnv[Rows, Integers, npt.NDArray[Any]]):
    """N accounts; a finished one starts again on the step after its end (AutoresetMode.NEXT_STEP)."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (gymnasium's own form)

    def __init__(
        self,
        table: SignalTable,
        limits: Limits,
        num_envs: int,
        session: Session | None = None,
        *,
        counterfactual: bool = False,
    ) -> None:
        """`counterfactual`: whether a step's info holds the `Alternatives` to it, by their names."""
        self.counterfactual = counterfactual
        self.episodes = Episodes(table, limits, num_envs, session or Session())
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces(self.episodes.session)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Rows, dict[str, Any]]:
        """Start every account; `options` may give ``first`` (rows, int[N]) and ``drawdown`` (fractions,
        float[N]).
        """
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        every = np.ones(self.num_envs, dtype=np.bool_)
        self.episodes.start(every, *self.episodes.starts(self.num_envs, self.np_random, options))
        return self.episodes.look(), {}

    def step(self, actions: Integers) -> tuple[Rows, Floats, Bools, Bools, dict[str, Any]]:
        """Size one signal per account; `actions` are tiers, int[N]."""
        finished = self.episodes.over.copy()
        info = self.episodes.alternatives()._asdict() if self.counterfactual else {}
        reward = self.episodes.act(np.asarray(actions, dtype=np.int64))
        if finished.any():
            self.episodes.start_anywhere(finished, self.np_random)
        observation = self.episodes.look()
        return observation, reward, self.episodes.over.copy(), np.zeros(self.num_envs, dtype=np.bool_), info

    def action_masks(self) -> Bools:
        """Legal tiers of the pending signals, bool[N, 6]."""
        return self.episodes.mask


class SizingEnv(gym.Env[Rows, np.int64]):
    """One account, the same functions with N = 1."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own form)

    def __init__(self, table: SignalTable, limits: Limits, session: Session | None = None) -> None:
        self.episodes = Episodes(table, limits, 1, session or Session())
        self.observation_space, self.action_space = spaces(self.episodes.session)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Rows, dict[str, Any]]:
        """Start an episode; `options` as in `SizingVectorEnv.reset`."""
        super().reset(seed=seed)
        self.episodes.start(np.ones(1, dtype=np.bool_), *self.episodes.starts(1, self.np_random, options))
        return self.episodes.look()[0], self._info()

    def step(self, action: np.int64) -> tuple[Rows, float, bool, bool, dict[str, Any]]:
        """Size one signal."""
        reward = self.episodes.act(np.array([action], dtype=np.int64))
        observation = self.episodes.look()[0]
        return observation, float(reward[0]), bool(self.episodes.over[0]), False, self._info()

    def action_masks(self) -> Bools:
        """Legal tiers of the pending signal, bool[6]."""
        return np.asarray(self.episodes.mask[0])

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.episodes.mask[0], "multiplier": float(self.episodes.multiplier[0])}
