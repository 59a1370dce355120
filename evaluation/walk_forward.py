"""Anchored walk-forward: sizers fitted anew fold after fold, each tested on the signals that come next.

How they are fitted is passed in. Knows nothing of training, of bars or of pages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from envs.guardrails import TIERS, Limits
from envs.signal_table import SignalTable
from evaluation.backtest import Path, relay_all, run
from evaluation.metrics import figures
from market.errors import ConfigError
from market.splits import walk_forward as folds_of
from policies.baselines import RandomTier
from policies.decision import Policy

Integers = npt.NDArray[np.int64]

FIRST_TRAIN: Final = 0.4  # of all trades: what the first fold learns from at least
FEWEST_FOLDS: Final = 5
SAME_EXPOSURE: Final = "random, same mix"


@dataclass(frozen=True)
class Fold:
    """What a fit on the training trades of one fold gives, for one seed."""

    table: SignalTable  # the tested signals
    late: SignalTable  # the same signals, each entered one bar later; one never entered has outcome 0
    baselines: tuple[Policy, ...]
    learned: Policy | None  # None where nothing is trained


class Fit(Protocol):
    """Fits sizers on rows of the trades that its maker holds."""

    def __call__(self, number: int, train: Integers, test: Integers, seed: int) -> Fold:
        """The fold `number` from 0 on. Nothing but `train` and what is known at each tested signal may shape
        it; tables of all folds share the base risk.
        """
        ...


@dataclass(frozen=True)
class WalkForward:
    """Walk-forward's paths: n signals of all folds, in accounts that go through all of them."""

    table: SignalTable  # [n]
    late: SignalTable  # [n]
    fold: Integers  # [n], the fold in which each was tested
    trained: tuple[int, ...]  # training trades of each fold
    seeds: tuple[int, ...]
    baselines: tuple[Path, ...]
    learned: tuple[Path, ...]  # one for each seed; empty where nothing is trained
    late_paths: tuple[Path, ...]  # of the baselines and of the median seed, entered one bar later

    @property
    def paths(self) -> tuple[Path, ...]:
        """The median seed's path, where something learned, and those of all baselines."""
        return (*((self.learned[median_of(self.learned)],) if self.learned else ()), *self.baselines)


def bounds(
    signal_time: Integers, exit_time: Integers, folds: int, least_train: int = 1
) -> list[tuple[Integers, Integers]]:
    """(train, test) rows of each fold: see `market.splits.walk_forward`.

    The first fold learns from at least `least_train` trades, and from 40 % of all. ConfigError below 5 folds.
    """
    if folds < FEWEST_FOLDS:
        raise ConfigError("--folds", folds, f"give at least {FEWEST_FOLDS}")
    share = max(FIRST_TRAIN, least_train / max(len(signal_time), 1))
    return folds_of(signal_time, exit_time, folds, min(share, 0.99))


def walk_forward(
    rows: Sequence[tuple[Integers, Integers]],
    fit: Fit,
    limits: Limits,
    session_days: float,
    seeds: Sequence[int],
    told: Callable[[int, int], None] = lambda fold, seed: None,
) -> WalkForward:
    """Fit and test every fold of `bounds` with every seed; `told` is called with each before it is fitted.

    The account that a policy walks is handed from fold to fold with its open trades. A fold without a learned
    policy leaves the learned sizer out of all: it is compared on all signals or on none.
    """
    fitted: list[list[Fold]] = []
    for number, (train, test) in enumerate(rows):
        fitted.append([])
        for seed in seeds if not fitted[0] or fitted[0][0].learned is not None else seeds[:1]:
            told(number, seed)
            fitted[number].append(fit(number, train, test, seed))
            if fitted[number][0].learned is None:
                break
    first = [of_fold[0] for of_fold in fitted]
    learners = [[fold.learned for fold in of_seed] for of_seed in zip(*fitted, strict=False)]
    table = SignalTable.joined([fold.table for fold in first])
    late = SignalTable.joined([fold.late for fold in first])
    lengths = [len(fold.table) for fold in first]
    starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]

    found = [[policy for policy in policies if policy is not None] for policies in learners]
    complete = [policies for policies in found if len(policies) == len(rows)]
    of_baselines = zip(*(fold.baselines for fold in first), strict=True)
    chains = [*complete, *(list(policies) for policies in of_baselines)]
    relays = [dict(zip(starts, policies, strict=True)) for policies in chains]
    walked = relay_all(relays, table, limits, session_days)
    learned, baselines = walked[: len(complete)], walked[len(complete) :]
    late_relays = relays[len(complete) :]
    if learned:
        middle = median_of(learned)
        late_relays.insert(0, relays[middle])
        shares = tuple(figures(learned[middle]).tiers[tier] for tier in TIERS)
        baselines.append(run(RandomTier(shares, seeds[0], SAME_EXPOSURE), table, limits, session_days))
    return WalkForward(
        table=table,
        late=late,
        fold=np.repeat(np.arange(len(rows)), lengths),
        trained=tuple(len(train) for train, _ in rows),
        seeds=tuple(seeds) if learned else (),
        baselines=tuple(baselines),
        learned=tuple(learned),
        late_paths=tuple(relay_all(late_relays, late, limits, session_days)),
    )


def median_of(paths: Sequence[Path]) -> int:
    """The place of the median mean utility, of an even number the lower of the two in the middle."""
    means = [float(np.mean(path.utility)) for path in paths]
    return sorted(range(len(means)), key=means.__getitem__)[(len(means) - 1) // 2]
