"""One fold of a walk-forward, fitted as a training run is: outcome model, risk aversion, support, sizer.

Everything is fitted on the fold's training trades alone. Knows nothing of how folds are cut or judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from envs.signal_table import SignalTable
from evaluation.walk_forward import Fold
from market.splits import walk_forward
from policies.baselines import baselines
from policies.decision import Policy
from policies.hybrid import FineTunedPolicy, Network, TierPolicy
from policies.planned import PlannedPlugIn, planned
from signals.trades import Trades
from tuning.config import TrainConfig
from tuning.prepare import OutcomeFit, Prepared, Split, fit_outcomes, tables
from tuning.run_folder import Arrays, RunFolder

Integers = npt.NDArray[np.int64]


class FoldListener(Protocol):
    """Whoever follows the training of the folds' sizers."""

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        """A sizer is trained, or was found trained."""
        ...

    def progress(self, done: int, total: int, score: float) -> None:
        """Environment steps of the sizer's training; `score` is the mean expected utility per signal."""
        ...


class _Fitted(NamedTuple):
    """What all seeds of a fold share."""

    outcomes: OutcomeFit
    prepared: Prepared
    late: SignalTable
    ahead: PlannedPlugIn


@dataclass
class FoldFits:
    """The `evaluation.walk_forward.Fit` of a configuration on `trades`.

    What is finished is kept in `folder` and not done again. With `learns` false no sizer is trained, and
    outcome models learn from the select share too.
    """

    trades: Trades  # in time order
    late: Trades  # the same, each entered one bar later
    config: TrainConfig
    folder: RunFolder
    listener: FoldListener
    learns: bool
    title: str | None = None  # what the listener is told of, in place of the fold's number
    _known: dict[int, _Fitted] = field(default_factory=dict, init=False)

    def __call__(self, number: int, train: Integers, test: Integers, seed: int) -> Fold:
        """See `Fit`."""
        fitted = self._fitted(number, train, test)
        learned = self._learned(number, fitted.prepared, seed) if self.learns else None
        return Fold(fitted.prepared.test, fitted.late, (*baselines(seed), fitted.ahead), learned)

    def outcomes(self, number: int) -> OutcomeFit:
        """The outcome model of a fold that was fitted."""
        return self._known[number].outcomes

    def _fitted(self, number: int, train: Integers, test: Integers) -> _Fitted:
        if number not in self._known:
            # Of what comes after the test nothing is looked at, not even to be left out.
            seen = np.arange(int(test[-1]) + 1)
            trades, late = self.trades.take(seen), self.late.take(seen)
            parts = Split(*training_parts(self.trades, train, self.config, self.learns), test)
            stage = f"fold-{number}"
            if not self.folder.done(stage):
                fit = fit_outcomes(trades, parts, self.config)
                arrays, facts = fit.to_files()
                self.folder.write(stage, arrays, facts)
            fit = OutcomeFit.from_files(
                lambda name: self.folder.arrays(stage, name), self.folder.facts(stage)
            )
            prepared = tables(trades, parts, fit, self.config)
            ahead = planned(prepared.train, self.config.limits)
            self._known[number] = _Fitted(fit, prepared, tables(late, parts, fit, self.config).test, ahead)
        return self._known[number]

    def _learned(self, number: int, prepared: Prepared, seed: int) -> Policy:
        from tuning.sizer import train_sizer  # Ray and torch are slow to import

        stage = f"fold-{number}-seed-{seed}"
        config = self.config.model_copy(update={"seed": seed})
        resumed = self.folder.done(stage)
        if not resumed:
            work, progress = self.folder.work(stage), self.listener.progress
            network, curve = train_sizer(prepared.train, prepared.select, config, work, progress)
            arrays: dict[str, Arrays] = {"tiers": network.to_arrays()}
            facts: dict[str, Any] = {"curve": curve, "band": None}
            if config.algo == "dqn+ppo":
                from tuning.fine_tune import fine_tune

                both = prepared.train, prepared.select
                tuned = fine_tune(*both, network, config, work / "fine_tune", progress)
                arrays["fine_tune"] = tuned.policy.network.to_arrays()
                facts["band"] = tuned.figures.band if tuned.figures.served else None
            self.folder.write(stage, arrays, facts)
        steps, score = self.folder.facts(stage)["curve"][-1]
        note = f"{len(prepared.train):,} trades, {steps:,} steps, {score:+.4f} R expected per signal"
        title = self.title or f"fold {number + 1}"
        self.listener.stage(title, f"seed {seed}: {note}", resumed=resumed)
        tiers = TierPolicy(Network.from_arrays(self.folder.arrays(stage, "tiers")))
        band = self.folder.facts(stage)["band"]
        if band is None:
            return tiers
        fine = Network.from_arrays(self.folder.arrays(stage, "fine_tune"))
        return FineTunedPolicy(tiers, fine, band, tiers.name)  # one name, served or not: folds may differ


def training_parts(
    trades: Trades, train: Integers, config: TrainConfig, learns: bool
) -> tuple[Integers, Integers]:
    """The rows that a fold is fitted on and those that choose the network, the latter empty unless `learns`.

    Their shares are those of the configuration; trades still open at the first select signal are dropped.
    """
    if not learns:
        return train, train[:0]
    first, second, _ = config.fractions
    own = trades.take(train)
    ((fitted, select),) = walk_forward(own.signal_time, own.exit_time, 1, first / (first + second))
    return train[fitted], train[select]


def too_small(
    trades: Trades, rows: Sequence[tuple[Integers, Integers]], config: TrainConfig
) -> dict[int, int]:
    """The folds with too few trades to train a sizer on, and how many each has."""
    counts = [len(training_parts(trades, train, config, learns=True)[0]) for train, _ in rows]
    return {number: count for number, count in enumerate(counts) if count < config.least_trades}
